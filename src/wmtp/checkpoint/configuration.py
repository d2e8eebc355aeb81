"""config.json and its companions, read strictly and held to what a checkpoint may configure."""

from __future__ import annotations

from typing import Any

from wmtp.errors import CheckpointError, MetadataError, TrustError
from wmtp.metadata.schema import ModelMetadata
from wmtp.storage.store import Store
from wmtp.untrusted import MAX_JSON_BYTES, parse_json_object, show

CONFIG_FILE = "config.json"
# Keys by which a file could pick other code, other kernels or another format than the operator agreed to.
_REFUSED = {
    CONFIG_FILE: ("auto_map", "_attn_implementation", "_attn_implementation_internal", "quantization_config"),
    "tokenizer_config.json": ("auto_map",),
    "generation_config.json": ("auto_map",),
}
_HEAD_COUNTS = ("n_future_tokens", "num_future_tokens")


def read_config(store: Store) -> dict[str, Any]:
    """Return config.json, after it and the files beside it were checked for keys that a checkpoint may not set.

    Raises:
        CheckpointError: If a file is not strict JSON.
        TrustError: If one asks for remote code, a quantization backend, an attention kernel or an adapter.
    """
    present = [name for name in _REFUSED if store.has(name)]
    documents = {name: read_json(store, name) for name in present}
    for name, document in documents.items():
        _check_keys(f"{store.uri / name}", document, _REFUSED[name])
    if store.has("adapter_config.json"):
        raise TrustError(
            f"{store.uri / 'adapter_config.json'}: an adapter beside the weights would change the model",
            hint="merge the adapter into the weights and save them, or move the file away",
        )
    if CONFIG_FILE not in documents:
        return read_json(store, CONFIG_FILE)  # raises: no such file
    return documents[CONFIG_FILE]


def read_json(store: Store, name: str) -> dict[str, Any]:
    """Return a small JSON object of a checkpoint, read strictly."""
    data = store.read_bytes(name, max_bytes=MAX_JSON_BYTES)
    return parse_json_object(data, where=f"{store.uri / name}", error=CheckpointError)


def check_declaration(metadata: ModelMetadata, config: dict[str, Any], *, where: str) -> None:
    """Refuse a metadata.json that config.json contradicts.

    Raises:
        MetadataError: If architecture or number of heads differ, naming both values; all faults at once.
    """
    faults = []
    model_type = config.get("model_type")
    if model_type is not None and model_type != metadata.base_architecture:
        declared = show(metadata.base_architecture)
        faults.append(f"base_architecture is {declared}, but config.json has model_type {show(model_type)}")
    if metadata.loading_strategy.transformers_class is None and metadata.num_heads is not None:
        faults += [
            f"declares {metadata.num_heads} heads, but config.json has {field} {show(found)}"
            for field, found in _declared_heads(config)
            if found != metadata.num_heads
        ]
    if faults:
        first, *others = [f"{where}/metadata.json: {fault}" for fault in faults]
        raise MetadataError(
            first, hint="correct the one that is wrong, or load the checkpoint these weights came from", faults=others
        )


def _declared_heads(config: dict[str, Any]) -> list[tuple[str, Any]]:
    nested = config.get("mtp_config")
    found = [(field, config[field]) for field in _HEAD_COUNTS if field in config]
    if isinstance(nested, dict):
        found += [(f"mtp_config.{field}", nested[field]) for field in _HEAD_COUNTS if field in nested]
    return found


def _check_keys(where: str, document: dict[str, Any], refused: tuple[str, ...]) -> None:
    found = [key for key in refused if document.get(key) is not None]
    if document.get("trust_remote_code") is True:
        found.append("trust_remote_code")
    if found:
        shown = ", ".join(f"{key} = {show(document[key])}" for key in found)
        raise TrustError(
            f"{where}: {shown}: a checkpoint may not set this",
            hint=f"remove {' and '.join(found)} from the file; code is declared as custom_module_file in metadata.json",
        )
