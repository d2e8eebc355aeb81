"""What keeps a cache small and sound: removing what is not used, hashing what is there."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from wmtp.errors import NotFoundError, StorageError
from wmtp.storage.cache import Entry, VerifiedCache
from wmtp.storage.cached.kept import remove_anything
from wmtp.storage.cached.records import children
from wmtp.storage.cached.sweeping import sweep_parts
from wmtp.untrusted import did_you_mean, plain, show_all

_DIGEST = re.compile(r"[0-9a-f]{64}")
_YOUNG_SECONDS = 600  # where locks lie, somebody may be between record and blob


@dataclass(frozen=True)
class Removed:
    """What was removed from a cache.

    Attributes:
        entries: Files of checkpoints.
        num_blobs: How many blobs nobody needed any more.
        num_bytes: How many bytes the disk got back, abandoned downloads included.
    """

    entries: list[Entry]
    num_blobs: int
    num_bytes: int


@dataclass(frozen=True)
class Checked:
    """What hashing a whole cache found.

    Attributes:
        num_blobs: How many blobs were hashed.
        num_bytes: How large they are.
        damaged: The digests that were promised of the damaged ones, which are removed, with the files they were.
        kept: Those of them that could not be removed.
    """

    num_blobs: int
    num_bytes: int
    damaged: dict[str, list[Entry]]
    kept: list[str]


def verify(cache: VerifiedCache, tell: Callable[[int], None] = lambda _: None) -> Checked:
    """Hash every blob again, remove the damaged ones, and write down that the others were on the disk.

    Args:
        cache: The cache.
        tell: Told the size of each blob once it was hashed.
    """
    users: dict[str, list[Entry]] = {}
    for entry in cache.records.all():
        users.setdefault(entry.sha256, []).append(entry)
    sizes = {path.name: path.lstat().st_size for path in _blobs(cache)}
    damaged = {}
    for sha256, num_bytes in sizes.items():
        if not cache.blobs.verify(sha256):
            damaged[sha256] = users.get(sha256, [])
            cache.blobs.drop(sha256)
        tell(num_bytes)
    kept = [sha256 for sha256 in damaged if _is_there(cache.blobs.path(sha256))]
    _remove_records([entry for sha256, entries in damaged.items() if sha256 not in kept for entry in entries])
    return Checked(len(sizes), sum(sizes.values()), damaged, kept)


def prune(cache: VerifiedCache, *, unused_for_seconds: float | None = None, max_bytes: int | None = None) -> Removed:
    """Remove what was not used for long, then the least recently used until the rest is small enough.

    Abandoned downloads, blobs without a record and records without a blob go as well. What is being downloaded stays,
    and processes that have a file open or mapped keep it.

    Args:
        cache: The cache.
        unused_for_seconds: Remove files that nobody asked for in so long; None: age does not matter.
        max_bytes: How large all blobs may be together; None: size does not matter.

    Raises:
        StorageError: If something cannot be removed.
    """
    num_bytes = sweep_parts(cache.parts, older_than_seconds=0)
    with cache.changing():
        entries = sorted(cache.entries(), key=lambda entry: entry.last_used)
        oldest = time.time() - unused_for_seconds if unused_for_seconds is not None else float("-inf")
        unused = [entry for entry in entries if entry.last_used < oldest]
        if max_bytes is not None:
            unused += _too_many([entry for entry in entries if entry not in unused], max_bytes)
        _remove_records(unused)
        _sweep_records(cache)
        removed = _sweep_blobs(cache, {entry.sha256 for entry in unused})
    return Removed(unused, len(removed), num_bytes + sum(removed))


def remove(cache: VerifiedCache, uris: Collection[str]) -> Removed:
    """Remove all files of checkpoints.

    Args:
        cache: The cache.
        uris: Their addresses.

    Raises:
        NotFoundError: If nothing of one of them is in the cache; nothing is removed then.
        StorageError: If something cannot be removed.
    """
    with cache.changing():
        entries = list(cache.records.all())
        known = {entry.source.uri for entry in entries}
        if missing := [uri for uri in uris if uri not in known]:
            raise NotFoundError(
                f"{cache.root}: nothing is cached of {', '.join(show_all(missing))}"
                f"{plain(did_you_mean(missing[0], known))}",
                hint="'wmtp cache ls' lists what is",
            )
        chosen = [entry for entry in entries if entry.source.uri in uris]
        _remove_records(chosen)
        removed = _sweep_blobs(cache, {entry.sha256 for entry in chosen})
    return Removed(chosen, len(removed), sum(removed))


def _too_many(entries: list[Entry], max_bytes: int) -> list[Entry]:
    """The least recently used of entries, oldest first, whose blobs make the rest fit."""
    users = Counter(entry.sha256 for entry in entries)
    num_bytes = sum({entry.sha256: entry.source.size_bytes for entry in entries}.values())
    chosen = []
    for entry in entries:
        if num_bytes <= max_bytes:
            break
        chosen.append(entry)
        users[entry.sha256] -= 1
        if not users[entry.sha256]:
            num_bytes -= entry.source.size_bytes
    return chosen


def _remove_records(entries: list[Entry]) -> None:
    for entry in entries:
        try:
            entry.path.unlink(missing_ok=True)
        except OSError as error:
            raise _not_removed(entry.path, error) from error
        with suppress(OSError):
            entry.path.parent.rmdir()  # when it was the last one


def _sweep_records(cache: VerifiedCache) -> None:
    """Remove records that are none, or that speak of blobs that are not there."""
    sound = {entry.path for entry in cache.entries()}
    for path in cache.records.paths():
        if path not in sound and _is_old(path):
            with suppress(OSError):
                remove_anything(path)
    for directory in children(cache.records.directory):
        with suppress(OSError):
            directory.rmdir() if directory.is_dir() and not directory.is_symlink() else directory.unlink()


def _sweep_blobs(cache: VerifiedCache, freed: set[str]) -> list[int]:
    """Remove blobs that no record needs: those just freed, and old ones; returns their sizes."""
    needed = {entry.sha256 for entry in cache.records.all()}
    sizes = []
    for path in children(cache.blobs.directory):
        if path.name not in needed and (path.name in freed or _is_old(path)):
            sizes.append(cache.blobs.drop(path.name))
            if _is_there(path):
                raise _not_removed(path, None)
    for path in children(cache.blobs.receipts):
        if not _is_there(cache.blobs.path(path.stem)) and _is_old(path):
            with suppress(OSError):
                remove_anything(path)
    return sizes


def _blobs(cache: VerifiedCache) -> list[Path]:
    return [path for path in children(cache.blobs.directory) if _DIGEST.fullmatch(path.name)]


def _is_old(path: Path) -> bool:
    # By the change of its inode: a rename into place is one, whatever times the bytes have.
    try:
        return time.time() - path.lstat().st_ctime > _YOUNG_SECONDS
    except OSError:
        return False


def _is_there(path: Path) -> bool:
    try:
        path.lstat()
    except OSError:
        return False
    return True


def _not_removed(path: Path, error: OSError | None) -> StorageError:
    reason = error.strerror if error else "it stays"
    return StorageError(f"{path}: cannot be removed: {reason}", hint="check who owns the cache, and its permissions")
