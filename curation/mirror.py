"""Copies an output to an object store: shards, recipe, manifests, report, and last the index that names the shards.

    python -m curation.mirror OUT s3://BUCKET/PREFIX

`curation/run.py --mirror URL` does the same, and copies each shard as soon as it is sealed. What is there with the same
bytes is not copied again, so the same command continues what was interrupted. Every object is read back and compared by
sha256; SHA256SUMS beside them is what `sha256sum -c` reads. Nothing is removed from the store: a shard that the index
does not name does not exist. Parts and ledger, with which a run goes on, stay here.

Exit code 0: all is there; 1: stopped before the end, run it again; 2: refused before starting.
"""

import sys
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from command import option_of, parser_of
from storage.digest import sha256
from storage.store import (
    RemoteFile,
    StoreError,
    list_below,
    parse_url,
    read_pieces,
    sha256_of,
    stat,
    upload,
    write,
)

SUMS = "SHA256SUMS"
COPIED = ("shards/*.tar", "recipe*.yaml", "manifests/*", "report/**/*", "shards/index.parquet")  # in this order
STORES = ("s3://", "gs://", "az://")


class MirrorError(ValueError):
    """An output cannot be copied to a store, or not now; says how to go on."""


class Mirror:
    """The copy of an output in a store. Raises MirrorError at once if the store cannot be written to."""

    def __init__(self, output: Path, target: RemoteFile) -> None:
        self.output, self.url = output, target.url
        self.copied = self.copied_bytes = 0
        self.worker = ThreadPoolExecutor(1)
        self.under_way: list[Future[None]] = []
        try:
            there = {file.url: file for file in list_below(self.url)}
            self.sums = read_sums(there.get(self.url_of(SUMS)))
            self.sizes = {url: file.size for url, file in there.items()}
            self._write_sums()
        except StoreError as error:
            raise MirrorError(f"--mirror: {error}") from error

    def url_of(self, name: str) -> str:
        return f"{self.url}/{name}"

    def copy_later(self, name: str) -> None:
        """Copy a file, while others are written; `finish` raises what goes wrong."""
        self.under_way.append(self.worker.submit(self._copy, name))

    def finish(self) -> None:
        """Copy all that is not there yet. Raises MirrorError; then the same, later, goes on where this has stopped."""
        names = files_to_copy(self.output)
        try:
            for future in self.under_way:
                future.result()
            for name in names:
                self._copy(name)
            self.sums = {name: self.sums[name] for name in names}
            self._write_sums()
        except StoreError as error:
            raise MirrorError(
                f"{error}. The output in {self.output} is whole; what is not in {self.url} yet is copied by\n"
                f"  python -m curation.mirror {self.output} {self.url}"
            ) from error

    def describe(self) -> str:
        copied = f"{self.copied:,} of them copied now, {self.copied_bytes / 1e9:.2f} GB"
        return f"{self.url}: {len(self.sums):,} files, {copied}"

    def close(self) -> None:
        """Start no further copy."""
        self.worker.shutdown(wait=False, cancel_futures=True)

    def _copy(self, name: str) -> None:
        """Copy one file unless the same bytes are there; read it back."""
        path, url = self.output / name, self.url_of(name)
        digest, size = sha256(path), path.stat().st_size
        if self.sizes.get(url) == size and (
            self.sums.get(name) == digest or sha256_of(RemoteFile(url, size)) == digest
        ):
            self.sums[name] = digest
            return
        upload(path, url)
        found = stat(url)
        if found.size != size or sha256_of(found) != digest:
            raise StoreError(f"{url}: has other bytes than were sent")
        self.sums[name], self.sizes[url] = digest, size
        self.copied, self.copied_bytes = self.copied + 1, self.copied_bytes + size

    def _write_sums(self) -> None:
        write(self.url_of(SUMS), "".join(f"{digest}  {name}\n" for name, digest in sorted(self.sums.items())).encode())


def read_sums(file: RemoteFile | None) -> dict[str, str]:
    """Return sha256 by name from a SHA256SUMS; nothing if it is not there."""
    if file is None:
        return {}
    lines = b"".join(read_pieces(file)).decode("utf-8", "replace").splitlines()
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}


def files_to_copy(output: Path) -> list[str]:
    """Return the files of an output that a mirror holds, in the order in which they are copied."""
    found = [path for pattern in COPIED for path in sorted(output.glob(pattern)) if path.is_file()]
    names = [path.relative_to(output).as_posix() for path in found]
    return [name for name in names if not any(part.startswith(".") for part in name.split("/"))]


def parse_target(text: str) -> RemoteFile:
    """Return the prefix of this URL. Raises ValueError unless it is one that can be written to."""
    if not text.startswith(STORES):
        raise ValueError(f"{text}: a mirror is a prefix in a store: {', '.join(STORES)}")
    return parse_url(text)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = parser_of("python -m curation.mirror", __doc__)
    parser.add_argument("output", type=Path, help="output folder of curation/run.py, finished")
    parser.add_argument(
        "target", type=option_of(parse_target), metavar="URL", help="s3://BUCKET/PREFIX, gs://... or az://..."
    )
    options = parser.parse_args(arguments)
    if not (options.output / "shards" / "index.parquet").is_file():
        print(f"refused: {options.output}: no shards/index.parquet; is it a finished output?", file=sys.stderr)
        return 2
    try:
        mirror = Mirror(options.output, options.target)
    except MirrorError as error:
        print(f"refused: {error}", file=sys.stderr)
        return 2
    try:
        mirror.finish()
    except (MirrorError, OSError, KeyboardInterrupt) as error:
        print(f"stopped: {error or 'on request'}; the same command continues", file=sys.stderr)
        return 1
    print(mirror.describe())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
