"""A store whose files must be, byte for byte, what the operator pinned."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from typing_extensions import override

from wmtp.errors import IntegrityError, NotFoundError, TrustError
from wmtp.manifest import Manifest, digest_path, sha256_bytes, verify_digest
from wmtp.storage.local import reading
from wmtp.storage.store import FileInfo, Piece, Store
from wmtp.untrusted import show, show_all

Lock = Mapping[str, str] | str | Path

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class LockedStore(Store):
    """Gives out only files that have the digests of a lock.

    A file is hashed before its first byte is used, and again whenever anything about it changed since.

    Args:
        store: The files.
        pinned: `sha256:<hex>` of files by name.
        pins_all: Refuse to read a file that the lock does not name; otherwise such files are read unverified.
    """

    def __init__(self, store: Store, pinned: Mapping[str, str], *, pins_all: bool) -> None:
        self.uri, self.verified, self.directory, self.has_paths = store.uri, {}, store.directory, store.has_paths
        self._store, self._pinned, self._pins_all = store, pinned, pins_all
        self._hashed: dict[str, tuple[int, ...]] = {}
        if missing := [name for name in pinned if not store.has(name)]:
            raise IntegrityError(
                f"{self.uri}: {len(missing)} files of the lock are missing: {', '.join(show_all(missing))}",
                hint="fetch the checkpoint again, or write a new lock with 'wmtp lock'",
            )
        store.expect({name: digest.removeprefix("sha256:") for name, digest in pinned.items()})

    @override
    def list_files(self) -> list[FileInfo]:
        return self._store.list_files()

    @override
    def stat(self, name: str) -> FileInfo:
        return self._store.stat(name)

    @override
    def read_bytes(self, name: str, *, max_bytes: int) -> bytes:
        data = self._store.read_bytes(name, max_bytes=max_bytes)
        if self._is_pinned(name):
            self._verify(name, sha256_bytes(data))
        return data

    @override
    def read_range(self, name: str, start: int, length: int) -> bytes:
        self._hold([name])
        return self._store.read_range(name, start, length)

    @override
    def read_ranges(self, ranges: Sequence[tuple[str, int, int]]) -> list[bytes]:
        self._hold(name for name, _, _ in ranges)
        return self._store.read_ranges(ranges)

    @override
    def fill(self, pieces: Iterable[Piece]) -> Iterator[Piece]:
        def held() -> Iterator[Piece]:
            for piece in pieces:
                self._hold([piece.name])
                yield piece

        return self._store.fill(held())

    @override
    def child(self, name: str) -> LockedStore:
        inside = {n.removeprefix(f"{name}/"): d for n, d in self._pinned.items() if n.startswith(f"{name}/")}
        return LockedStore(self._store.child(name), inside, pins_all=self._pins_all)

    @override
    def expect(self, digests: Mapping[str, str]) -> None:
        self._store.expect({name: digest for name, digest in digests.items() if name not in self._pinned})

    @override
    def expected(self, name: str) -> str | None:
        return self._pinned[name] if self._is_pinned(name) else self._store.expected(name)

    @override
    def confirm(self, name: str, digest: str) -> None:
        self._store.confirm(name, digest)
        if self._is_pinned(name):
            self._verify(name, digest)

    @override
    def bytes_to_fetch(self, names: Iterable[str]) -> int:
        return self._store.bytes_to_fetch(names)

    @override
    def local_paths(self, names: Iterable[str]) -> dict[str, Path]:
        paths = self._store.local_paths(names)
        for name, path in paths.items():
            with reading(self.where(name)):
                identity = _identity(path)
                if self._is_pinned(name) and self._hashed.get(name) != identity:
                    self._verify(name, f"sha256:{digest_path(path, name).sha256}")
                    self._hashed[name] = identity
        return paths

    def _hold(self, names: Iterable[str]) -> None:
        """Hash files that lie on this machine; others are held to the lock when they arrive."""
        pinned = [name for name in names if self._is_pinned(name)]
        if self.directory is not None:
            self.local_paths(pinned)

    def _verify(self, name: str, found: str) -> None:
        verify_digest(self.where(name), found, self._pinned[name])
        self.verified[name] = found

    def _is_pinned(self, name: str) -> bool:
        if name in self._pinned:
            return True
        if not self._pins_all:
            return False
        raise IntegrityError(
            f"{self.where(name)}: this file is not in the lock, so it was added since",
            hint="remove it, or look at it and write a new lock with 'wmtp lock'",
        )


def lock_store(store: Store, lock: Lock) -> LockedStore:
    """Hold the files of a store to a lock.

    Args:
        store: The files of a checkpoint.
        lock: `{"file": "sha256:<hex>"}`, which pins the files that it names; or the path of a lock file as `wmtp lock`
            writes it, which pins the whole checkpoint.

    Raises:
        TrustError: If the lock is malformed, or lies in the checkpoint that it is to vouch for.
        NotFoundError: If there is no such lock file.
        IntegrityError: If the lock file cannot be read, or names files that are missing.
    """
    if isinstance(lock, Mapping):
        for name, digest in lock.items():
            if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
                raise TrustError(
                    f"lock: {show(name)} is pinned to {show(digest)}, which is not 'sha256:' and 64 digits",
                    hint="'wmtp lock' prints the digest of every file",
                )
        return LockedStore(store, lock, pins_all=False)
    given: object = lock
    if not isinstance(given, str | Path):
        hint = "pass the path of a lock file, or {'model.safetensors': 'sha256:<hex>'}"
        raise TrustError(f"lock is {show(given)}, which pins nothing", hint)
    path = Path(given)
    if store.directory is not None and path.resolve().is_relative_to(store.directory.resolve()):
        raise TrustError(
            f"{path}: this lock lies in the checkpoint, which cannot vouch for itself",
            hint="keep the lock somewhere else: 'wmtp lock URI --output FILE'",
        )
    if not path.is_file():
        raise NotFoundError(f"{path}: no such lock file", hint="write one with 'wmtp lock URI --output FILE'")
    with reading(path):
        files = Manifest.read(path).files
    return LockedStore(store, {entry.path: f"sha256:{entry.sha256}" for entry in files}, pins_all=True)


def _identity(path: Path) -> tuple[int, ...]:
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
