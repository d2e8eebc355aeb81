"""What fetching and pushing share: what is said of each file's bytes, files that moved, several of them at once."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextvars import copy_context
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from wmtp.errors import ArrivalError, IntegrityError, MetadataError
from wmtp.manifest import MANIFEST_FILE, FileDigest, Manifest
from wmtp.metadata.file import METADATA_FILE, read_metadata
from wmtp.metadata.schema import ModelMetadata
from wmtp.storage.locked import Lock, lock_store
from wmtp.storage.store import FileInfo, Store
from wmtp.untrusted import MAX_INDEX_BYTES, first_few, plain, relative_name_fault

_MAX_FILES = 4  # at once: more of them only share the same network and the same processors
_Item = TypeVar("_Item")
_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class _Claim:
    source: str
    sha256: str
    size_bytes: int | None = None


class Claims:
    """What is said of the bytes of files, before they are seen: by a lock, by the Hub, by the checkpoint itself.

    Args:
        store: The files.
        lock: Digests that the files must have, from outside the checkpoint: see `lock_store`.

    Attributes:
        metadata: The declaration, if there is one that can be read.
        notes: What a person should know of it if not.

    Raises:
        IntegrityError: If the manifest or the lock cannot be read, or files that they name are missing or have other
            sizes, or two of them say different things; all files at once.
    """

    def __init__(self, store: Store, lock: Lock | None = None) -> None:
        self._where, self._of_files = store.where, dict[str, list[_Claim]]()
        self.metadata: ModelMetadata | None = None
        self.notes: list[str] = []
        found = {info.name: info.size_bytes for info in store.list_files()}
        self._add("the Hub", {name: store.expected(name) for name in found})
        if lock is not None:
            store = lock_store(store, lock)
            names: Iterable[str] = lock if isinstance(lock, Mapping) else found
            self._add("the lock", {name: store.expected(name) for name in names})
        self._read_declared(store, found)
        faults = [fault for name in sorted(self._of_files) for fault in self._faults(name, found.get(name))]
        if faults:
            raise IntegrityError(
                f"{store.uri}: {len(faults)} of {len({*found, *self._of_files})} files are missing or not as declared",
                hint="look for a whole copy of the checkpoint; if somebody is just writing it, wait until that is done",
                faults=first_few(faults),
            )

    def sources(self, name: str) -> tuple[str, ...]:
        """Return who says what a file must be."""
        return tuple(claim.source for claim in self._of_files.get(name, ()))

    def digest(self, name: str) -> str | None:
        """Return the SHA-256 that a file must have, if anybody says so."""
        return next((claim.sha256 for claim in self._of_files.get(name, ())), None)

    def check(self, name: str, found: str) -> None:
        """Raise ArrivalError, with both, unless a file has the SHA-256 that it must have."""
        if (expected := self.digest(name)) not in (None, found):
            raise ArrivalError(
                f"{self._where(name)}: it has sha256:{found}, {self.sources(name)[0]} says sha256:{expected}",
                hint="it was dropped; take the checkpoint from where its bytes are right, or push it again",
            )

    def _add(self, source: str, digests: Mapping[str, str | None]) -> None:
        for name, digest in digests.items():
            if digest is not None:
                self._of_files.setdefault(name, []).append(_Claim(source, digest.removeprefix("sha256:")))

    def _add_entries(self, source: str, entries: Iterable[FileDigest]) -> None:
        for entry in entries:
            # A person may edit metadata.json: what it says is proven by the plan, not by a digest.
            if entry.path != METADATA_FILE:
                self._of_files.setdefault(entry.path, []).append(_Claim(source, entry.sha256, entry.size))

    def _read_declared(self, store: Store, found: Mapping[str, int]) -> None:
        if MANIFEST_FILE in found:
            data = store.read_bytes(MANIFEST_FILE, max_bytes=MAX_INDEX_BYTES)
            self._add_entries(MANIFEST_FILE, Manifest.parse(data, where=store.where(MANIFEST_FILE)).files)
        if METADATA_FILE not in found:
            self.notes.append(f"there is no {METADATA_FILE}, which loading needs: 'wmtp init DIR' drafts one")
            return
        try:
            self.metadata = read_metadata(store)
        except MetadataError as error:
            self.notes.append(f"not ready to load: {error.problem} ({error.hint})")
        else:
            self._add_entries(METADATA_FILE, self.metadata.files or ())

    def _faults(self, name: str, size: int | None) -> list[str]:
        claims = self._of_files[name]
        if size is None:
            return [f"{plain(name)} is missing; {claims[0].source} names it"]
        other_size = next((claim for claim in claims if claim.size_bytes not in (None, size)), None)
        if other_size is not None:
            return [f"{plain(name)} has {size:,} bytes, {other_size.source} says {other_size.size_bytes:,}"]
        if len({claim.sha256 for claim in claims}) > 1:
            said = ", ".join(f"{claim.source} says sha256:{claim.sha256}" for claim in claims)
            return [f"{plain(name)}: {said}"]
        return []


def several_at_once(act: Callable[[_Item, threading.Event], _Answer], items: Iterable[_Item]) -> list[_Answer]:
    """Return `act(item, given_up)` for each item, up to four at once, begun in this order.

    When one fails, `given_up` is set, those not begun yet are not begun, and its error is raised once the others ended.
    """
    given_up = threading.Event()
    with ThreadPoolExecutor(_MAX_FILES) as pool:
        # In a copy of the context, so that whoever watches transfers here is told of them.
        futures = [pool.submit(copy_context().run, act, item, given_up) for item in items]
        try:
            for future in wait(futures, return_when=FIRST_EXCEPTION).done:
                future.result()
        finally:
            given_up.set()
            for future in futures:
                future.cancel()
        return [future.result() for future in futures]


def movable_files(store: Store) -> list[FileInfo]:
    """Return the files of a store that may be named in another place, the largest first."""
    files = [info for info in store.list_files() if relative_name_fault(info.name) is None]
    return sorted(files, key=lambda info: (-info.size_bytes, info.name))


def left_out(store: Store, files: Iterable[FileInfo]) -> tuple[str, ...]:
    """Return what else lies in a store's directory: hidden, ill-named, or no regular file; directories end in `/`.

    Of a store on another machine nothing is known.
    """
    if store.directory is None:
        return ()
    taken, left = {info.name for info in files}, []
    for parent, directories, names in os.walk(store.directory):
        skipped = [name for name in directories if name.startswith(".") or Path(parent, name).is_symlink()]
        directories[:] = [name for name in directories if name not in skipped]
        paths = [Path(parent, name).relative_to(store.directory).as_posix() for name in [*names, *skipped]]
        left += [path for path in paths[: len(names)] if path not in taken]
        left += [f"{path}/" for path in paths[len(names) :]]
    return tuple(sorted(left))
