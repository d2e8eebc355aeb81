"""Which files a data source names: paths as they stand, patterns, directories; and what is left out of these."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from wmtp.data.content import JSON_SUFFIXES, TABLE_SUFFIXES, suffix_of
from wmtp.data.fault_list import FaultList
from wmtp.data.remote import fetch_data
from wmtp.errors import DataError
from wmtp.untrusted import did_you_mean, first_few, plain, show, show_all

if TYPE_CHECKING:
    from wmtp.settings.data import Reading

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


@dataclass(frozen=True)
class DataFile:
    """A file to read.

    Attributes:
        path: Where it is on this machine.
        is_found: Whether it was found in a directory rather than asked for.
        name: What messages call it, where that is not its path: its address in an object store or on the Hub.
    """

    path: Path
    is_found: bool = False
    name: str = ""

    @property
    def where(self) -> str:
        """The file, for messages."""
        return self.name or str(self.path)

    @property
    def suffix(self) -> str:
        """What its name says it is."""
        return suffix_of(Path(self.where))


def is_remote(pattern: str) -> bool:
    """Say whether what a data source names is not on this machine."""
    return "://" in pattern


def without_remote(source: Reading) -> Reading:
    """Return a data source without what is not on this machine, for those who fetch nothing."""
    return source.model_copy(update={"files": [pattern for pattern in source.files if not is_remote(pattern)]})


def suffixes_of(source: Reading) -> frozenset[str]:
    """Return the suffixes of files that are read where a data source names a directory."""
    return TEXT_SUFFIXES if source.format in ("text", "raw_text") else JSON_SUFFIXES


def find_files(
    source: Reading, faults: FaultList, left_out: LeftOut, *, field: str, cache_dir: str | None = None
) -> Iterator[DataFile]:
    """Yield each file of a data source once; what is not on this machine is fetched.

    What exists under the very name that is given is that file or directory; anything else is a pattern.

    Args:
        source: Its files, and how they are read.
        faults: Gets each name that matches nothing.
        left_out: Gets what directories hold and is not read.
        field: The recipe's section that `source` comes from, for messages: `data.train`.
        cache_dir: Where fetched files are kept; None: the cache's usual place.
    """
    suffixes = suffixes_of(source)
    seen: set[Path] = set()
    for pattern in source.files:
        if is_remote(pattern):
            with faults.collected():
                yield from (
                    DataFile(*found) for found in fetch_data(pattern, suffixes, field=field, cache_dir=cache_dir)
                )
            continue
        for match in _matches(pattern, faults, field):
            is_directory = match.is_dir()
            for path in _files_below(match, suffixes, left_out) if is_directory else [match]:
                place = path.parent.resolve() / path.name  # the same by whatever way a pattern came to it
                if place not in seen:
                    seen.add(place)
                    yield DataFile(path, is_directory)


def _matches(pattern: str, faults: FaultList, field: str) -> list[Path]:
    literal = Path(_QUOTED.sub(r"\1", pattern))
    if found := next((path for path in (Path(pattern), literal) if os.path.lexists(path)), None):
        return [found] if _is_there(found, faults) else []
    begun = _begun_as_it_stands(pattern)
    matches = [Path(match) for match in sorted(glob.glob(begun, recursive=True))]  # noqa: PTH207  Path.glob takes no absolute one
    with faults.collected():
        if not matches:
            raise DataError(f"{field}.files: {show(str(literal))} matches no file", hint=_nearest(literal))
    return [match for match in matches if _is_there(match, faults)]


def _is_there(path: Path, faults: FaultList) -> bool:
    is_there = path.exists() or not path.is_symlink()
    with faults.collected():
        if not is_there:
            target = show(str(path.readlink()))
            raise DataError(
                f"{path}: a dangling symbolic link: {target}, to which it points, is not there",
                hint="put the file there, or leave it out",
            )
    return is_there


def _begun_as_it_stands(pattern: str) -> str:
    """Return a pattern of which the first directories are no patterns, as far as they exist under the very name."""
    begin, parts = Path(), Path(pattern).parts
    for count, part in enumerate(parts):
        found = next((begin / name for name in (part, _QUOTED.sub(r"\1", part)) if os.path.lexists(begin / name)), None)
        if found is None:
            end = "/" if pattern.endswith("/") else ""  # by which a pattern asks for directories
            return str(Path(glob.escape(str(begin)), *parts[count:])) + end
        begin = found
    return glob.escape(str(begin))


def _files_below(directory: Path, suffixes: frozenset[str], left_out: LeftOut) -> Iterator[Path]:
    texts, others = list[Path](), list[tuple[str, Path]]()
    for path in sorted(directory.rglob("*")):
        if not path.is_file():
            if path.is_symlink() and not path.exists():
                left_out.add("that are dangling links", path)
            continue
        if any(part.startswith(".") for part in path.relative_to(directory).parts):
            left_out.add("hidden", path)
        elif suffix_of(path) in suffixes and path.suffix.lower() != ".zst":
            texts.append(path)
        else:
            others.append((path.suffix.lower() if suffix_of(path) in suffixes else suffix_of(path), path))
    yield from texts
    # The same data often lies beside itself in another form: that is read where there is nothing else.
    readable = frozenset() if texts else TABLE_SUFFIXES | {".zst"}
    for suffix, path in others:
        if suffix in readable:
            yield path
        else:
            left_out.add(f"*{suffix}" if suffix else "without a suffix", path)


def _nearest(path: Path) -> str:
    # The deepest directory that exists is where the mistake begins.
    directory, missing = path, path.name
    while not os.path.isdir(directory):  # noqa: PTH112  is_dir() raises where a name is too long
        directory, missing = directory.parent, directory.name
    inside = sorted(path.name for path in directory.iterdir() if not path.name.startswith("."))
    listed = ", ".join(show_all(inside[:8])) or "nothing"
    return f"{plain(str(directory))} holds: {listed}{did_you_mean(missing, inside)}"
