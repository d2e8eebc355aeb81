"""JSON records of a data file: objects one a line, an array of objects, or objects over several lines."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from wmtp.data.content import Content
from wmtp.data.parts import line_parts
from wmtp.errors import DataError
from wmtp.untrusted import MAX_INDEX_BYTES, JSONFault, json_text, show

_BOM = b"\xef\xbb\xbf"
_MOST_DIGITS = 40
_SPACE = re.compile(r"[ \t\r\n]*")
# Only ends of values are asked of it: numbers stay text, so that none is too long to convert.
_ENDS = json.JSONDecoder(parse_int=str, parse_float=str)
_MEND = "mend the line, or remove it"


@dataclass(frozen=True)
class Unusable:
    """Stands in a record for a value that JSON cannot have; it matters only where the value is read.

    Attributes:
        problem: What is wrong with it.
    """

    problem: str


def record_texts(content: Content) -> Iterator[tuple[str, bytes]]:
    """Yield each record of a JSON file with the file and line where it begins.

    Of a file's beginning, what its end has cut through is left out.

    Raises:
        DataError: If an array, or an object over several lines, is no JSON; a line that is none is yielded.
    """
    content.refuse_binary()
    data = content.data.removeprefix(_BOM)
    start = re.match(rb"\s*(.?)", data)
    is_array = start is not None and start[1] == b"["
    if is_array or _spans_lines(data):
        yield from _values(content, is_array=is_array)
    else:
        yield from _lines(content, data)


def is_by_lines(content: Content) -> bool:
    """Say whether a JSON file's beginning shows that its records are one a line, so that the rest need not be known."""
    data = content.data.removeprefix(_BOM).lstrip()
    first, end, _ = data.partition(b"\n")
    return not data.startswith((b"[", b"{")) or (bool(end) and _is_object(first))


def line_texts(content: Content) -> Iterator[tuple[str, bytes]]:
    """Yield each record of a JSON file that has one a line, of which `content` is the beginning."""
    content.refuse_binary()
    # One byte more than a record may have, so that one that is longer is seen to be.
    for number, line in enumerate(line_parts(content.path, MAX_INDEX_BYTES + 1), start=1):
        data = line.removeprefix(_BOM) if number == 1 else line
        if data.strip():
            yield f"{content.where}:{number}", data.rstrip(b"\n").rstrip(b"\r")


def shows_a_record(content: Content) -> bool:
    """Say whether a file's beginning holds a whole object, and so shows how the file is written."""
    return _is_object(_first(record_texts(content)))


def parse_record(data: bytes, where: str) -> dict[str, Any]:
    """Return the object that a record is.

    NaN, infinities, numbers that overflow or are absurdly long, and keys that stand twice, become `Unusable`; lone
    surrogates stay in their texts. All of these are refused where they are read, and nowhere else.

    Args:
        data: The record, at most 64 MiB.
        where: File and line, for messages.

    Raises:
        DataError: If it is no JSON object.
    """
    try:
        text = json_text(data, max_bytes=MAX_INDEX_BYTES)
        entry = json.loads(
            text, object_pairs_hook=_object, parse_constant=_constant, parse_float=_float, parse_int=_integer
        )
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: is not JSON: {error.msg}, column {error.colno}", hint=_MEND) from error
    except JSONFault as fault:
        raise DataError(f"{where}: {fault}", hint=_MEND) from fault
    if not isinstance(entry, dict):
        raise DataError(f"{where}: expected a JSON object, found {show(entry)}", hint="write one object a line")
    return entry


def looks_like_records(content: Content) -> bool:
    """Say whether what should be text begins with a JSON object: on a line, over several, or first in an array."""
    data = content.data.removeprefix(_BOM).lstrip()
    if data.startswith(b"["):
        pieces = _values(content, is_array=True)
        return data[1:].lstrip().startswith(b"{") and _is_object(_first(pieces))
    return data.startswith(b"{") and (_is_object(data.partition(b"\n")[0]) or _spans_lines(data))


def _first(pieces: Iterator[tuple[str, bytes]]) -> bytes:
    try:
        return next(pieces, ("", b""))[1]
    except DataError:
        return b""


