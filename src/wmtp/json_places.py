"""Where in a JSON text something stands: its path of keys and positions. For errors only: reading never needs it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field

MAX_DEPTH = 64
Path = tuple[str | int, ...]
# Enough for every configuration; a fault of a larger file that stands beyond it is told without its place.
_MAX_SEARCHED = 1 << 20
# A string that never ends is one token: looked for anew at each quote inside, it would take quadratic time.
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[\]{},]|[^\s\[\]{}:,"]+', re.DOTALL)


@dataclass(slots=True)
class _Level:
    """An object or array that is open: the key or position that is being read, and the keys that were."""

    at: str | int
    keys: set[str] = field(default_factory=set)
    expects_key: bool = False


def find_place(text: str, is_it: Callable[[str, str | None], bool]) -> Path | None:
    """Return the path of the first key or value for which that holds, or None when none is found.

    Args:
        text: A JSON text, or one that would be if it were not for what is looked for.
        is_it: Called with a key or plain value as it is written, and with the key if the same object had it before;
            with an empty text where something is nested too deep.
    """
    levels: list[_Level] = []
    for match in _TOKEN.finditer(text, 0, _MAX_SEARCHED):
        part = match[0]
        if part in _STRUCTURE:
            _STRUCTURE[part](levels)
            if len(levels) > MAX_DEPTH and is_it("", None):
                return _path(levels[:-1])
        elif is_it(part, _enter_key(levels[-1], part) if levels and levels[-1].expects_key else None):
            return _path(levels)
    return None


def place_of_position(text: str, position: int) -> Path:
    """Return the path of the last key or value that is whole before a position of a text that is no JSON after it."""
    last: Path = ()
    levels: list[_Level] = []
    for match in _TOKEN.finditer(text, 0, position if position <= _MAX_SEARCHED else 0):
        if (step := _STRUCTURE.get(match[0])) is not None:
            step(levels)
            continue
        if levels and levels[-1].expects_key:
            _enter_key(levels[-1], match[0])
        last = _path(levels)
    return last


def _path(levels: list[_Level]) -> Path:
    return tuple(level.at for level in levels)


def _open_object(levels: list[_Level]) -> None:
    levels.append(_Level(at="", expects_key=True))


def _open_array(levels: list[_Level]) -> None:
    levels.append(_Level(at=0))


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


def _enter_key(level: _Level, part: str) -> str | None:
    """Note a key; returns it if it came before."""
    try:
        key = str(json.loads(part)) if "\\" in part else part.strip('"')
    except ValueError:
        key = part  # broken: shown as it stands
    level.at, level.expects_key = key, False
    if key in level.keys:
        return key
    level.keys.add(key)
    return None
