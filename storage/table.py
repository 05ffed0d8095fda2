"""Parquet tables that say what they are: kind and schema version in the file, meaning beside each column.

The bytes are a function of the rows and of the installed pandas and pyarrow: no time, no host, no index. Every page
has a checksum, without which a turned bit may well decompress to another number.
`pandas.read_parquet` opens them with the dtypes that were written.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from storage.atomic_write import atomic_write

KIND = b"sayanything.table"
VERSION = b"sayanything.schema"
NOTE = b"sayanything.note."
SHA256 = b"sayanything.sha256"  # of the schema and of all other words in the footer, which no page's checksum covers


class TableError(ValueError):
    """A table is missing, is not one of ours, or has another schema."""


@dataclass(frozen=True)
class TableFormat:
    """What a table is called inside the file, and the version of its columns that this code writes and reads."""

    kind: str
    version: int


def write_table(
    path: Path,
    frame: pd.DataFrame,
    table_format: TableFormat,
    meanings: Mapping[str, str],
    notes: Mapping[str, str] | None = None,
) -> None:
    """Write a DataFrame atomically; `meanings` explains each column, `notes` are texts about the whole table."""
    with open_table(path, table_format, meanings, notes) as write:
        write(frame)


@contextmanager
def open_table(
    path: Path, table_format: TableFormat, meanings: Mapping[str, str], notes: Mapping[str, str] | None = None
) -> Iterator[Callable[[pd.DataFrame], None]]:
    """Give a function that appends a DataFrame as a row group; the table appears when the block ends without error.

    The first frame, which there must be, says the columns and their types.
    """
    with atomic_write(path) as file, ExitStack() as stack:
        writers: list[pq.ParquetWriter] = []

        def write(frame: pd.DataFrame) -> None:
            table = pa.Table.from_pandas(frame, preserve_index=False)
            if not writers:
                schema = describe_schema(table.schema, table_format, meanings, notes or {})
                writer = pq.ParquetWriter(file, schema, compression="zstd", write_page_checksum=True)
                writers.append(stack.enter_context(writer))
            writers[0].write_table(table.cast(writers[0].schema))

        yield write


def describe_schema(
    schema: pa.Schema, table_format: TableFormat, meanings: Mapping[str, str], notes: Mapping[str, str]
) -> pa.Schema:
    """Return a schema with the kind, version, meanings, notes and sha256 that a table of ours carries."""
    metadata = dict(schema.metadata or {})
    metadata[KIND] = table_format.kind.encode()
    metadata[VERSION] = str(table_format.version).encode()
    for name, text in notes.items():
        metadata[NOTE + name.encode()] = text.encode()
    fields = [field.with_metadata({"meaning": meanings[field.name]}) for field in schema]
    metadata[SHA256] = schema_sha256(pa.schema(fields, metadata=metadata))
    return pa.schema(fields, metadata=metadata)


def read_table(path: Path, table_format: TableFormat, columns: list[str] | None = None) -> pd.DataFrame:
    """The rows, with the dtypes that were written. Raises TableError if the file is not `table_format`."""
    check_format(path, table_format)
    try:
        return pq.ParquetFile(path, page_checksum_verification=True).read(columns).to_pandas()
    except Exception as error:  # a damaged footer makes pyarrow and pandas raise anything
        raise TableError(f"{path}: cannot be read: {last_line(error)}") from error


def read_notes(path: Path, table_format: TableFormat) -> dict[str, str]:
    """The notes given to `write_table`, without reading the rows."""
    metadata = check_format(path, table_format).metadata
    return {name[len(NOTE) :].decode(): text.decode() for name, text in metadata.items() if name.startswith(NOTE)}


def read_meanings(path: Path, table_format: TableFormat) -> dict[str, str]:
    """The meaning of each column, without reading the rows."""
    schema = check_format(path, table_format)
    return {field.name: (field.metadata or {}).get(b"meaning", b"").decode() for field in schema}


def check_format(path: Path, table_format: TableFormat) -> pa.Schema:
    """The arrow schema of a table, after checking that it is what the caller expects."""
    try:
        file = pq.ParquetFile(path)
        schema, words = file.schema_arrow, dict(file.metadata.metadata or {})
        words.pop(
            b"ARROW:schema", None
        )  # the schema once more, in base64; readers take some from here, some from there
        hashes = {schema_sha256(schema), schema_sha256(schema.with_metadata(words))}
    except FileNotFoundError as error:
        raise TableError(f"{path}: no such file") from error
    except (pa.ArrowException, OSError, ValueError) as error:
        raise TableError(f"{path}: not a parquet file: {last_line(error)}") from error
    metadata = schema.metadata or {}
    kind, version = (metadata.get(name, b"").decode(errors="replace") for name in (KIND, VERSION))
    if kind != table_format.kind:
        raise TableError(f"{path}: not a {table_format.kind} table ({kind or 'nothing in it says what it is'})")
    if version != str(table_format.version):
        raise TableError(
            f"{path} has schema {version}, this code reads {table_format.version}; "
            "curate again or check out the version that wrote it"
        )
    if SHA256 in metadata and hashes != {metadata[SHA256]}:
        raise TableError(f"{path}: damaged since it was written: its columns and notes are not those of its sha256")
    return schema


def schema_sha256(schema: pa.Schema) -> bytes:
    """Return a sha256 over names, types and meanings of the columns and over the metadata, in hex digits."""
    fields = [(field.name, stored_type(field.type), (field.metadata or {}).get(b"meaning")) for field in schema]
    notes = sorted((name, text) for name, text in (schema.metadata or {}).items() if name != SHA256)
    return hashlib.sha256(repr((fields, notes)).encode("utf-8", "surrogateescape")).hexdigest().encode()


def stored_type(kind: pa.DataType) -> str:
    """Return the name of a type as a file gives it back: short strings, and categories of nothing but strings."""
    if pa.types.is_dictionary(kind) and not str(kind.value_type).endswith("string"):
        kind = kind.value_type
    return str(kind).replace("large_string", "string")


def last_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]
