"""Tokens that are kept: a directory for what files, tokenizer and settings were, with nothing half done under its name.

data/tokens-<key>/           tokens.bin, documents.npy, learned.bin (of chats), store.json
data/tokens-<key>/rows-<key>.npz   which of these are in which row
data/digests/<key>.json      what files held when they were last read, by size and time
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wmtp.data.token_directory import (
    FACTS_FILE,
    LEARNED_FILE,
    RECORDS_FILE,
    TOKENS_FILE,
    TokenDirectory,
    sweep_abandoned,
)
from wmtp.data.token_store import NumberFile, TokenStore
from wmtp.errors import StorageError
from wmtp.storage.cached.locks import taking_turns
from wmtp.storage.replace import fsync

logger = logging.getLogger("wmtp")

_PATIENCE_SECONDS = 600.0  # of one who waits, while nothing is written
_TOUCHED_SECONDS = 60  # what is asked for ten times a second need not be touched each time


@dataclass(frozen=True)
class KeptStore:
    """A store of tokens, and where it is kept.

    Attributes:
        store: The tokens.
        directory: Where they are; None: only in memory.
    """

    store: TokenStore
    directory: Path | None = None


class TokenCache(TokenDirectory):
    """Stores of tokens on this machine, each made when it is asked for first."""

    def get(self, key: Any, files: Sequence[str], build: Callable[[Path], None]) -> KeptStore:
        """Return the tokens that are kept for a key, or make them; several processes may ask at once.

        Args:
            key: All that they depend on, as JSON values.
            files: Names of the files that they are from, as they are called now.
            build: Writes them into a directory.

        Raises:
            StorageError: If they cannot be written.
        """
        path = self.root / f"tokens-{digest_of(key)[:32]}"
        found = _opened(path, files)
        if found is None:
            self._make_room()
            lock = path.with_name(f"{path.name}.lock")
            with taking_turns(lock, patience_seconds=_PATIENCE_SECONDS, progress=lambda: _written(path)):
                found = _opened(path, files)
                if found is None:
                    self._publish(path, build)
                    found = _opened(path, files)
        if found is None:
            raise StorageError(f"{path}: cannot be read after it was written", hint="check the disk, or remove it")
        return KeptStore(found, path)

    def _make_room(self) -> None:
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unwritable(self.root, error) from error
        sweep_abandoned(self.root)

    def _publish(self, path: Path, build: Callable[[Path], None]) -> None:
        if path.exists():
            logger.warning("%s: damaged, and made again", path)
            shutil.rmtree(path)
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
        try:
            temporary.mkdir()
            build(temporary)
            fsync(temporary)
            temporary.rename(path)
            fsync(self.root)
        except OSError as error:
            if not path.exists():  # where locks do nothing, another process may have been as quick
                raise _unwritable(path, error) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def digest_of(value: Any) -> str:
    """Return the SHA-256 of JSON values, as 64 hex digits."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _opened(path: Path, files: Sequence[str]) -> TokenStore | None:
    """Return the store in a directory; None where there is none, or one whose files are not what it says."""
    try:
        facts = json.loads((path / FACTS_FILE).read_bytes())
        tokens, records = NumberFile(path / TOKENS_FILE, "<i4"), np.load(path / RECORDS_FILE, mmap_mode="r")
        learned = NumberFile(path / LEARNED_FILE, "u1") if facts["learned"] else None
        expected = [facts["tokens"], facts["documents"], facts["tokens"] if facts["learned"] else 0]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if [len(tokens), len(records), len(learned or ())] != expected:
        return None
    _touch(path / FACTS_FILE)
    names = list(files) if len(files) == len(facts["files"]) else facts["files"]
    return TokenStore(tokens, records, learned, names)


def _touch(path: Path) -> None:
    """Remember that tokens were asked for just now; a cache that may only be read remembers nothing."""
    with suppress(OSError):
        if abs(time.time() - path.stat().st_mtime) > _TOUCHED_SECONDS:
            os.utime(path)


def _written(path: Path) -> int:
    """Return how many bytes whoever makes these tokens has written; it may end at any moment."""
    found = 0
    for directory in path.parent.glob(f".{path.name}.*.tmp"):
        with suppress(OSError):  # it has got its name by now, or is somebody else's
            found += sum(each.stat().st_size for each in directory.iterdir())
    return found


def _unwritable(path: Path, error: OSError) -> StorageError:
    return StorageError(
        f"{path}: tokens of the data cannot be kept there: {error.strerror or error}",
        hint="free space, or name a directory of yours: paths.cache_dir in config.yaml, or WMTP_CACHE",
    )
