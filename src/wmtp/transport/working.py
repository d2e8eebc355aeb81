"""The working directory of a fetch, `DIR.fetching-<hash of the address>/` beside `DIR`: for one process at a time."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from wmtp.errors import StorageError
from wmtp.publishing.publish import refuse_existing
from wmtp.storage.cached.locks import try_lock
from wmtp.storage.local import reading
from wmtp.storage.uri import ModelURI
from wmtp.transport.landing import Landing

_logger = logging.getLogger(__name__)


@contextmanager
def landing(uri: ModelURI, final: Path) -> Iterator[Landing]:
    """Give the place where files of an address arrive that are to become a directory.

    What has arrived stays there for a later try when the block fails.

    Raises:
        StorageError: If something has the directory's name already, or another process fetches into it.
    """
    final = Path(os.path.abspath(final))  # noqa: PTH100  resolve() would follow a link that has the name
    working = final.with_name(f"{final.name}.fetching-{hashlib.sha256(str(uri).encode()).hexdigest()[:12]}")
    with reading(working):
        final.parent.mkdir(parents=True, exist_ok=True)
        if not working.exists():
            refuse_existing(final)
        _make_private(working)
        with _alone_in(working, final) as mode:
            try:
                refuse_existing(final)
                yield Landing(working, final, mode)
            finally:
                if not (working / "files").exists():  # they have become the directory, now or before
                    shutil.rmtree(working, ignore_errors=True)
                else:
                    _logger.warning("what has arrived stays in %s: the same command goes on with it", working)


def _make_private(working: Path) -> None:
    """Make the directory, or refuse one into which somebody else could have put files."""
    with suppress(FileExistsError):
        working.mkdir(mode=0o700)
    found = working.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise StorageError(f"{working}: not a directory that only you can write to", hint="see who made it; remove it")


@contextmanager
def _alone_in(working: Path, final: Path) -> Iterator[int]:
    """Keep other processes out, and give the permissions that new files have here."""
    lock = working / "lock"
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    try:
        is_ours = True  # also where a disk has no locks
        with suppress(OSError):
            is_ours = try_lock(descriptor) and os.path.samestat(lock.lstat(), os.fstat(descriptor))
        if not is_ours:
            raise StorageError(
                f"{final}: another process is fetching it, in {working}", hint="wait for it, or name another directory"
            )
        yield stat.S_IMODE(os.fstat(descriptor).st_mode)
    finally:
        os.close(descriptor)
