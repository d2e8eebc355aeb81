"""Bringing a whole checkpoint to this machine, every byte held to what is known of it."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from typing_extensions import Unpack, override

from wmtp.checkpoint.contents import check_required_files
from wmtp.checkpoint.headers import weight_files
from wmtp.checkpoint.index import INDEX_FILE
from wmtp.errors import NotFoundError, StorageError
from wmtp.manifest import digest_path
from wmtp.storage.locked import Lock
from wmtp.storage.opening import open_store
from wmtp.storage.progress import transferring
from wmtp.storage.snapshot import retried_if_changed
from wmtp.storage.store import Access, FileInfo, Store
from wmtp.storage.uri import ModelURI, parse_uri
from wmtp.transport.claims import Claims, left_out, movable_files, several_at_once
from wmtp.transport.landing import Landing
from wmtp.transport.report import MovedFile, MoveReport, said_by
from wmtp.transport.working import landing
from wmtp.untrusted import plain, show_all
from wmtp.wording import size

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class FetchReport(MoveReport):
    """What was fetched.

    Attributes:
        is_cached: Whether `path` is the cache's, not a directory of the user's.
        notes: What keeps it from being loaded, if anything is known.
    """

    is_cached: bool
    notes: tuple[str, ...]

    @override
    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), "num_bytes_here_before": self._num_bytes_here}

    def summary(self) -> list[str]:
        """Return the report in a few lines for a person."""
        here = [file for file in self.files if file.was_here]
        before = f"; {len(here):,} of them, {size(self._num_bytes_here)}, had been here" if here else ""
        place = f"in the cache, {self.path}" if self.is_cached else self.path
        lines = [f"{self.uri} is now {'' if self.is_cached else 'in '}{place}", self.amount + before]
        lines += said_by(self.files)
        if unknown := [file.name for file in self.files if not file.verified_by]:
            lines.append(f"recorded now, as nothing said before what they must be: {', '.join(show_all(unknown))}")
        return [*lines, *self.omission, *self.notes]

    @property
    def _num_bytes_here(self) -> int:
        return sum(file.size_bytes for file in self.files if file.was_here)


@dataclass(frozen=True)
class _Wanted:
    store: Store
    claims: Claims
    files: list[FileInfo]  # the largest first


def fetch_checkpoint(
    uri: str | Path | ModelURI,
    directory: Path | None = None,
    *,
    lock: Lock | None = None,
    **access: Unpack[Access],
) -> FetchReport:
    """Bring all files of a checkpoint here.

    Args:
        uri: Its address. A directory on this machine can be fetched too: the copy is verified.
        directory: A new directory; None: into the cache. It appears once all files are in it, whole and verified. A
            fetch that was interrupted goes on where it was.
        lock: Digests that its files must have: see `lock_store`.
        **access: How its files are got at: see `open_store`.

    Raises:
        NotFoundError: If nothing stands there, or files are missing that the checkpoint requires.
        IntegrityError: If a file is not what the lock, the Hub or the checkpoint says, also when fetched once more.
        ChangedError: If files change while they are fetched, also on a second try.
        StorageError: If the directory exists, another process fetches into it, or bytes cannot be had or written.
    """
    started = time.monotonic()

    def act(into: Callable[[_Wanted], tuple[Path, list[MovedFile]]]) -> FetchReport:
        wanted = _wanted(open_store(address, **access), lock)
        path, files = into(wanted)
        return FetchReport(
            uri=str(address),
            path=str(path),
            is_cached=directory is None,
            files=tuple(sorted(files, key=lambda file: file.name)),
            seconds=time.monotonic() - started,
            left_out=left_out(wanted.store, wanted.files),
            notes=tuple(wanted.claims.notes),
        )

    address = parse_uri(uri)
    if directory is None:
        return retried_if_changed(lambda: act(_into_cache))
    _refuse_inside(address, directory)
    with landing(address, directory) as place:
        return retried_if_changed(lambda: act(partial(_into_directory, place, directory)))


def _wanted(store: Store, lock: Lock | None) -> _Wanted:
    files = movable_files(store)
    if clashes := {info.name for info in files} & {parent for info in files for parent in _parents(info.name)}:
        raise StorageError(
            f"{store.uri}: both a file and a directory: {', '.join(show_all(sorted(clashes)))}",
            hint="remove the object of that name, or name an address further down",
        )
    claims = Claims(store, lock)
    if claims.metadata is not None:
        check_required_files(store, claims.metadata)
    if store.has(INDEX_FILE) and (absent := [name for name in weight_files(store) if not store.has(name)]):
        raise NotFoundError(
            f"{store.where(INDEX_FILE)}: {len(absent)} of its shards are missing: {', '.join(show_all(absent))}",
            hint="copy them there; while somebody uploads the checkpoint, wait until that is done",
        )
    return _Wanted(store, claims, files)


def _into_cache(wanted: _Wanted) -> tuple[Path, list[MovedFile]]:
    store, claims = wanted.store, wanted.claims
    if store.uri.scheme == "file":
        raise StorageError(
            f"{store.uri}: it is on this machine already",
            hint=f"name a directory to copy it to, or verify it: wmtp validate --deep {store.uri}",
        )
    names = [info.name for info in wanted.files]
    is_here = {info.name: info.size_bytes > 0 and store.bytes_to_fetch([info.name]) == 0 for info in wanted.files}
    store.expect({name: digest for name in names if (digest := claims.digest(name))})
    paths = store.local_paths(names)

    def moved(info: FileInfo, _: object) -> MovedFile:
        sha256 = _digest(paths[info.name])
        claims.check(info.name, sha256)
        return MovedFile(info.name, info.size_bytes, sha256, claims.sources(info.name), is_here[info.name])

    files = several_at_once(moved, wanted.files)
    return Path(os.path.commonpath([path.parent for path in paths.values()])), files


def _into_directory(place: Landing, directory: Path, wanted: _Wanted) -> tuple[Path, list[MovedFile]]:
    place.begin(wanted.store, wanted.claims, wanted.files)
    with transferring(str(wanted.store.uri), {info.name: info.size_bytes for info in wanted.files}) as progress:
        files = several_at_once(partial(place.receive, progress), wanted.files)
    place.publish(wanted.files)
    return directory, files


def _digest(path: Path) -> str:
    """Return the SHA-256 of a file in a cache; our own names its files by it, and has verified them."""
    is_ours = path.parent.name == "blobs" and _SHA256.fullmatch(path.name)
    return path.name if is_ours else digest_path(path, "file").sha256


def _parents(name: str) -> Sequence[str]:
    parts = name.split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts))]


def _refuse_inside(address: ModelURI, directory: Path) -> None:
    if address.scheme == "file" and directory.resolve().is_relative_to(Path(address.path).resolve()):
        raise StorageError(
            f"{directory}: inside {plain(address.path)}, which is to be copied", hint="name a directory somewhere else"
        )
