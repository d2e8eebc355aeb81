"""Where the tokens of data are kept, and what is there: read without numpy, so that the cache can be looked after."""

from __future__ import annotations

import shutil
import time
from contextlib import suppress
from pathlib import Path

from wmtp.storage.cache import default_root

TOKENS_FILE, RECORDS_FILE, LEARNED_FILE, FACTS_FILE = "tokens.bin", "documents.npy", "learned.bin", "store.json"
_OLD_SECONDS = 24 * 3600


class TokenDirectory:
    """The directory of stores of tokens on this machine.

    Args:
        cache_dir: The cache; None: its usual place.

    Raises:
        StorageError: If no such place is known.
    """

    def __init__(self, cache_dir: str | None = None) -> None:
        self.root = (Path(cache_dir) if cache_dir else default_root()) / "data"


def sweep_abandoned(root: Path) -> int:
    """Remove what killed processes left long ago below the directory of tokens; returns how many bytes it was."""
    num_bytes = 0
    for path in root.glob(".tokens-*.tmp"):
        with suppress(OSError):
            found = [each.stat() for each in [path, *path.iterdir()]]
            if time.time() - max(each.st_mtime for each in found) > _OLD_SECONDS:
                shutil.rmtree(path)
                num_bytes += sum(each.st_size for each in found[1:])
    return num_bytes
