"""What a scoring model is, in 64 digits: its weights, its configuration, its code, and how they are put together."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from wmtp.checkpoint.contents import Checkpoint
from wmtp.checkpoint.tokenizer import tokenizer_files, tokenizer_fingerprint
from wmtp.data.rows import RowDataset
from wmtp.faults import StrictModel
from wmtp.storage.replace import replace_file
from wmtp.storage.store import Store

# A file that was written to so recently may be written to again without its time changing.
_SETTLED_SECONDS = 2.0


class _Digest(StrictModel):
    version: str
    size: int
    sha256: str


class _Digests(StrictModel):
    uri: str
    files: dict[str, _Digest]


def model_fingerprint(checkpoint: Checkpoint, records: Path) -> str:
    """Return `sha256:<hex>` over everything that decides what a model answers to a text.

    Weights on this machine are hashed once, and again when a file's time, size or place changes. Of a file in an object
    store its address and version stand for its bytes.

    Args:
        checkpoint: The model.
        records: A directory that remembers digests of large files.
    """
    store = checkpoint.store
    weights = {tensor.file for tensor in checkpoint.tensors}
    code = {info.name for info in store.list_files() if info.name.endswith(".py")}
    names = sorted({"config.json", *weights, *code, *tokenizer_files(store)})
    return _sha256(
        {
            "files": _identities(store, names, records),
            "strategy": checkpoint.metadata.loading_strategy.model_dump(mode="json"),
            "architecture": checkpoint.metadata.base_architecture,
        }
    )


def tokenizer_identity(store: Store) -> str:
    """Return what tells a checkpoint's tokenizer from others, also where it has no file that is fingerprinted."""
    if found := tokenizer_fingerprint(store):
        return f"sha256:{found.sha256}"
    return _sha256({name: _hashed(store, name) for name in tokenizer_files(store)})


def scores_fingerprints(rows: RowDataset) -> dict[str, str]:
    """Return `sha256:<hex>` over the figures of each score that rows have, by its name: columns of the data too."""
    found = rows.table.scores.items()
    return {name: f"sha256:{hashlib.sha256(figures.values.tobytes()).hexdigest()}" for name, figures in found}


def _identities(store: Store, names: list[str], records: Path) -> dict[str, str]:
    if store.directory is None:
        return {name: _remote(store, name) for name in names}
    path = records / f"{hashlib.sha256(str(store.uri).encode()).hexdigest()[:32]}.json"
    known = _read(path, str(store.uri))
    found = {name: _known_or_hashed(store, name, known.files.get(name)) for name in names}
    settled = {name: digest for name, digest in found.items() if _has_settled(store.directory / name)}
    if settled != known.files:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, _Digests(uri=str(store.uri), files=settled).model_dump_json(indent=1).encode())
    return {name: digest.sha256 for name, digest in found.items()}


def _remote(store: Store, name: str) -> str:
    info = store.stat(name)
    return f"{store.where(name)} {info.size_bytes} {info.version}" if info.version else _hashed(store, name)


def _known_or_hashed(store: Store, name: str, known: _Digest | None) -> _Digest:
    info = store.stat(name)
    if known is not None and (known.version, known.size) == (info.version, info.size_bytes):
        return known
    return _Digest(version=info.version, size=info.size_bytes, sha256=_hashed(store, name))


def _hashed(store: Store, name: str) -> str:
    digest = hashlib.sha256()
    for data in store.stream(name):
        digest.update(data)
    return digest.hexdigest()


def _has_settled(path: Path) -> bool:
    return time.time() - path.stat().st_mtime > _SETTLED_SECONDS


def _read(path: Path, uri: str) -> _Digests:
    try:
        found = _Digests.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return _Digests(uri=uri, files={})
    return found if found.uri == uri else _Digests(uri=uri, files={})


def _sha256(value: Any) -> str:
    return f"sha256:{hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()}"
