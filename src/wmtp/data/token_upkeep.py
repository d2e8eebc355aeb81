"""What keeps the tokens of data small: which are kept, and removing those that are not used."""

from __future__ import annotations

import json
import shutil
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from wmtp.data.token_directory import FACTS_FILE, TokenDirectory, sweep_abandoned
from wmtp.errors import StorageError
from wmtp.storage.cache import VerifiedCache
from wmtp.storage.cached.locks import remove_lock
from wmtp.storage.cached.upkeep import Removed, prune


@dataclass(frozen=True)
class KeptTokens:
    """The tokens of some data.

    Attributes:
        files: The data's files, as they were called when it was read.
        num_bytes: On the disk.
        last_used: When a run last asked for it, to a minute, in seconds since 1970.
        path: Where it is.
    """

    files: Sequence[str]
    num_bytes: int
    last_used: float
    path: Path


@dataclass(frozen=True)
class Pruned:
    """What was removed.

    Attributes:
        cache: Files of checkpoints.
        tokens: Tokens of data.
        num_bytes: How many bytes the disk got back.
    """

    cache: Removed
    tokens: Sequence[KeptTokens]
    num_bytes: int


def kept_tokens(cache: TokenDirectory) -> list[KeptTokens]:
    """Return all tokens that are kept, the least recently used first."""
    found = []
    for path in cache.root.glob("tokens-*"):
        with suppress(OSError):
            if path.is_dir():
                sizes = [each.lstat().st_size for each in path.iterdir()]
                facts = path / FACTS_FILE
                last_used = (facts if facts.exists() else path).lstat().st_mtime
                found.append(KeptTokens(_files(facts), sum(sizes), last_used, path))
    return sorted(found, key=lambda kept: kept.last_used)


def prune_all(
    cache: VerifiedCache, tokens: TokenDirectory, *, unused_for_seconds: float | None, max_bytes: int | None
) -> Pruned:
    """Remove checkpoints and tokens that were not used for long, then the least recently used of both.

    What broken downloads and killed processes have left goes as well. Processes that have files mapped keep them.

    Args:
        cache: Files of checkpoints.
        tokens: Tokens of data.
        unused_for_seconds: Remove what nobody asked for in so long; None: age does not matter.
        max_bytes: How large all may be together; None: size does not matter.

    Raises:
        StorageError: If something cannot be removed.
    """
    num_bytes = sweep_abandoned(tokens.root)
    oldest = time.time() - unused_for_seconds if unused_for_seconds is not None else float("-inf")
    kept = kept_tokens(tokens)
    chosen = [each for each in kept if each.last_used < oldest]
    rest = [each for each in kept if each not in chosen]
    if max_bytes is not None:
        chosen += _too_many(rest, cache, oldest, max_bytes)
    num_bytes += sum(map(_remove, chosen))
    left = None if max_bytes is None else max_bytes - sum(each.num_bytes for each in kept if each not in chosen)
    removed = prune(cache, unused_for_seconds=unused_for_seconds, max_bytes=left)
    return Pruned(removed, chosen, num_bytes + removed.num_bytes)


def _too_many(rest: Sequence[KeptTokens], cache: VerifiedCache, oldest: float, max_bytes: int) -> list[KeptTokens]:
    """Return the tokens among the least recently used of everything, whose removal makes the others fit."""
    entries = [entry for entry in cache.entries() if entry.last_used >= oldest]
    blobs: dict[str, tuple[float, int]] = {}  # one that several checkpoints have counts once, by its last use
    for entry in entries:
        last_used = max(entry.last_used, blobs.get(entry.sha256, (0.0, 0))[0])
        blobs[entry.sha256] = (last_used, entry.source.size_bytes)
    items = [(each.last_used, each.num_bytes, each) for each in rest]
    everything = sorted([*items, *((*blob, None) for blob in blobs.values())], key=lambda item: item[0])
    num_bytes = sum(item[1] for item in everything)
    chosen = []
    for _, own, tokens in everything:
        if num_bytes <= max_bytes:
            break
        num_bytes -= own
        chosen += [tokens] if tokens is not None else []
    return chosen


def _remove(kept: KeptTokens) -> int:
    """Remove tokens, so that nobody sees a part of them; returns their bytes."""
    doomed = kept.path.with_name(f".{kept.path.name}.{uuid.uuid4().hex}.tmp")
    try:
        kept.path.rename(doomed)
        shutil.rmtree(doomed)
    except OSError as error:
        raise StorageError(
            f"{kept.path}: cannot be removed: {error.strerror}",
            hint="check who owns the cache, and its permissions",
        ) from error
    remove_lock(kept.path.with_name(f"{kept.path.name}.lock"))
    return kept.num_bytes


def _files(facts: Path) -> list[str]:
    try:
        named = json.loads(facts.read_bytes())["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [str(name) for name in named] if isinstance(named, list) else []
