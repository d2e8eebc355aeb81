"""Strict JSON: what a stranger wrote is read by one set of rules, and a fault says where in the document it stands."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, NoReturn

from wmtp.errors import WmtpError
from wmtp.untrusted import json_places
from wmtp.untrusted.showing import plain, show

MAX_JSON_BYTES = 1 << 20
MAX_INDEX_BYTES = 64 << 20
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_MAX_CONTAINERS = 1_000_000  # a header has three for each tensor, a tokenizer file one for each merge
_MAX_INTEGER_DIGITS = 40  # transformers writes int(1e30), 31 digits, as model_max_length
_SHOWN_LEVELS = 8  # of a path in a document
LFS_BEGINNING = b"version https://git-lfs"
LFS_ADVICE = "fetch the real file: 'git lfs pull' in the clone that it came from"
_DIGITS_AS_ZEROS = bytes(ord("0") if chr(byte).isdigit() and byte < 128 else ord(" ") for byte in range(256))
_LONG_INTEGER = b"0" * (_MAX_INTEGER_DIGITS + 1)
_ONE_KIND_OF_BRACKET = bytes.maketrans(b"{}", b"[]")
_STRING = re.compile(rb'"[^"]*+"?')
_NO_STRUCTURE = bytes(set(range(256)) - set(b'"[]{}'))


class JSONFault(ValueError):
    """Why a text is not strict JSON, and where in it; callers turn it into their own typed error."""


class _UnplacedFault(JSONFault):
    """A fault found where its place is not known; with what finds it."""

    def __init__(self, problem: str, find: json_places.Finder) -> None:
        super().__init__(problem)
        self.find = find


def parse_json(data: bytes, *, max_bytes: int = MAX_JSON_BYTES) -> Any:
    """Return the value of a strict JSON text.

    Strict means: UTF-8 without BOM, no duplicate keys (escapes resolved), no NaN, Infinity or overflowing number,
    no lone surrogate, no integer of absurd length, at most 64 levels deep and a million arrays and objects.

    Args:
        data: The whole file.
        max_bytes: Its largest allowed size; 1 MiB, or 64 MiB for shard indexes and tokenizer files.

    Raises:
        JSONFault: With the reason, for the caller to put file and hint around.
    """
    text = json_text(data, max_bytes=max_bytes)
    try:
        return _strict_value(data, text)
    except _UnplacedFault as fault:
        raise JSONFault(f"{fault}{_shown_place(', at', fault.find(text))}") from fault
    except json.JSONDecodeError as error:
        place = _shown_place(", after", json_places.place_of_position(text, error.pos))
        raise JSONFault(f"is not JSON: {error.msg} at line {error.lineno}, column {error.colno}{place}") from error


def _strict_value(data: bytes, text: str) -> Any:
    try:
        value = json.loads(
            text,
            object_pairs_hook=_object_without_duplicates,
            parse_constant=_refuse_constant,
            parse_float=_finite_float,
            # A call for each number would take half of the time that a large header needs.
            parse_int=_bounded_int if b"-0" in data or _LONG_INTEGER in data.translate(_DIGITS_AS_ZEROS) else None,
        )
    except RecursionError as error:
        raise _nested_too_deep() from error
    if "\\u" in text:
        _check_surrogates(value)
    return value


def json_text(data: bytes, *, max_bytes: int) -> str:
    """Return a text that a JSON parser may be given: UTF-8 without BOM, neither too large nor nested too deep.

    Raises:
        JSONFault: With the reason, as `parse_json` does.
    """
    if len(data) > max_bytes:
        raise JSONFault(f"is larger than {max_bytes:,} bytes")
    if data.startswith(_BYTE_ORDER_MARK):
        raise JSONFault("begins with a byte order mark")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise JSONFault(f"is not UTF-8 at byte {error.start}") from error
    try:
        _check_depth(data)
    except _UnplacedFault as fault:
        raise JSONFault(f"{fault}{_shown_place(', at', fault.find(text))}") from fault
    return text


def _shown_place(start: str, path: Sequence[str | int] | None) -> str:
    """Return where in a document something is, for the end of a sentence; nothing when it is at the root or unknown."""
    dotted = ".".join(plain(part) for part in (path or ())[:_SHOWN_LEVELS])
    return f"{start} {dotted}" if dotted else ""


def parse_json_object(
    data: bytes, *, where: str, error: type[WmtpError], max_bytes: int = MAX_JSON_BYTES
) -> dict[str, Any]:
    """Return a strict JSON object, or raise `error` naming the file `where`."""
    refuse_pointer(data, where=where, error=error)
    hint = "restore the file from its source, or write it anew"
    try:
        value = parse_json(data, max_bytes=max_bytes)
    except JSONFault as fault:
        raise error(f"{where}: {fault}", hint=hint) from fault
    if not isinstance(value, dict):
        raise error(f"{where}: is {show(value)}, expected a JSON object", hint=hint)
    return value


def refuse_pointer(data: bytes, *, where: str, error: type[WmtpError]) -> None:
    """Raise `error` for what a clone without Git LFS leaves in a file's place."""
    if data[:64].removeprefix(_BYTE_ORDER_MARK).lstrip().startswith(LFS_BEGINNING):
        raise error(f"{where}: this is a Git LFS pointer, not the file itself", hint=LFS_ADVICE)


def _check_depth(data: bytes) -> None:
    # Before json.loads, which answers deep nesting with RecursionError. Each step is one pass in C, so that a hostile
    # header of 100 MB costs no more than an honest one.
    unescaped = data.replace(b"\\\\", b"").replace(b'\\"', b"") if b"\\" in data else data
    quotes_and_brackets = unescaped.translate(_ONE_KIND_OF_BRACKET, _NO_STRUCTURE)
    brackets = _STRING.sub(b"", quotes_and_brackets.replace(b'""', b""))
    if len(brackets) > 2 * _MAX_CONTAINERS:
        raise JSONFault(f"has more than {_MAX_CONTAINERS:,} arrays and objects")
    for _ in range(json_places.MAX_DEPTH):
        innermost_removed = brackets.replace(b"[]", b"")
        if len(innermost_removed) == len(brackets):
            return  # flat, or unbalanced: json.loads says where
        brackets = innermost_removed
    if brackets:
        raise _nested_too_deep()


def _nested_too_deep() -> JSONFault:
    return _UnplacedFault(f"is nested deeper than {json_places.MAX_DEPTH} levels", json_places.place_of_depth)


def _object_without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise _UnplacedFault(f"has the key {show(twice)} twice in one object", json_places.finder_of_repeated(twice))
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise _UnplacedFault(
        f"has the value {name}, which is not JSON", json_places.finder_of_value("parse_constant", name)
    )


def _finite_float(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise _UnplacedFault(
            f"has the number {show(text)}, which overflows", json_places.finder_of_value("parse_float", text)
        )
    return value


def _bounded_int(text: str) -> float:
    if len(text) > _MAX_INTEGER_DIGITS:
        raise _UnplacedFault(f"has an integer of {len(text)} digits", json_places.finder_of_value("parse_int", text))
    return -0.0 if text == "-0" else int(text)  # as JavaScript and safetensors read it: no size and no offset


def _check_surrogates(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise _UnplacedFault("has a lone surrogate in a string", json_places.place_of_surrogate) from error
