"""Where in a JSON text something stands: its path of keys and positions. For errors only: reading never needs it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

MAX_DEPTH = 64
Path = tuple[str | int, ...]
# Of larger files, which are headers and indexes of weights, a fault is told without its place.
_MAX_SEARCHED = 4 << 20
_MAX_SCANNED = 1 << 18
# A string that never ends is one token: looked for anew at each quote inside, it would take quadratic time.
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[\]{},]|[^\s\[\]{}:,"]+', re.DOTALL)


class _Here:
    """What a hook of `json.loads` gives in the place of what is looked for."""


Pairs = list[tuple[str, Any]]
Finder = Callable[[str], Path | None]


def finder_of_value(hook: str, written: str) -> Finder:
    """Return what finds the first number or constant that is written so, and that a hook of `json.loads` is given."""

    def find(text: str) -> Path | None:
        here = _Here()
        hooks = {"parse_int": len, hook: lambda part: here if part == written else None}
        return _search(text, hooks, lambda part: part is here)

    return find


def finder_of_repeated(key: str) -> Finder:
    """Return what finds the first object that has a key twice; the path ends with the key."""

    def find(text: str) -> Path | None:
        here = _Here()

        def parts(pairs: Pairs) -> Any:
            return here if [name for name, _ in pairs].count(key) > 1 else dict(pairs)

        place = _search(text, {"parse_int": len, "object_pairs_hook": parts}, lambda part: part is here)
        return None if place is None else (*place, key)

    return find


def place_of_surrogate(text: str) -> Path | None:
    """Return the path of the first key or text with half of a surrogate pair in it."""
    return _search(text, {"parse_int": len}, _is_torn)


def _is_torn(part: Any) -> bool:
    return isinstance(part, str) and not part.isascii() and any("\ud800" <= each <= "\udfff" for each in part)


def _search(text: str, hooks: dict[str, Callable[[Any], Any]], is_it: Callable[[Any], bool]) -> Path | None:
    if len(text) > _MAX_SEARCHED:
        return None
    read: Callable[..., Any] = json.loads
    try:
        value = read(text, **hooks)
    except json.JSONDecodeError:
        return None  # further on it is no JSON at all: the first fault is told, without its place
    return () if is_it(value) else _search_in(value, is_it)


def _search_in(value: Any, is_it: Callable[[Any], bool]) -> Path | None:
    is_object = isinstance(value, dict)
    for key, inner in value.items() if is_object else enumerate(value) if isinstance(value, list) else ():
        if is_it(inner) or (is_object and is_it(key)):
            return (key,)
        if isinstance(inner, dict | list) and (place := _search_in(inner, is_it)) is not None:
            return (key, *place)
    return None


def place_of_position(text: str, position: int) -> Path:
    """Return the path of the last key or value that is whole before a position of a text that is no JSON after it."""
    last: Path = ()
    levels: list[_Level] = []
    for match in _TOKEN.finditer(text, 0, position if position <= _MAX_SCANNED else 0):
        if (step := _STRUCTURE.get(match[0])) is not None:
            step(levels)
        else:
            _enter(levels, match[0])
            last = tuple(level.at for level in levels)
    return last


def place_of_depth(text: str) -> Path:
    """Return the path along which a text is nested deeper than 64 levels."""
    levels: list[_Level] = []
    for match in _TOKEN.finditer(text, 0, _MAX_SCANNED):
        if (step := _STRUCTURE.get(match[0])) is not None:
            step(levels)
        else:
            _enter(levels, match[0])
        if len(levels) > MAX_DEPTH:
            return tuple(level.at for level in levels)
    return ()


@dataclass(slots=True)
class _Level:
    """An object or array that is open, and the key or position that is being read."""

    at: str | int
    expects_key: bool = False


def _open_object(levels: list[_Level]) -> None:
    levels.append(_Level("", expects_key=True))


def _open_array(levels: list[_Level]) -> None:
    levels.append(_Level(0))


def _close(levels: list[_Level]) -> None:
    if levels:
        levels.pop()


def _go_on(levels: list[_Level]) -> None:
    if not levels:
        return
    level = levels[-1]
    if isinstance(level.at, int):
        level.at += 1
    else:
        level.expects_key = True


_STRUCTURE: dict[str, Callable[[list[_Level]], None]] = {
    "{": _open_object,
    "[": _open_array,
    "}": _close,
    "]": _close,
    ",": _go_on,
}


def _enter(levels: list[_Level], part: str) -> None:
    """Note a key, if that is what comes now."""
    if levels and levels[-1].expects_key:
        levels[-1].at, levels[-1].expects_key = _text_of(part), False


def _text_of(part: str) -> str:
    try:
        return str(json.loads(part)) if "\\" in part else part.strip('"')
    except ValueError:
        return part  # broken: shown as it stands
