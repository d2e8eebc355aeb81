"""What a data file is, by its name and its first bytes, and its content without compression."""

from __future__ import annotations

import codecs
import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from wmtp.errors import DataError
from wmtp.untrusted import refuse_pointer

JSON_SUFFIXES = frozenset({".json", ".jsonl", ".ndjson"})
TABLE_SUFFIXES = frozenset({".parquet", ".arrow", ".feather"})

# What a gzip file may hold. A document, its tokens and its rows are kept in memory; a bomb would fill it.
MAX_UNPACKED_BYTES = 1 << 30

# A file that holds more than this is not read into memory, where it can be read in parts.
LONG_BYTES = 16 << 20

_TABLES = {
    **dict.fromkeys((".csv", ".tsv"), "a table in text"),
    **dict.fromkeys((".xls", ".xlsx", ".ods"), "a spreadsheet"),
    **dict.fromkeys((".orc", ".avro"), "a table in binary form"),
}
_READERS = {
    ".csv": "read_csv({})", ".tsv": "read_csv({}, sep='\\t')", ".orc": "read_orc({})",
    **dict.fromkeys((".xls", ".xlsx", ".ods"), "read_excel({})"),
}  # fmt: skip
_PACKED = frozenset({".zip", ".tar", ".tgz", ".bz2", ".xz", ".lz4", ".7z", ".rar"})
_UNPACK = "unpack it, and name what was in it"
_FIRST_BYTES = {
    b"PAR1": ("Parquet", "name it *.parquet: its columns are read then"),
    b"ARROW1": ("Arrow", "name it *.arrow: its columns are read then"),
    b"PK\x03\x04": ("a zip archive", _UNPACK),
    b"BZh": ("packed by bzip2", _UNPACK),
    b"\xfd7zXZ": ("packed by xz", _UNPACK),
}
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_BYTES_TO_KNOW = 4096
_ZSTD_FACTOR = 4  # of text, about
_LENGTH_BYTES = 4  # the end of a gzip file: its length without compression, modulo 4 GiB


@dataclass(frozen=True)
class Content:
    """What a file holds, or its beginning.

    Attributes:
        path: The file.
        data: Its bytes, without compression.
        is_whole: Whether these are all of them.
        name: What messages call the file, where that is not its path.
    """

    path: Path
    data: bytes
    is_whole: bool = True
    name: str = ""

    @property
    def where(self) -> str:
        """The file, for messages."""
        return self.name or str(self.path)

    def text(self) -> str:
        """Return it as text, to the byte but for a byte order mark at its begin.

        Raises:
            NotTextError: If it is not UTF-8, or has NUL characters.
        """
        self.refuse_binary()
        try:
            text = codecs.getincrementaldecoder("utf-8-sig")().decode(self.data, self.is_whole)
        except UnicodeDecodeError as error:
            raise NotTextError(self.where, str(error)) from error
        if "\0" in text:
            raise NotTextError(self.where, "it has NUL characters")
        return text

    def refuse_binary(self) -> None:
        """Raise DataError if the first bytes show that this is no text, or not the file itself."""
        refuse_pointer(self.data, where=self.where, error=DataError)
        head = self.data[:_BYTES_TO_KNOW]
        found = next((found for first, found in _FIRST_BYTES.items() if head.startswith(first)), None)
        if found and (b"\0" in head or not _is_utf8(head)):
            kind, hint = found
            raise NotTextError(self.where, f"by its first bytes it is {kind}", hint)
        if b"\0" in head:
            raise NotTextError(self.where, "it has NUL characters")


class NotTextError(DataError):
    """A file whose bytes are no text."""

    def __init__(self, where: str, reason: str, hint: str = "convert the file to UTF-8, or leave it out") -> None:
        super().__init__(f"{where}: not readable as UTF-8 text: {reason}", hint=hint)

    def __reduce__(self) -> tuple[type[DataError], tuple[str, str, tuple[str, ...]]]:
        return DataError, (self.problem, self.hint, self.faults)


def suffix_of(path: Path) -> str:
    """Return what a file's name says it is, in lower case: `.jsonl` for `TRAIN.JSONL` and for `train.jsonl.gz`."""
    return Path(path.name.lower().removesuffix(".gz").removesuffix(".zst")).suffix


