"""Values that records have under a key: texts, and numbers that the data says of its documents."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from wmtp.data.records import Unusable
from wmtp.errors import DataError
from wmtp.untrusted import did_you_mean, show, show_all

ASSISTANT = "assistant"
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
        raise _missing(entry, key, where, hint)
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


def read_messages(
    entry: Mapping[str, Any], key: str, where: str, hint: str, *, is_learned: bool = True
) -> list[dict[str, Any]]:
    """Return the turns of a chat that a record has under a key; what a turn has no value for is left out.

    Args:
        entry: The record.
        key: The key.
        where: File and line, for messages.
        hint: What to do where the key is missing.
        is_learned: Whether a turn has to be the assistant's; a chat that is to be gone on with needs none.

    Raises:
        DataError: If the key is missing, its value is no list of turns with role and content, or none is the
            assistant's.
    """
    if key not in entry:
        raise _missing(entry, key, where, hint)
    value = _usable(entry[key], key, where)
    if not isinstance(value, list) or not value:
        raise DataError(f"{where}: {show(key)} is {show(value)}, expected a list of turns", hint=_MEND)
    turns = [_turn(turn, f"{where}: turn {number} of {show(key)}") for number, turn in enumerate(value, start=1)]
    if is_learned and not any(turn["role"] == ASSISTANT for turn in turns):
        roles = ", ".join(show_all(sorted({turn["role"] for turn in turns})))
        raise DataError(
            f"{where}: {show(key)} has no turn of the assistant, so there is nothing to learn; roles found: {roles}",
            hint=f"leave the chat out, or call the role {ASSISTANT!r} whose turns are to be learned",
        )
    return turns


def _missing(entry: Mapping[str, Any], key: str, where: str, hint: str) -> DataError:
    lists = (name for name, value in entry.items() if isinstance(value, list) and _holds(value[:1], key))
    hint = f"{hint}{did_you_mean(key, entry)}"
    if name := next(lists, None):
        # As exports of whole data sets are often written: {"data": [...]}.
        hint = f"its list {show(name)} holds the records: write that list alone into the file, or one record a line"
    return DataError(f"{where}: the key {show(key)} is missing; keys found: {_keys(entry)}", hint=hint)


def _holds(values: Sequence[Any], key: str) -> bool:
    return any(isinstance(value, dict) and key in value for value in values)


def _turn(turn: Any, where: str) -> dict[str, Any]:
    if not isinstance(turn, dict) or not isinstance(turn.get("role"), str) or "content" not in turn:
        raise DataError(f"{where} is {show(turn)}, expected an object with role and content", hint=_MEND)
    if fault := next(_unusable(turn), None):
        raise DataError(f"{where} has a value that {fault.problem}", hint=_MEND)
    if not isinstance(turn["content"], str | list) and not turn.get("tool_calls"):
        raise DataError(f"{where}: content is {show(turn['content'])}, expected text", hint=_MEND)
    try:
        json.dumps(turn, ensure_ascii=False).encode()
    except (TypeError, ValueError) as error:  # a lone surrogate too
        raise DataError(f"{where} has a value that is no text or number: {error}", hint=_MEND) from error
    return {name: value for name, value in turn.items() if value is not None}


def _unusable(value: Any) -> Iterator[Unusable]:
    if isinstance(value, Unusable):
        yield value
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for part in parts:
        yield from _unusable(part)


def refuse_columns(where: str, columns: Mapping[str, str]) -> None:
    """Raise DataError if a file of plain text should have numbers for its documents."""
    if columns:
        keys = ", ".join(show(key) for key in columns.values())
        raise DataError(
            f"{where}: a text file has no key {keys}, which holds a score of each document",
            hint="write the documents as JSONL, one object a line with text and number, and name only such files",
        )


def _usable(value: Any, key: str, where: str) -> Any:
    if isinstance(value, Unusable):
        raise DataError(f"{where}: {show(key)} {value.problem}", hint=_MEND)
    return value


def _keys(entry: Mapping[str, Any]) -> str:
    return ", ".join(show_all(entry)) or "none"
