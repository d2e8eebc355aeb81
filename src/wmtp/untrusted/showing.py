"""How foreign text is shown: escaped, cut, counted; nothing in it reaches a terminal as a command."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

MAX_SHOWN = 20  # lines of one kind in an error
_SHOWN_CHARACTERS = 200


def show(value: object) -> str:
    """Return a foreign value in a form that is safe to print: ASCII, escaped, at most 200 characters.

    Text is quoted; anything else stands as JSON would write it.
    """
    text = ascii(value) if isinstance(value, str) else json.dumps(value, default=str, skipkeys=True)
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 3] + "..."


def plain(value: object) -> str:
    """Return a foreign value as `show` does, but text without the quotes around it."""
    text = show(value)
    if not isinstance(value, str):
        return text
    return text[1:-1] if text[-1] == text[0] else text[1:]  # a long one was cut before its closing quote


def shown_text(text: str) -> str:
    """Return a foreign text, however long, with its lines and letters as they are and nothing that a terminal obeys."""
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)


def show_all(values: Iterable[object]) -> list[str]:
    """Return the first 20 values, each shown safely, then one line that counts the rest."""
    return first_few([show(value) for value in values])


def first_few(lines: Sequence[str]) -> list[str]:
    """Return the first 20 lines, then one that counts the rest."""
    rest = len(lines) - MAX_SHOWN
    return [*lines[:MAX_SHOWN], *([f"and {rest:,} more"] if rest > 0 else [])]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ` (did you mean 'x'?)` for the closest known word, or nothing when none is close."""
    import difflib  # only errors need it

    close = difflib.get_close_matches(word.lower(), {k.lower() for k in known}, n=1)
    match = next((k for k in known if close and k.lower() == close[0]), None)
    return f" (did you mean '{match}'?)" if match else ""
