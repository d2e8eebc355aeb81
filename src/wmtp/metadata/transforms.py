"""Patterns that rename tensors: checked while metadata.json is parsed, run when a plan is made.

Only RE2 runs a stranger's patterns: its time is linear in the text, whatever the pattern.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from wmtp.untrusted import show

MAX_RULE_BYTES = 1024
# In a replacement only \1..\9 and \\ are special.
_REPLACEMENT = re.compile(r"(?:[^\\]|\\[1-9\\])*", re.DOTALL)
_ESCAPE = re.compile(r"\\([1-9\\])")
# Of one compiled pattern. An honest one has some hundred instructions; one that fills RE2's own 8 MiB takes a seventh
# of a second to compile, and there may be hundreds.
_MAX_PATTERN_BYTES = 512 << 10
_STEPS_TO_BEGIN = 1000  # handing one name to one pattern takes as long as so many steps within RE2


def transform_fault(pattern: str, replacement: str) -> str | None:
    """Say what keeps a pattern and its replacement from being used, or return None when nothing does."""
    if max(len(pattern.encode()), len(replacement.encode())) > MAX_RULE_BYTES:
        return f"has a rule longer than {MAX_RULE_BYTES} bytes: {show(pattern)}"
    try:
        num_groups = compile_pattern(pattern).groups
    except ImportError:
        return "needs the package google-re2, which is not installed"
    except ValueError as error:
        return f"has {show(pattern)}, which is not an RE2 pattern: {show(str(error))}"
    if not _REPLACEMENT.fullmatch(replacement):
        return f"has the replacement {show(replacement)}, where a backslash is followed by neither 1-9 nor a backslash"
    last_group = max((int(group) for group in _ESCAPE.findall(replacement) if group != "\\"), default=0)
    if last_group > num_groups:
        return f"has the replacement {show(replacement)}, but {show(pattern)} has no group {last_group}"
    return None


def compile_transform(
    pattern: str, replacement: str, *, spend: Callable[[int], None] = lambda _: None
) -> Callable[[str], str | None]:
    """Return a function that renames a tensor, or returns None where the pattern is not found in its name.

    Args:
        pattern: An RE2 pattern.
        replacement: What takes the place of what it finds.
        spend: Told of the steps of every search before it is made; what it raises ends the work.
    """
    compiled = compile_pattern(pattern)

    def rename(name: str) -> str | None:
        steps = steps_to_match(compiled, num_bytes=len(name.encode()))

        def expand(match: Any) -> str:
            spend(steps)  # behind each place that is found the rest of the name is searched again
            return _ESCAPE.sub(
                lambda e: "\\" if e.group(1) == "\\" else match.group(int(e.group(1))) or "", replacement
            )

        spend(steps)
        renamed, count = compiled.subn(expand, name)
        return renamed if count else None

    return rename


def steps_to_match(compiled: Any, *, num_bytes: int, num_names: int = 1) -> int:
    """Return how many steps one search of each name takes at most: each byte of them meets each instruction once."""
    return int(num_names * _STEPS_TO_BEGIN + num_bytes * compiled.programsize)


def compile_pattern(pattern: str) -> Any:
    """Compile an RE2 pattern.

    Raises:
        ImportError: If google-re2 is not installed.
        ValueError: If it is no RE2 pattern, or one that grows too large.
    """
    import re2  # only checkpoints with patterns pay for it

    options = re2.Options()
    options.log_errors = False
    options.max_mem = _MAX_PATTERN_BYTES
    try:
        return re2.compile(pattern, options=options)
    except re2.error as error:
        reason = error.args[0]
        raise ValueError(reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)) from error
