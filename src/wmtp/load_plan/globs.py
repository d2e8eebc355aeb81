"""Shell globs that a stranger wrote, as RE2 patterns: `*`, `?`, `[...]` and `[!...]`, upper and lower case apart."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from wmtp.errors import PlanError
from wmtp.load_plan.work import Work
from wmtp.metadata.transforms import compile_pattern


def split_by_globs(
    named: Collection[tuple[str, ...]], globs: Sequence[str], *, field: str
) -> tuple[list[str], list[str]]:
    """Return the first names of what any of its names fits any of the globs, and of the rest.

    Args:
        named: The names of each thing.
        globs: Patterns for whole names, as `fnmatch.fnmatchcase` reads them.
        field: The field of metadata.json that they stand in, as errors show it.

    Raises:
        PlanError: If so many globs for so many names are more work than any honest ones, or google-re2 is missing.
    """
    if not globs:
        return [], [names[0] for names in named]
    try:
        patterns = [compile_pattern(translate(glob)) for glob in globs]
    except ImportError as error:
        raise PlanError(
            f"{field}: globs need the package google-re2, which is not installed",
            hint="install it: pip install google-re2",
        ) from error
    Work(field, patterns, [name for names in named for name in names])
    allowed: list[str] = []
    refused: list[str] = []
    for names in named:
        fits = any(pattern.fullmatch(name) for name in names for pattern in patterns)
        (allowed if fits else refused).append(names[0])
    return allowed, refused


def translate(glob: str) -> str:
    """Return the RE2 pattern that fits a whole name where the glob does."""
    return "(?s)" + "".join(_parts(glob))


def _parts(glob: str) -> Iterator[str]:
    position = 0
    while position < len(glob):
        character, position = glob[position], position + 1
        if character == "*":
            yield ".*"
        elif character == "?":
            yield "."
        elif character == "[" and (end := _end_of_set(glob, position)) >= 0:
            yield _set(glob[position:end])
            position = end + 1
        else:
            yield _literal(character)


def _end_of_set(glob: str, start: int) -> int:
    """Where the bracket is that closes a set, or -1; one that stands first in it is a member."""
    first = start + glob.startswith("!", start)
    return glob.find("]", first + 1)


def _set(members: str) -> str:
    negation = "^" if members.startswith("!") else ""
    ranges = "".join(_ranges(members[len(negation) :]))
    return f"[{negation}{ranges}]" if ranges else "." if negation else r"[^\x00-\x{10FFFF}]"


def _ranges(members: str) -> Iterator[str]:
    position = 0
    while position < len(members):
        first = last = members[position]
        if members[position + 1 : position + 2] == "-" and position + 2 < len(members):
            last = members[position + 2]
            position += 2
        position += 1
        if first <= last:  # one that runs backwards has no members
            yield f"{_literal(first)}-{_literal(last)}"


def _literal(character: str) -> str:
    return rf"\x{{{ord(character):X}}}"
