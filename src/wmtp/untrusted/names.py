"""Names of files that a stranger wrote: one rule for all of them."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable

MAX_LEVELS = 64  # of directories; what lies deeper is not looked at
_MAX_NAME_CHARACTERS = 1024
_MAX_PART_BYTES = 255  # no file system here takes longer ones
_UNPRINTABLE = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


def has_unprintable(text: str) -> bool:
    """Say whether a terminal could obey or hide some of it: controls, formats, surrogates, unassigned characters."""
    # isprintable() is the quick answer; it takes some harmless spaces for unprintable as well.
    return not text.isprintable() and any(unicodedata.category(c) in _UNPRINTABLE for c in text)


_NOT_IN_NAMES: tuple[tuple[str, Callable[[str], bool]], ...] = (
    ("a backslash", lambda name: "\\" in name),
    ("a colon", lambda name: ":" in name),
    ("a percent sign", lambda name: "%" in name),
    ("a tilde", lambda name: "~" in name),
    ("an unprintable character", has_unprintable),
    ("text that is not in Unicode's NFC form", lambda name: unicodedata.normalize("NFC", name) != name),
)


def relative_name_fault(name: str) -> str | None:
    """Say why a checkpoint may not name this file, or return None when it may.

    Allowed are relative, `/`-separated names in NFC without empty, `.`, `..` or hidden parts, and without anything
    that some system reads as more than a name (backslash, drive, `~`, scheme, percent-escape, control character).
    """
    if not name or len(name) > _MAX_NAME_CHARACTERS:
        return f"is empty or longer than {_MAX_NAME_CHARACTERS} characters"
    if name.startswith("/"):
        return "is an absolute path"
    if name.count("/") >= MAX_LEVELS:
        return f"has more than {MAX_LEVELS} parts"
    if fault := next(filter(None, map(_part_fault, name.split("/"))), None):
        return fault
    return next((f"has {what} in it" for what, is_in in _NOT_IN_NAMES if is_in(name)), None)


def _part_fault(part: str) -> str | None:
    if part in ("", ".", ".."):
        return f"has the part '{part}' in it"
    if part.startswith("."):
        return "has a hidden part (leading dot)"
    if len(part.encode(errors="surrogatepass")) > _MAX_PART_BYTES:
        return f"has a part longer than {_MAX_PART_BYTES} bytes"
    return None
