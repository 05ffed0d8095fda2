"""What the ledger holds of all finished sources, in order of path, with the rows of a few hundred in memory at a time.

Segments are in order of commit. Each is read once, and its rows are written to one of many files by the place of their
path in the order; then file after file is read and sorted. That takes the ledger's space once more, uncompressed.
"""

import json
import shutil
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from curation.ledger import Ledger
from curation.ledger_files import read_segment, segments
from curation.source import Curated

FOLDER = ".sorted"  # in OUT/ledger, while manifests are written
BLOCK_SOURCES = 512
BUFFER_BYTES = 64_000_000


class SortedRows:
    """The finished sources of a ledger in blocks; as a `with` block, which removes the files at its end.

    Can be iterated again and again. What waits in the ledger must have been flushed.
    """

    def __init__(self, ledger: Ledger, block_sources: int = BLOCK_SOURCES) -> None:
        assert not ledger.waiting, "flush first"
        self.ledger, self.folder = ledger, ledger.folder / FOLDER
        names = sorted(ledger.done)
        self.starts = names[::block_sources]

    def __enter__(self) -> Self:
        self._remove()
        if len(self.starts) > 1:
            self._sort()
        return self

    def __exit__(self, *_: object) -> None:
        self._remove()

    def __iter__(self) -> Iterator[list[Curated]]:
        for number in range(len(self.starts)):
            rows = self._read_file(number) if len(self.starts) > 1 else (text for _, text in self._last_rows())
            block = [Curated(**json.loads(text)) for text in rows]
            yield sorted(block, key=lambda each: each.source["path"])

    def _last_rows(self) -> Iterator[tuple[str, str]]:
        """Yield (path, JSON) of the last row of every path, in order of commit."""
        for path in segments(self.ledger.output):
            for row in read_segment(path):
                if self.ledger.done[row["path"]].segment == path.name:
                    yield row["path"], row["curated"]

    def _sort(self) -> None:
        self.folder.mkdir()
        waiting: defaultdict[int, list[str]] = defaultdict(list)
        size = 0
        for path, text in self._last_rows():
            waiting[bisect_right(self.starts, path) - 1].append(text)
            size += len(text)
            if size > BUFFER_BYTES:
                self._write(waiting)
                size = 0
        self._write(waiting)

    def _write(self, waiting: defaultdict[int, list[str]]) -> None:
        for number, texts in waiting.items():
            with self._file(number).open("a", encoding="utf-8") as file:
                file.writelines(f"{text}\n" for text in texts)
        waiting.clear()

    def _read_file(self, number: int) -> Iterator[str]:
        with self._file(number).open(encoding="utf-8", newline="\n") as file:
            yield from file

    def _file(self, number: int) -> Path:
        return self.folder / f"{number:06d}.jsonl"

    def _remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