def refuse_other_kinds(path: Path, *, raw: bool) -> None:
    """Raise DataError for a file whose name says that it is of a kind that is not read.

    Args:
        path: The file.
        raw: Whether it is learned as it stands, as a table in text can be.
    """
    suffix = suffix_of(path)
    if suffix in _TABLES and not (raw and suffix in (".csv", ".tsv")):
        raise DataError(f"{path}: {_TABLES[suffix]}, and such files are not read", hint=_as_jsonl(path, suffix))
    if suffix in _PACKED:
        raise DataError(
            f"{path}: packed, and of packed files only single ones by gzip or zstd are read",
            hint=_UNPACK,
        )


def read_content(path: Path, at_most: int | None = None, *, name: str = "") -> Content:
    """Read a file, or its beginning; one by gzip or zstd, whatever its name, is unpacked.

    Args:
        path: The file.
        at_most: So many bytes; None: all.
        name: What messages call it, where that is not its path.

    Raises:
        DataError: If it cannot be read, or holds more than 1 GiB once unpacked.
    """
    _refuse_endless(path)
    with opened(path) as (file, is_packed):
        most = min(at_most or MAX_UNPACKED_BYTES, MAX_UNPACKED_BYTES) if is_packed else at_most
        data = file.read() if most is None else file.read(most + 1)
    is_whole = most is None or len(data) <= most
    if is_packed and not is_whole and most == MAX_UNPACKED_BYTES:
        raise DataError(
            f"{path}: holds more than {MAX_UNPACKED_BYTES:,} bytes once unpacked",
            hint="unpack it, and name what was in it; several smaller files are read too",
        )
    return Content(path, data if is_whole else data[:most], is_whole, name)


def content_size(path: Path) -> int:
    """Return how many bytes a file holds; of one by gzip, what its end says that these are without compression."""
    stored = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(len(_ZSTD))
        if head == _ZSTD:
            return _ZSTD_FACTOR * stored  # not every file says it
        if not head.startswith(_GZIP):
            return stored
        file.seek(max(0, stored - _LENGTH_BYTES))
        return min(max(stored, int.from_bytes(file.read(), "little")), MAX_UNPACKED_BYTES)


def _refuse_endless(path: Path) -> None:
    # Opening a pipe waits for who writes into it, a device may never end, and both are read more than once.
    if path.exists() and not path.is_file():
        raise DataError(
            f"{path}: a pipe, a device or a socket, and data is read from files",
            hint="write what it gives into a file, and name that",
        )


class Readable(Protocol):
    """A file that gives its bytes in order."""

    def read(self, size: int = -1, /) -> bytes:
        """Return so many bytes, or fewer at its end."""

    def readline(self, size: int = -1, /) -> bytes:
        """Return a line with its end, or so many bytes of it."""


@contextmanager
def opened(path: Path) -> Iterator[tuple[Readable, bool]]:
    """Open a file to read what is in it, and say whether it is unpacked on the way.

    Raises:
        DataError: If it cannot be read; also while it is.
    """
    try:
        with path.open("rb") as file:
            head = file.read(len(_ZSTD))
            file.seek(0)
            if head.startswith(_GZIP):
                with gzip.GzipFile(fileobj=file) as unpacked:
                    yield unpacked, True
            elif head == _ZSTD:
                yield _unpacked_zstd(path), True
            else:
                yield file, False
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path}: cannot be read: {reason}", hint="restore the file, or leave it out") from error


def _unpacked_zstd(path: Path) -> Readable:
    import pyarrow

    return io.BufferedReader(pyarrow.CompressedInputStream(pyarrow.OSFile(str(path)), "zstd"))


def _is_utf8(head: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return True


def _as_jsonl(path: Path, suffix: str) -> str:
    how = ""
    if suffix in _READERS:
        read = _READERS[suffix].format(repr(path.name))
        how = f"; with pandas: pandas.{read}.to_json({path.stem + '.jsonl'!r}, orient='records', lines=True)"
    return f"write it as JSONL, one object a line{how}"
