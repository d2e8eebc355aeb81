"""What stands below a directory, however deep: looked at, compared, removed; follows no link and opens no device."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import Any

_HASHED_BYTES = 256 << 20  # what is larger is a hole without contents


def snapshot(root: Path) -> dict[str, tuple[Any, ...]]:
    """Return what stands below a directory: kind, size, time of change, and SHA-256 or target; opens no device."""
    found: dict[str, tuple[Any, ...]] = {}
    for path in [root, *everything_below(root)]:
        state = path.lstat()
        content = ""
        if stat.S_ISLNK(state.st_mode):
            content = str(path.readlink())
        elif stat.S_ISREG(state.st_mode) and state.st_size <= _HASHED_BYTES:
            content = sha256(path.read_bytes())
        found[str(path.relative_to(root))] = (state.st_mode, state.st_size, state.st_mtime_ns, content)
    return found


def everything_below(root: Path) -> list[Path]:
    """Return every path below a directory, a directory before what is in it; follows no link and knows no depth."""
    found, waiting = [], [root]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                found.append(Path(entry.path))
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(Path(entry.path))
    return found


def remove(root: Path) -> None:
    """Delete a directory of any depth."""
    for path in reversed(everything_below(root)):
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink()
    root.rmdir()


def sha256(data: bytes) -> str:
    """Return a digest in hexadecimal."""
    return hashlib.sha256(data).hexdigest()
