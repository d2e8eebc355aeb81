"""Documents as tokens: numbers of each in an array, their tokens one after another in a file or in memory."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wmtp.errors import DataError

Array = npt.NDArray[Any]

# What is known of a document beside its tokens. A name of `scores` becomes one more field, fp32.
RECORD = [
    ("length", "<i8"),  # tokens, with those that begin and end it
    ("prompt", "<i4"),  # tokens from the start that are read and not learned
    ("targets", "<i8"),  # tokens that the next-token head learns
    ("chat", "u1"),  # whether `learned` says what is learned
    ("digest", "<u8"),  # of the tokens
    ("text", "S32"),  # SHA-256 of the text
    ("source", "<i4"),
    ("file", "<i4"),
    ("line", "<i8"),  # 0: the file is the document
    ("column", "<i4"),  # 0: it begins its line; _ROW: `line` is the number of a row of a table
]
_SCORE = "score:"
_ROW = -1
_PLACE = re.compile(r"(?s)(.*?)(?::(\d{1,18})(?::(\d{1,9}))?|: row (\d{1,18}))?")


def record_type(scores: Sequence[str]) -> np.dtype[Any]:
    """Return the type of what is known of a document whose data gives these scores."""
    return np.dtype([*RECORD, *((f"{_SCORE}{name}", "<f4") for name in scores)])


class NumberFile:
    """Numbers of one type in a file, read where they are asked for.

    Not mapped: each page that is touched would count as this process's own, with all that the system maps around it.

    Args:
        path: The file; it must stay as it is.
        dtype: The type of its numbers.
    """

    def __init__(self, path: Path, dtype: str) -> None:
        self._path, self._dtype = path, np.dtype(dtype)
        self._file = path.open("rb", buffering=0)
        self._size = path.stat().st_size // self._dtype.itemsize

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, place: slice) -> Array:
        start, stop, _ = place.indices(self._size)
        begin, wanted = start * self._dtype.itemsize, max(0, stop - start) * self._dtype.itemsize
        found = bytearray()
        while piece := os.pread(self._file.fileno(), wanted - len(found), begin + len(found)):
            found += piece
        if len(found) < wanted:
            raise DataError(f"{self._path}: shorter than it was", hint="start again; what is damaged is made anew")
        return np.frombuffer(found, self._dtype)

    def __reduce__(self) -> tuple[Any, ...]:
        return NumberFile, (self._path, self._dtype.str)


@dataclass(frozen=True, eq=False)
class TokenStore:
    """Documents as tokens.

    Attributes:
        tokens: Of all documents, one after another, int32.
        records: What is known of each document; see `RECORD`.
        learned: For each token of a chat whether it is learned, uint8; of other documents their prompts say so. None
            where there is no chat.
        files: Names of the files that the documents are from.
    """

    tokens: NumberFile | Array
    records: Array
    learned: NumberFile | Array | None = None
    files: Sequence[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.records)

    @property
    def starts(self) -> Array:
        """Where each document begins."""
        ends = np.cumsum(self.records["length"])
        return ends - self.records["length"]

    @property
    def scores(self) -> dict[str, Array]:
        """Numbers that the data has of each document, by the name of the score."""
        names = self.records.dtype.names or ()
        return {name.removeprefix(_SCORE): self.records[name] for name in names if name.startswith(_SCORE)}

    def where(self, document: int) -> str:
        """Return file, and line or row, of a document; empty where that is not known."""
        record = self.records[document]
        if not 0 <= record["file"] < len(self.files):
            return ""
        name, line, column = self.files[record["file"]], int(record["line"]), int(record["column"])
        if column == _ROW:
            return f"{name}: row {line}"
        return name + (f":{line}" if line else "") + (f":{column}" if column > 0 else "")


def place_of(where: str) -> tuple[str, int, int]:
    """Return the file of a place, and line and column as records have them."""
    found = _PLACE.fullmatch(where)
    assert found is not None  # every text has a place in it, if an empty one
    line, column = (found[4], _ROW) if found[4] else (found[2], found[3])
    return found[1], int(line or 0), int(column or 0)


def token_digest(tokens: Array) -> int:
    """Return what tells a document's tokens from others, as a number of 64 bits."""
    return int(hashlib.sha256(tokens.astype("<i4", copy=False).tobytes()).hexdigest()[:16], 16)
