"""What to do about a directory without a metadata.json."""

from __future__ import annotations

from wmtp.storage.store import Store

_LAST = "final"  # what a training run calls its last checkpoint


def next_step(store: Store) -> str:
    """Return what to type: of a run its last checkpoint, of anything else what drafts the file."""
    if store.has(f"{_LAST}/metadata.json"):
        return f"this is the directory of a run: name a checkpoint of it, such as {store.uri / _LAST}"
    return f"draft one with 'wmtp init {store.uri}'"
