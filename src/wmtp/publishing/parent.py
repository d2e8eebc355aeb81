"""What a checkpoint that is written takes over from the one it came from: its name in the record, and its files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wmtp.checkpoint.configuration import CONFIG_FILE
from wmtp.checkpoint.contents import processor_files, small_files
from wmtp.checkpoint.headers import weight_files
from wmtp.loaders.base import LoadResult
from wmtp.manifest import digest_path


def parent_record(loaded: LoadResult) -> dict[str, Any]:
    """Return what identifies a checkpoint as the parent of another: address, and a digest of each file that counts."""
    store = loaded.checkpoint.store
    names = [CONFIG_FILE, *weight_files(store)]
    files = [digest_path(path, name) for name, path in store.local_paths(names).items()]
    return {"uri": str(store.uri), "files": [file.model_dump() for file in files]}


def copied_files(loaded: LoadResult) -> dict[str, bytes | Path]:
    """Return a checkpoint's files for tokens, generation and processors, for a model that is used in the same way."""
    store = loaded.checkpoint.store
    names = [name for name in small_files(store) if name != CONFIG_FILE]
    return {**store.local_paths([*names, *processor_files(store)])}
