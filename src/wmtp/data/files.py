"""Which files a data source names: paths as they stand, patterns, directories; and what is left out of these."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from wmtp.data.content import JSON_SUFFIXES, suffix_of
from wmtp.data.fault_list import FaultList
from wmtp.errors import DataError
from wmtp.untrusted import did_you_mean, first_few, plain, show, show_all

if TYPE_CHECKING:
    from wmtp.settings.data import DataSource

# What is read from a directory; a file that is named or matched by a pattern may have any name.
TEXT_SUFFIXES = JSON_SUFFIXES | {
    ".c", ".cfg", ".cpp", ".css", ".go", ".h", ".html", ".ini", ".java", ".js", ".md", ".py", ".pyi", ".rs", ".rst",
    ".sh", ".sql", ".toml", ".ts", ".txt", ".yaml", ".yml",
}  # fmt: skip

_NAMES_SHOWN = 3
_QUOTED = re.compile(r"\[([*?[])\]")  # as glob.escape writes it


class LeftOut:
    """Files of directories that are not read: how many of each kind, and the names of the first."""

    def __init__(self) -> None:
        self._names: dict[str, list[str]] = {}
        self._counts: dict[str, int] = {}

    def add(self, kind: str, path: Path) -> None:
        """Count one more file of a kind."""
        self._counts[kind] = self._counts.get(kind, 0) + 1
        names = self._names.setdefault(kind, [])
        if len(names) < _NAMES_SHOWN:
            names.append(show(path.name))

    def __bool__(self) -> bool:
        return bool(self._counts)

    def __str__(self) -> str:
        kinds = sorted(self._counts, key=lambda kind: -self._counts[kind])
        described = first_few([self._described(kind) for kind in kinds])
        return f"left out of directories: {'; '.join(described)}" if kinds else ""

    def _described(self, kind: str) -> str:
        count, names = self._counts[kind], self._names[kind]
        more = ", ..." if count > len(names) else ""
        return f"{count:,} {plain(kind)} ({', '.join(names)}{more})"


def find_files(source: DataSource, faults: FaultList, left_out: LeftOut, *, field: str) -> Iterator[tuple[Path, bool]]:
    """Yield each file of a data source once, and whether it was found in a directory rather than asked for.

    What exists under the very name that is given is that file or directory; anything else is a pattern.

    Args:
        source: Its files, and how they are read.
        faults: Gets each name that matches nothing.
        left_out: Gets what directories hold and is not read.
        field: The recipe's section that `source` comes from, for messages: `data.train`.
    """
    suffixes = JSON_SUFFIXES if source.format == "prompt_completion" else TEXT_SUFFIXES
    seen: set[Path] = set()
    for pattern in source.files:
        for match in _matches(pattern, faults, field):
            is_directory = match.is_dir()
            for path in _files_below(match, suffixes, left_out) if is_directory else [match]:
                place = path.parent.resolve() / path.name  # the same by whatever way a pattern came to it
                if place not in seen:
                    seen.add(place)
                    yield path, is_directory


def _matches(pattern: str, faults: FaultList, field: str) -> list[Path]:
    literal = Path(_QUOTED.sub(r"\1", pattern))
    if found := next((path for path in (Path(pattern), literal) if os.path.lexists(path)), None):
        return [found]
    matches = [Path(match) for match in sorted(glob.glob(pattern, recursive=True))]  # noqa: PTH207  Path.glob takes no absolute one
    with faults.collected():
        if not matches:
            raise DataError(f"{field}.files: {show(str(literal))} matches no file", hint=_nearest(literal))
    return matches


def _files_below(directory: Path, suffixes: frozenset[str], left_out: LeftOut) -> Iterator[Path]:
    for path in sorted(directory.rglob("*")):
        if not path.is_file():
            continue
        suffix = suffix_of(path)
        if any(part.startswith(".") for part in path.relative_to(directory).parts):
            left_out.add("hidden", path)
        elif suffix in suffixes:
            yield path
        else:
            left_out.add(f"*{suffix}" if suffix else "without a suffix", path)


def _nearest(path: Path) -> str:
    # The deepest directory that exists is where the mistake begins.
    directory = path
    while not os.path.isdir(directory):  # noqa: PTH112  is_dir() raises where a name is too long
        directory = directory.parent
    inside = sorted(path.name for path in directory.iterdir() if not path.name.startswith("."))
    listed = ", ".join(show_all(inside[:8])) or "nothing"
    return f"{plain(str(directory))} holds: {listed}{did_you_mean(path.name, inside)}"