def _lines(content: Content, data: bytes) -> Iterator[tuple[str, bytes]]:
    # Not splitlines(): it also splits at U+2028, which may stand unescaped inside a JSON string.
    lines = data.split(b"\n")
    if not content.is_whole and len(data) <= MAX_INDEX_BYTES:
        lines.pop()
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield f"{content.where}:{number}", line.rstrip(b"\r")


def _values(content: Content, *, is_array: bool) -> Iterator[tuple[str, bytes]]:
    text = content.text()
    places = _Places(content.where, text)
    place = _after_space(text, 0)
    if is_array:
        place = _after_space(text, place + 1)
    try:
        while place < len(text) and not (is_array and text[place] == "]"):
            end = _end_of_value(text, place)
            yield places.where(place), text[place:end].encode()
            place = _after_space(text, end)
            if is_array:
                place = _next_item(text, place)
        _check_end(text, place, is_array=is_array)
    except json.JSONDecodeError as error:
        # Of a file's beginning the last value may be cut through.
        if content.is_whole:
            where = places.where(error.pos)
            raise DataError(
                f"{where}: is not JSON: {error.msg}", hint="mend the file from there, or write one object a line"
            ) from error


class _Places:
    """Lines of places in a text, which are asked for in their order."""

    def __init__(self, file: str, text: str) -> None:
        self._file, self._text, self._line, self._counted = file, text, 1, 0
        self._begin, self._asked = 0, 0  # of the line; how often

    def where(self, place: int) -> str:
        """Return file and line, and the column too where a place before was asked for on the same line."""
        passed = self._text.count("\n", self._counted, place)
        is_first = passed > 0 or self._asked == 0
        if passed:  # an array may be one long line: it is not gone through again for each of its items
            self._begin = self._text.rfind("\n", self._counted, place) + 1
        self._line, self._counted, self._asked = self._line + passed, max(self._counted, place), self._asked + 1
        return f"{self._file}:{self._line}" + ("" if is_first else f":{place - self._begin + 1}")


def _end_of_value(text: str, place: int) -> int:
    try:
        return _ENDS.raw_decode(text, place)[1]
    except RecursionError as error:
        raise json.JSONDecodeError("nested too deep", text, place) from error


def _next_item(text: str, place: int) -> int:
    if text[place : place + 1] == ",":
        return _after_space(text, place + 1)
    if place < len(text) and text[place] != "]":
        raise json.JSONDecodeError("Expecting ',' or ']' after an item", text, place)
    return place


def _check_end(text: str, place: int, *, is_array: bool) -> None:
    if not is_array:
        return
    if place == len(text):
        raise json.JSONDecodeError("the array has no end", text, place)
    if (rest := _after_space(text, place + 1)) < len(text):
        raise json.JSONDecodeError("something stands after the array", text, rest)


def _after_space(text: str, place: int) -> int:
    found = _SPACE.match(text, place)
    return found.end() if found else place


def _spans_lines(data: bytes) -> bool:
    """Say whether a text begins with a JSON object that goes on after its first line."""
    first, _, _ = data.lstrip().partition(b"\n")
    if not first.startswith(b"{") or _is_object(first):
        return False
    text = data.decode("utf-8", errors="replace")
    place = _after_space(text, 0)
    try:
        return "\n" in text[place : _end_of_value(text, place)]
    except json.JSONDecodeError:
        return False


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line.decode("utf-8", errors="replace")), dict)
    except (ValueError, RecursionError):
        return False


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        counts = Counter(name for name, _ in pairs)
        found |= {name: Unusable("stands twice in one object") for name, count in counts.items() if count > 1}
    return found


def _constant(name: str) -> Unusable:
    return Unusable(f"is {name}, which is not JSON")


def _float(text: str) -> float | Unusable:
    value = float(text)
    return Unusable(f"is the number {show(text)}, which overflows") if math.isinf(value) else value


def _integer(text: str) -> int | Unusable:
    return Unusable(f"is an integer of {len(text)} digits") if len(text) > _MOST_DIGITS else int(text)
