"""Values that records have under a key: texts, and numbers that the data says of its documents."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wmtp.data.records import Unusable
from wmtp.errors import DataError
from wmtp.untrusted import did_you_mean, show, show_all

_LARGEST = 3.4e38  # what fp32 holds, in which scores are kept
_MEND = "mend the line, or remove it"


def read_text(entry: Mapping[str, Any], key: str, where: str, hint: str, *, may_be_empty: bool = False) -> str:
    """Return the text that a record has under a key, as it stands.

    Args:
        entry: The record.
        key: The key.
        where: File and line, for messages.
        hint: What to do where the key is missing.
        may_be_empty: Whether a text without anything but spaces will do.

    Raises:
        DataError: If the key is missing, or its value is no text that can be learned.
    """
    if key not in entry:
        raise DataError(
            f"{where}: the key {show(key)} is missing; keys found: {_keys(entry)}",
            hint=f"{hint}{did_you_mean(key, entry)}",
        )
    value = _usable(entry[key], key, where)
    if not isinstance(value, str) or not (may_be_empty or value.strip()):
        raise DataError(f"{where}: {show(key)} is {show(value)}, expected text", hint=_MEND)
    try:
        value.encode()
    except UnicodeEncodeError as error:
        found = show(value[error.start])
        problem = f"{where}: {show(key)} has a lone surrogate in it, {found}, which is no character"
        raise DataError(problem, hint=_MEND) from error
    return value


def read_number(entry: Mapping[str, Any], key: str, where: str) -> float:
    """Return the number that a record has under a key; true is 1 and false is 0.

    Args:
        entry: The record.
        key: The key.
        where: File and line, for messages.

    Raises:
        DataError: If the key is missing, or its value is no number that fp32 can hold.
    """
    if key not in entry:
        raise DataError(
            f"{where}: the key {show(key)} is missing, which holds a score of the document; keys found: {_keys(entry)}",
            hint=f"write it on every line, or name the key that holds it in the recipe{did_you_mean(key, entry)}",
        )
    value = _usable(entry[key], key, where)
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


def _usable(value: Any, key: str, where: str) -> Any:
    if isinstance(value, Unusable):
        raise DataError(f"{where}: {show(key)} {value.problem}", hint=_MEND)
    return value


def _keys(entry: Mapping[str, Any]) -> str:
    return ", ".join(show_all(entry)) or "none"
