"""Markdown and YAML in which foreign text stays text: nothing in it ends a span, a fence, or the front matter."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

from wmtp.untrusted import plain

_Value = str | Sequence[str]


def code(value: object) -> str:
    """Return a foreign value as a span of code: one line, ASCII, escaped, cut, without a backtick of its own."""
    return f"`{plain(value).replace('`', chr(92) + 'x60')}`"


def fenced(text: str, language: str) -> list[str]:
    """Return lines of ours between fences."""
    return [f"```{language}", *text.splitlines(), "```"]


def front_matter(fields: Mapping[str, _Value]) -> list[str]:
    """Return the lines of a YAML front matter; texts stand as JSON strings, which YAML reads as the same texts."""
    return ["---", *(line for key, value in fields.items() for line in _field(key, value)), "---"]


def _field(key: str, value: _Value) -> Iterator[str]:
    if isinstance(value, str):
        yield f"{key}: {json.dumps(value)}"
    elif value:
        yield f"{key}:"
        yield from (f"- {json.dumps(item)}" for item in value)
