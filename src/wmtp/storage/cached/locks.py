"""Taking turns with other processes, as far as the file system lets us.

Nothing here is needed for being right, only for not doing work twice: some network disks have no locks, and some say
yes to everybody. What must be right rests on unique names and renames.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 0.001, 0.1


def try_lock(descriptor: int) -> bool:
    """Take the lock of an open file; False when somebody else has it.

    It goes when the file is closed, or its process dies.

    Raises:
        OSError: If this file system has no locks.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def taking_turns(
    path: Path, *, patience_seconds: float, progress: Callable[[], object] = lambda: None
) -> Iterator[None]:
    """Let one process at a time do what the block does; the lock file is gone afterwards.

    Args:
        path: The lock file.
        patience_seconds: Go on unlocked when `progress` has given the same for so long: who has the lock hangs.
        progress: Something that changes while the one who has the lock works.
    """
    descriptor = _wait(path, patience_seconds, progress)
    try:
        yield
    finally:
        if descriptor is not None:
            with suppress(OSError):
                path.unlink()  # before the lock goes: who waits for it sees that the file is no longer this one
            os.close(descriptor)


def remove_lock(path: Path) -> None:
    """Remove a lock file that a killed process left behind; one that is in use stays."""
    with suppress(OSError):
        descriptor = _take(path)
        if descriptor is not None:
            path.unlink()
            os.close(descriptor)


def _wait(path: Path, patience_seconds: float, progress: Callable[[], object]) -> int | None:
    seen, since, wait = progress(), time.monotonic(), _FIRST_WAIT_SECONDS
    while time.monotonic() - since < patience_seconds:
        try:
            descriptor = _take(path)
        except OSError:
            return None
        if descriptor is not None:
            return descriptor
        time.sleep(wait)
        wait = min(2 * wait, _LONGEST_WAIT_SECONDS)
        if (now := progress()) != seen:
            seen, since = now, time.monotonic()
    return None


def _take(path: Path) -> int | None:
    # Reading is all that a lock needs, and all that a neighbour's file may allow.
    descriptor = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
    try:
        if try_lock(descriptor) and _is_still(path, descriptor):
            return descriptor
    except OSError:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.lstat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
