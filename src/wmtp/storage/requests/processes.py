"""Which process may speak to object stores: obstore's threads live in the first that used one, and are not forked."""

from __future__ import annotations

import os

from wmtp.errors import StorageError

_first: dict[str, int] = {}


def refuse_forked() -> None:
    """Raise StorageError in a process that was forked after the first use: obstore's threads are not in it."""
    if _first.setdefault("pid", os.getpid()) != os.getpid():
        raise StorageError(
            f"process {os.getpid()} was forked from one that had used an object store, and cannot use one itself",
            hint="start processes with the method 'spawn' (multiprocessing.get_context), or use the store in them only",
        )
