"""Small JSON files of the cache: read with distrust, written so that they are whole or not there."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import uuid
from contextlib import suppress
from io import BufferedReader
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from wmtp.faults import StrictModel

_MAX_BYTES = 64 << 10
_Model = TypeVar("_Model", bound=StrictModel)


def read_kept(path: Path, model: type[_Model], root: Path) -> _Model | None:
    """Return what a small file of the cache below `root` says; None when there is none, or none to believe."""
    try:
        with open_kept(path) as file:
            if not is_believed(os.fstat(file.fileno()), root):
                return None
            return model.model_validate_json(file.read(_MAX_BYTES))
    except (OSError, ValidationError):
        return None


def open_kept(path: Path) -> BufferedReader:
    """Open a file of the cache to read it, as long as it is one: no link, no directory, nothing that makes us wait.

    Raises:
        OSError: If it is none, or cannot be opened.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise PermissionError(errno.EPERM, "not a regular file", str(path))
    return os.fdopen(descriptor, "rb")


def write_kept(path: Path, data: bytes, parts: Path) -> None:
    """Write a small file in place of what stands there, by way of the directory of parts.

    It is not forced to the disk, which would wait for the gigabytes that were written before it: one that a power loss
    damaged is no JSON, which means that it is not there, and costs a second look or a second download.

    Raises:
        OSError: If it cannot be written.
    """
    temporary = parts / f"{uuid.uuid4().hex}.tmp"
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o664)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        move_into_place(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink()


def move_into_place(source: Path, final: Path) -> None:
    """Rename a file, even onto a directory that stands where a file of the cache belongs.

    Raises:
        OSError: If that cannot be done.
    """
    if final.is_dir() and not final.is_symlink():
        shutil.rmtree(final)
    source.replace(final)


def remove_anything(path: Path) -> None:
    """Remove what has a name in the cache, even where a directory stands in a file's place.

    Raises:
        OSError: If it cannot be removed.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def free_bytes(directory: Path) -> int:
    """Return how many bytes the disk still takes."""
    return shutil.disk_usage(directory).free


def is_believed(found: os.stat_result, root: Path) -> bool:
    """Say whether a file of the cache was written by somebody whom its user trusts.

    That is the user, the system, the owner of the cache that the user named, and its group where the group may write
    to it. In a directory where everybody may write, anybody could have put a file.
    """
    if found.st_mode & stat.S_IWOTH:
        return False
    try:
        cache = root.stat()
    except OSError:
        return False
    if found.st_uid in (os.geteuid(), 0, cache.st_uid):
        return True
    only_group_writes = cache.st_mode & (stat.S_IWGRP | stat.S_IWOTH) == stat.S_IWGRP
    return only_group_writes and found.st_gid == cache.st_gid
