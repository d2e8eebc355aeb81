"""The files of a repository of the Hugging Face Hub, kept in huggingface_hub's own cache."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Self

from typing_extensions import override

from wmtp.errors import IntegrityError, NotFoundError
from wmtp.manifest import digest_file
from wmtp.storage.local import LocalStore, reading
from wmtp.storage.objects import ObjectStore
from wmtp.storage.order import in_order
from wmtp.storage.progress import Transfer, transferring
from wmtp.storage.replace import replace_file
from wmtp.storage.requests.hub_client import HubClient
from wmtp.storage.store import Store
from wmtp.storage.transfer import MAX_FILES
from wmtp.storage.uri import ModelURI

_COMMIT = re.compile(r"[0-9a-f]{40}")


def open_hub(uri: ModelURI, *, cache: bool = True) -> Store:
    """Open a repository; with HF_HUB_OFFLINE, what huggingface_hub has of it in its cache.

    Args:
        uri: Repository and revision.
        cache: Keep files that are fetched whole. False: they are only ever read into memory.

    Raises:
        NotFoundError: If requests are forbidden and the revision is not in the cache.
    """
    from huggingface_hub import is_offline_mode

    return CachedSnapshot(uri) if is_offline_mode() else HubStore(uri, cache=cache)


class CachedSnapshot(LocalStore):
    """What huggingface_hub has of a revision in its cache; no request is made."""

    def __init__(self, uri: ModelURI) -> None:
        super().__init__(ModelURI("file", "", str(_snapshot(uri) / uri.path)))
        self.uri = uri

    @override
    def child(self, name: str) -> CachedSnapshot:
        return CachedSnapshot(self.uri / name)


class HubStore(ObjectStore):
    """The files of one commit, which is resolved with the first request.

    Whole files are fetched by huggingface_hub into its own cache, where HF_HOME says. Large ones are then hashed, and
    must have the digest that the Hub states for them.

    Args:
        uri: Repository and revision.
        cache: Keep files that are fetched whole. False: they are only ever read into memory.
        client: Makes the requests; one may serve many stores of a repository.
    """

    def __init__(self, uri: ModelURI, *, cache: bool = True, client: HubClient | None = None) -> None:
        self._hub = client or HubClient(uri)
        super().__init__(uri, cache=None, client=self._hub)
        self.has_paths = cache

    @override
    def read_bytes(self, name: str, *, max_bytes: int) -> bytes:
        if self.has_paths and self.stat(name).size_bytes <= max_bytes:
            self.local_paths([name])  # so that it is there offline, too
        return Store.read_bytes(self, name, max_bytes=max_bytes)

    @override
    def read_range(self, name: str, start: int, length: int) -> bytes:
        blob = self._blob(name)
        if not self.has_paths or not blob.exists():
            return super().read_range(name, start, length)
        with reading(self.where(name)), blob.open("rb") as file:
            file.seek(start)
            return file.read(length)

    @override
    def local_paths(self, names: Iterable[str]) -> dict[str, Path]:
        if not self.has_paths:
            return super().local_paths(names)
        names = list(names)
        if missing := [name for name in names if not self._blob(name).exists()]:
            self._fetch_all(missing)
        paths = {name: self._hub.download(self._key(name), _Bar) for name in names}
        for name, path in paths.items():
            self._check_arrived(name, path)
        self._record_revision()
        return paths

    @override
    def child(self, name: str) -> HubStore:
        return HubStore(self.uri / name, cache=self.has_paths, client=self._hub)

    @override
    def bytes_to_fetch(self, names: Iterable[str]) -> int:
        is_needed = {name: not (self.has_paths and self._blob(name).exists()) for name in names}
        return sum(self._info(name).size_bytes for name, needed in is_needed.items() if needed)

    @override
    def expected(self, name: str) -> str | None:
        stated = self._hub.files[self._info(name).key].sha256
        return super().expected(name) or (f"sha256:{stated}" if stated else None)

    def _fetch_all(self, names: Sequence[str]) -> None:
        sizes = {name: self._info(name).size_bytes for name in names}
        with transferring(str(self.uri), sizes) as progress, ThreadPoolExecutor(MAX_FILES) as pool:
            bar = type("_BoundBar", (_Bar,), {"progress": progress})
            for _ in in_order(pool, lambda name: self._fetch_checked(name, bar), names, ahead=MAX_FILES):
                pass

    def _fetch_checked(self, name: str, bar: type[_Bar]) -> None:
        """Fetch a file and hash it, if the Hub says what it must be; one that is damaged is fetched once more."""
        stated, key = self._hub.files[self._info(name).key].sha256, self._key(name)
        for _ in range(2):
            path = self._hub.download(key, bar)
            with reading(self.where(name)):
                found = digest_file(path.parent, path.name).sha256 if stated else None
                if found == stated:
                    return
                for damaged in (path.resolve(), self._blob(name), path):
                    damaged.unlink(missing_ok=True)
        raise IntegrityError(
            f"{self.where(name)}: what arrived has sha256:{found}, the Hub states sha256:{stated}",
            hint="it was removed again; check HF_ENDPOINT and proxies, and try again",
        )

    @override
    def _check_arrived(self, name: str, path: Path) -> None:
        blob, declared = self._blob(name), self._expected.get(name)
        if self._hub.files[self._info(name).key].sha256:
            super()._check_arrived(name, blob)  # its name is its digest
        elif declared and (found := digest_file(path.parent, path.name).sha256) != declared:
            raise IntegrityError(
                f"{self.where(name)}: it has sha256:{found}, sha256:{declared} is expected",
                hint="choose another revision, or mend the digest that the checkpoint declares",
            )

    def _record_revision(self) -> None:
        """Write down which commit a branch meant, as huggingface_hub does, so that it is found when offline."""
        ref = _entry(self.uri) / "refs" / self._hub.revision
        commit = self._hub.commit.encode()
        with suppress(OSError):  # a cache that cannot be written still gives what is in it
            if self._hub.revision != self._hub.commit and not (ref.is_file() and ref.read_bytes() == commit):
                ref.parent.mkdir(parents=True, exist_ok=True)
                replace_file(ref, commit)

    def _blob(self, name: str) -> Path:
        return _entry(self.uri) / "blobs" / self._hub.files[self._info(name).key].blob


class _Bar:
    """Takes the place of tqdm's bar and draws nothing."""

    progress: Transfer | None = None

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, n: float | None = 1) -> None:
        if self.progress is not None:
            self.progress.advance(int(n or 0))

    def close(self, *_: object, **__: object) -> None:
        """Do nothing; also for what Xet says of its second bar, which counts the same bytes while they are packed."""

    update_transfer = set_postfix_str = set_transfer_postfix_str = refresh = close


def _cache() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def _entry(uri: ModelURI) -> Path:
    return _cache() / f"models--{uri.location.replace('/', '--')}"


def _snapshot(uri: ModelURI) -> Path:
    entry, commit = _entry(uri), uri.revision or "main"
    ref = entry / "refs" / commit
    with reading(uri):
        if not _COMMIT.fullmatch(commit) and ref.is_file():
            commit = ref.read_text().strip()
        if _COMMIT.fullmatch(commit) and (entry / "snapshots" / commit).is_dir():
            return entry / "snapshots" / commit
    raise NotFoundError(
        f"{uri}: not in huggingface_hub's cache, and HF_HUB_OFFLINE forbids to ask the Hub for it",
        hint="unset HF_HUB_OFFLINE; or fetch it where there is a network, and set HF_HOME to a copy of the cache",
    )
