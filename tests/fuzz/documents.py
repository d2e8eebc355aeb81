"""JSON texts, good, odd and broken, and an independent judge of what strict JSON is."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from hypothesis import strategies as st

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**38), 10**38)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=6), inner, max_size=4)
    ),
    max_leaves=12,
)

_SPACE = st.sampled_from(["", "", "", " ", "\n", "\t\r ", "\x0b", "\xa0"])
_NUMBERS = st.from_regex(r"-?(0|[1-9][0-9]{0,50})(\.[0-9]{1,5})?([eE][+-]?[0-9]{1,4})?", fullmatch=True)
_ODD_NUMBERS = st.sampled_from(["-0", "01", "+1", ".5", "1.", "0x10", "1e999", "-1e400", "NaN", "-Infinity", "1" * 41])
_CHARACTERS = st.sampled_from(
    ["a", "b", "a", "\\u0061", "\\u00e9", "é", "\\ud83d\\ude00", "\\ud800", "\\\\", '\\"', "\\/", "\\x", "\x00", "["]
)
_STRINGS = st.lists(_CHARACTERS, max_size=4).map(lambda parts: f'"{"".join(parts)}"')
_LEAVES = st.one_of(_NUMBERS, _STRINGS, _STRINGS, _ODD_NUMBERS, st.sampled_from(["true", "false", "null", "nul"]))


@st.composite
def _arrays(draw: st.DrawFn, inner: st.SearchStrategy[str]) -> str:
    space, items = draw(_SPACE), draw(st.lists(inner, max_size=3))
    return f"[{space}{f'{space},{space}'.join(items)}{space}]"


@st.composite
def _objects(draw: st.DrawFn, inner: st.SearchStrategy[str]) -> str:
    space, members = draw(_SPACE), draw(st.lists(st.tuples(_STRINGS, inner), max_size=3))
    return f"{{{space}{f',{space}'.join(f'{key}:{space}{value}' for key, value in members)}{space}}}"


# Written by hand rather than by json.dumps: doubtful numbers, escapes and repeated keys come at any depth.
_texts = st.recursive(_LEAVES, lambda inner: _arrays(inner) | _objects(inner), max_leaves=10)
_encodings = st.sampled_from([*["utf-8"] * 9, "utf-8-sig", "utf-16", "utf-32-le", "latin-1"])


@st.composite
def _wrapped(draw: st.DrawFn, text: bytes) -> bytes:
    depth = draw(st.integers(1, 4) | st.integers(58, 70))
    start, end = draw(st.sampled_from([(b"[", b"]"), (b'{"a":', b"}"), (b"[[", b"]")]))
    return start * depth + text + end * depth


@st.composite
def with_a_repeated_key(draw: st.DrawFn, text: bytes) -> bytes:
    """A text with one more member in an object, under a name that is there already, perhaps by escapes."""
    keys = list(re.finditer(rb'"(\w)(\w*)"\s*:', text))
    if not keys:
        return text
    key = draw(st.sampled_from(keys))
    twin = draw(st.sampled_from([key[0], b'"\\u%04x%s":' % (key[1][0], key[2])]))
    return text[: key.start()] + twin + b"0," + text[key.start() :]


@st.composite
def damaged(draw: st.DrawFn, text: bytes) -> bytes:
    """A text with up to three changes of its bytes."""
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(text)))
        inserted = draw(st.binary(max_size=3) | st.sampled_from([b",", b'"', b"}", b"\x00", b"\x1f", b"\\", b"-0"]))
        cut = draw(st.integers(0, 2))
        text = draw(st.sampled_from([text[:place] + inserted + text[place + cut :], text[:place]]))
    return text


@st.composite
def json_bytes(draw: st.DrawFn) -> bytes:
    """A text that is about as often strict JSON as not."""
    written = st.builds(lambda value, ascii_only: json.dumps(value, ensure_ascii=ascii_only), values, st.booleans())
    data = draw(written | written | _texts).encode(draw(_encodings), errors="replace")
    change = draw(st.sampled_from(["none", "none", "wrap", "repeat", "damage"]))
    if change == "none":
        return data
    return draw({"wrap": _wrapped, "repeat": with_a_repeated_key, "damage": damaged}[change](data))


class Members(list):
    """The members of an object in the order of the text, repeated keys included."""


class Digits(str):
    """An integer as it is written."""


def is_strict_json(data: bytes) -> bool:
    """Judge a text by the rules of the format, from the raw members and digits that the standard library reports."""
    try:
        text = data.decode("utf-8")
        raw = json.loads(text, object_pairs_hook=Members, parse_int=Digits, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return False
    return _is_sound(raw, 64)


def _no_constant(name: str) -> None:
    raise ValueError(name)


def _is_sound(value: Any, levels: int) -> bool:
    if isinstance(value, Members):
        keys = [key for key, _ in value]
        inner = [*keys, *(item for _, item in value)]
        return len(set(keys)) == len(keys) and levels > 0 and all(_is_sound(item, levels - 1) for item in inner)
    if isinstance(value, list):
        return levels > 0 and all(_is_sound(item, levels - 1) for item in value)
    if isinstance(value, Digits):
        return len(value) <= 40
    if isinstance(value, float):
        return math.isfinite(value)
    return not isinstance(value, str) or not any("\ud800" <= character <= "\udfff" for character in value)
