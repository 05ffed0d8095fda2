"""Tables say what they are, and are refused when they are not as they were written."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from storage.table import TableError, TableFormat, read_table, write_table


@pytest.mark.parametrize("behind", [0, 60, 300, 500, 700])
def test_a_byte_of_the_footer_that_is_read_is_found(tmp_path: Path, behind: int) -> None:
    path, form = tmp_path / "a.parquet", TableFormat("a", 1)
    frame = pd.DataFrame({"much": [0.5, np.nan], "word": pd.Series(["x", "y"], dtype="category")})
    write_table(path, frame, form, {"much": "how much of it", "word": "a word"}, {"reasons": "nobody knows"})
    assert read_table(path, form).equals(frame)
    data = bytearray(path.read_bytes())
    place = data.index(b"ARROW:schema") + behind  # all words once more, in base64: these are read
    data[place] = ord("B") if data[place] != ord("B") else ord("C")
    path.write_bytes(data)
    with pytest.raises(TableError, match=r"a.parquet: (damaged since|not a parquet|cannot be read)"):
        read_table(path, form)


def test_a_bit_of_a_page_is_an_error_and_no_other_value(tmp_path: Path) -> None:
    path, form = tmp_path / "a.parquet", TableFormat("a", 1)
    write_table(path, pd.DataFrame({"text": ["alpha", "berta"]}), form, {"text": "t"})
    data = bytearray(path.read_bytes())
    place = data.index(b"alpha")
    data[place] ^= 1
    path.write_bytes(data)
    with pytest.raises(TableError, match="a.parquet: cannot be read"):
        read_table(path, form)


@pytest.mark.parametrize("words", [["x", None], [None, None], []])
def test_a_column_of_categories_is_read_back_with_and_without_a_value(tmp_path: Path, words: list[str | None]) -> None:
    path, form = tmp_path / "a.parquet", TableFormat("a", 1)
    write_table(path, pd.DataFrame({"word": pd.Series(words, dtype="category")}), form, {"word": "a word"})
    assert read_table(path, form)["word"].isna().tolist() == [word is None for word in words]
