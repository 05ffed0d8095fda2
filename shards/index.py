"""`<output>/shards/index.parquet`: one row per sample, in the order of the shards.

| column | dtype | meaning |
|---|---|---|
| shard | str | file name of the tar beside the index |
| key | str | key of the sample |
| source_id | str | sha256 of the source video |
| frames | int64 | frames at 25 fps |
| start_frame, end_frame | int64 | place in the source, in frames of its 25 fps grid |
| offset, bytes | int64 | the sample in the tar, from its first header to its last padding: one read gives all members |
| sha256 | str | `shards.sample.sample_sha256` of its members |
| `<member>_offset`, `<member>_size` | Int64 | the content of one member in the tar; missing if the sample lacks it |

A shard that the index does not name does not exist: the index is written last.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from shards.sample import MEMBERS
from storage.table import TableFormat, read_table, write_table

INDEX_NAME = "index.parquet"
INDEX = TableFormat("shards.index", 1)

MEANINGS = {
    "shard": "file name of the tar beside the index",
    "key": "key of the sample",
    "source_id": "sha256 of the source video",
    "frames": "frames at 25 fps",
    "start_frame": "first frame in the source, 25 fps grid",
    "end_frame": "frame after the last in the source, 25 fps grid",
    "offset": "byte of the sample's first header in the tar",
    "bytes": "bytes of the sample in the tar, headers and padding included",
    "sha256": "SHA-256 over the members, as shards.sample.sample_sha256 defines it",
}
DTYPES = dict.fromkeys(MEANINGS, "int64") | dict.fromkeys(("shard", "key", "source_id", "sha256"), "str")


def offset_column(member: str) -> str:
    """The column with a member's offset: `whisper.npy` -> `whisper_npy_offset`."""
    return f"{member.replace('.', '_')}_offset"


def size_column(member: str) -> str:
    return f"{member.replace('.', '_')}_size"


for _member in MEMBERS:
    MEANINGS[offset_column(_member)] = f"byte in the tar where the content of {_member} begins"
    MEANINGS[size_column(_member)] = f"bytes of {_member}"
    DTYPES[offset_column(_member)] = DTYPES[size_column(_member)] = "Int64"


def index_frame(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Rows as a table with the dtypes of the index; a member that a row does not place is missing."""
    columns = {name: pd.Series([row.get(name) for row in rows], dtype=dtype) for name, dtype in DTYPES.items()}
    return pd.DataFrame(columns)


def write_index(shards: Path, index: pd.DataFrame) -> None:
    """Write index.parquet atomically, sorted by shard and offset."""
    write_table(shards / INDEX_NAME, index.sort_values(["shard", "offset"], ignore_index=True), INDEX, MEANINGS)


def read_index(shards: Path) -> pd.DataFrame:
    """The index of a folder of shards. Raises TableError if there is none or its schema is another."""
    return read_table(shards / INDEX_NAME, INDEX)
