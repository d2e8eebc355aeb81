"""Numbers that the data itself has of its documents: tests passed, a preference, a mark."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wmtp.errors import DataError
from wmtp.untrusted import did_you_mean, show, show_all

_LARGEST = 3.4e38  # what fp32 holds, in which scores are kept


def read_number(entry: Mapping[str, Any], key: str, where: str) -> float:
    """Return the number that a line of JSONL has under a key; true is 1 and false is 0.

    Args:
        entry: The line.
        key: The key.
        where: File and line, for messages.

    Raises:
        DataError: If the key is missing, or its value is no number that fp32 can hold.
    """
    if key not in entry:
        found = ", ".join(show_all(entry)) or "none"
        raise DataError(
            f"{where}: the key {show(key)} is missing, which holds a score of the document; keys found: {found}",
            hint=f"write it on every line, or name the key that holds it in the recipe{did_you_mean(key, entry)}",
        )
    value = entry[key]
    # NaN would compare as false here; strict JSON has none.
    if not isinstance(value, int | float) or not abs(value) <= _LARGEST:
        raise DataError(
            f"{where}: {show(key)} is {show(value)}, expected a finite number, or true or false",
            hint="mend the line, or remove it: a document without a score cannot be weighed",
        )
    return float(value)


def refuse_columns(path: Path, columns: Mapping[str, str]) -> None:
    """Raise DataError if a file of plain text should have numbers for its documents."""
    if columns:
        keys = ", ".join(show(key) for key in columns.values())
        raise DataError(
            f"{path}: a text file has no key {keys}, which holds a score of each document",
            hint="write the documents as JSONL, one object a line with text and number, and name only such files",
        )
