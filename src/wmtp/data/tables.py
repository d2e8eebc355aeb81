"""Parquet and Arrow files, read some rows at a time and only in the columns that are wanted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from wmtp.data.files import DataFile
from wmtp.errors import DataError
from wmtp.untrusted import did_you_mean, show, show_all

_ROWS = 1024
_ARROW_FILE = b"ARROW1"


def table_rows(file: DataFile, columns: Sequence[str], hints: dict[str, str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each row of a table, with the file and its number, from 1 on.

    Args:
        file: By its suffix Parquet or Arrow (also as a stream, which is how `datasets` keeps it).
        columns: Which of its columns are wanted.
        hints: What to do where one is missing.

    Raises:
        DataError: If the file cannot be read, or lacks a column.
    """
    number = 0
    with _table_errors(file):
        names, batches = _opened(file, columns)
        _require(file, columns, names, hints)
        for batch in batches:
            for row in batch.select(list(columns)).to_pylist():
                number += 1
                yield f"{file.where}: row {number}", row


def table_size(file: DataFile) -> int:
    """Return how many rows a table has."""
    from pyarrow import parquet

    with _table_errors(file):
        if file.suffix == ".parquet":
            return int(parquet.read_metadata(file.path).num_rows)
        return sum(len(batch) for batch in _opened(file, [])[1])


def _opened(file: DataFile, columns: Sequence[str]) -> tuple[list[str], Iterator[Any]]:
    import pyarrow
    from pyarrow import parquet

    if file.suffix == ".parquet":
        table = parquet.ParquetFile(file.path, memory_map=True)
        names = list(table.schema_arrow.names)
        wanted = [column for column in columns if column in names]
        return names, table.iter_batches(batch_size=_ROWS, columns=wanted)
    with file.path.open("rb") as opened:
        is_file = opened.read(len(_ARROW_FILE)) == _ARROW_FILE
    source = pyarrow.memory_map(str(file.path))
    if not is_file:
        stream = pyarrow.ipc.open_stream(source)
        return list(stream.schema.names), _sliced(stream)
    reader = pyarrow.ipc.open_file(source)
    return list(reader.schema.names), _sliced(reader.get_batch(place) for place in range(reader.num_record_batches))


def _sliced(batches: Iterator[Any]) -> Iterator[Any]:
    for batch in batches:
        for start in range(0, len(batch), _ROWS):
            yield batch.slice(start, _ROWS)


def _require(file: DataFile, columns: Sequence[str], names: list[str], hints: dict[str, str]) -> None:
    for column in columns:
        if column not in names:
            found = ", ".join(show_all(names)) or "none"
            raise DataError(
                f"{file.where}: the column {show(column)} is missing; columns found: {found}",
                hint=f"{hints.get(column, 'name a file that has it')}{did_you_mean(column, names)}",
            )


@contextmanager
def _table_errors(file: DataFile) -> Iterator[None]:
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, OSError) as error:
        kind = "Parquet" if file.suffix == ".parquet" else "Arrow"
        raise DataError(
            f"{file.where}: cannot be read as {kind}: {show(str(error))}",
            hint="restore the file, or leave it out",
        ) from error
