"""config.json and its companions, read strictly and held to what a checkpoint may configure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from wmtp.checkpoint.quantisation import without_quantisation
from wmtp.checkpoint.refused_keys import IN_CONFIG, IN_GENERATION, IN_TOKENIZER_SETTINGS, check_keys
from wmtp.errors import CheckpointError, MetadataError, TrustError
from wmtp.metadata.schema import ModelMetadata
from wmtp.storage.store import Store
from wmtp.untrusted import MAX_INDEX_BYTES, MAX_JSON_BYTES, parse_json_object, show

CONFIG_FILE = "config.json"
GENERATION_FILE = "generation_config.json"
_TOKENIZER_FILE = "tokenizer_config.json"
_REFUSED = {CONFIG_FILE: IN_CONFIG, _TOKENIZER_FILE: IN_TOKENIZER_SETTINGS, GENERATION_FILE: IN_GENERATION}
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
        check_keys(f"{store.uri / name}", without_quantisation(document), _REFUSED[name])
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
    max_bytes = MAX_INDEX_BYTES if name == _TOKENIZER_FILE else MAX_JSON_BYTES
    data = store.read_bytes(name, max_bytes=max_bytes)
    return parse_json_object(data, where=f"{store.uri / name}", error=CheckpointError, max_bytes=max_bytes)


def check_declaration(metadata: ModelMetadata, config: dict[str, Any], *, where: str) -> None:
    """Refuse a metadata.json that config.json contradicts.

    Raises:
        MetadataError: If architecture, number or type of heads differ, naming both values; all faults at once.
    """
    faults = []
    model_type = config.get("model_type")
    if model_type is not None and model_type != metadata.base_architecture:
        declared = show(metadata.base_architecture)
        faults.append(f"base_architecture is {declared}, but config.json has model_type {show(model_type)}")
    if metadata.loading_strategy.transformers_class is None:
        faults += _faults_of_heads(metadata, config)
    if faults:
        first, *others = [f"{where}/metadata.json: {fault}" for fault in faults]
        raise MetadataError(
            first, hint="correct the one that is wrong, or load the checkpoint these weights came from", faults=others
        )


def _faults_of_heads(metadata: ModelMetadata, config: dict[str, Any]) -> Iterator[str]:
    nested = config.get("mtp_config")
    nested = nested if isinstance(nested, dict) else {}
    if metadata.num_heads is not None:
        for field, found in _declared_heads(config, nested):
            if type(found) is not int or found != metadata.num_heads:  # True == 1, but is no number of heads
                declared = f"{_heads_field(metadata)} is {metadata.num_heads}"
                yield f"{declared}, but config.json has {field} {show(found)}"
    declared_type, found = metadata.mtp and metadata.mtp.head_type, nested.get("head_type")
    if None not in (declared_type, found) and found != declared_type:
        yield f"mtp.head_type is {show(declared_type)}, but config.json has mtp_config.head_type {show(found)}"


def _heads_field(metadata: ModelMetadata) -> str:
    if metadata.mtp is not None:
        return "mtp.n_future_tokens"
    return "horizon" if metadata.horizon is not None else "n_heads"


def _declared_heads(config: dict[str, Any], nested: dict[str, Any]) -> list[tuple[str, Any]]:
    places = [("", config), ("mtp_config.", nested)]
    return [
        (start + field, place[field])
        for start, place in places
        for field in _HEAD_COUNTS
        if place.get(field) is not None
    ]
