"""What a directory without a metadata.json is told: what it seems to be, and so what to do next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wmtp.errors import WmtpError
from wmtp.storage.store import Store
from wmtp.untrusted import MAX_JSON_BYTES, parse_json_object, plain

_CONFIG_FILE, _METADATA_FILE, _META_FILE = "config.json", "metadata.json", "params.json"
_MAX_NAMES = 4


def absent_hint(store: Store) -> str:
    """Return the next step for somebody who named a directory of this machine that has no metadata.json.

    A run's directory has checkpoints in it, and is what people name; a draft for it would be a wrong turn.
    """
    where = store.uri
    if names := _checkpoints_in(store):
        more = "" if len(names) <= _MAX_NAMES else ", …"
        return (
            f"name one of the checkpoints in it: {', '.join(f'{where}/{plain(n)}' for n in names[:_MAX_NAMES])}{more}"
        )
    if _holds_medusa_heads(store):
        return (
            "it holds Medusa heads alone, which servers read and wmtp does not load:"
            f" see which do by 'wmtp validate {where} --for vllm'"
        )
    if store.has(_META_FILE) and not store.has(_CONFIG_FILE):
        return f"it seems to be in the layout of Meta's releases: 'wmtp convert {where} DST' writes a checkpoint of it"
    return f"draft one with 'wmtp init {where}'"


def _checkpoints_in(store: Store) -> list[str]:
    """Return names of directories in this one that have a metadata.json, the result of a run first."""
    directory = store.directory
    if directory is None or store.has(_CONFIG_FILE):
        return []
    names = [path.parent.name for path in directory.glob(f"*/{_METADATA_FILE}")]
    return sorted((name for name in names if not name.startswith(".")), key=lambda name: (name != "final", name))


def _holds_medusa_heads(store: Store) -> bool:
    """Say whether a directory holds Medusa heads without their trunk, by its config.json."""
    if not store.has(_CONFIG_FILE):
        return False
    try:
        data = store.read_bytes(_CONFIG_FILE, max_bytes=MAX_JSON_BYTES)
        config = parse_json_object(data, where=_CONFIG_FILE, error=WmtpError)
    except WmtpError:  # whoever reads this file next says what is wrong with it
        return False
    return is_medusa(config)


def is_medusa(config: Mapping[str, Any]) -> bool:
    """Say whether a config.json is that of Medusa heads, in vLLM's form or in the reference's."""
    architectures = config.get("architectures")
    is_class = isinstance(architectures, list) and "MedusaModel" in architectures
    return config.get("model_type") == "medusa" or is_class or "medusa_num_heads" in config
