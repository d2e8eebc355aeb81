"""Removing what killed processes left in the directory of parts."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

from wmtp.storage.cached.kept import remove_anything
from wmtp.storage.cached.locks import remove_lock
from wmtp.storage.cached.partial import owned, remove_part

_ABANDONED_SECONDS = 7 * 24 * 3600  # where there are no locks: nobody downloads without a byte for so long
_WRITING_SECONDS = 60  # a small file is written at once


def sweep_parts(directory: Path, *, older_than_seconds: float) -> int:
    """Remove abandoned parts, journals, locks and temporary files; returns the bytes that this gave back.

    A part with a living owner stays, whatever its age.
    """
    num_bytes = 0
    try:
        paths = list(directory.iterdir())
    except OSError:
        return 0
    for path in paths:
        with suppress(OSError):
            found = path.lstat()
            age = time.time() - found.st_mtime
            if age >= older_than_seconds and _swept(path, age):
                num_bytes += found.st_size
    return num_bytes


def part_sizes(directory: Path, key: str) -> int:
    """Return how many bytes all parts of a key have: this changes while somebody downloads."""
    num_bytes = 0
    for path in directory.glob(f"{key}.*.part"):
        with suppress(OSError):
            num_bytes += path.lstat().st_size
    return num_bytes


def _swept(path: Path, age: float) -> bool:
    if path.suffix == ".lock" and path.is_file():
        remove_lock(path)
        return False
    if path.suffix == ".part" and path.is_file() and not path.is_symlink():
        return _swept_part(path, age)
    if path.suffix == ".journal" and path.with_suffix(".part").exists():
        return False
    if age < _WRITING_SECONDS:
        return False
    remove_anything(path)
    return True


def _swept_part(path: Path, age: float) -> bool:
    with owned(path) as (_, is_abandoned):
        if is_abandoned or (is_abandoned is None and age > _ABANDONED_SECONDS):
            remove_part(path)
            return True
    return False
