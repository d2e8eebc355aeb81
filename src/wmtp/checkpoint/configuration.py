"""config.json and its companions, read strictly and held to what a checkpoint may configure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from wmtp.errors import CheckpointError, MetadataError, TrustError
from wmtp.metadata.schema import ModelMetadata
from wmtp.storage.store import Store
from wmtp.untrusted import MAX_INDEX_BYTES, MAX_JSON_BYTES, first_few, parse_json_object, plain, show

CONFIG_FILE = "config.json"
GENERATION_FILE = "generation_config.json"
_TOKENIZER_FILE = "tokenizer_config.json"
# transformers takes each by several names, and the value may name a kernel to fetch from the Hub.
_KERNELS = (
    *("attn_implementation", "_attn_implementation", "_attn_implementation_internal"),
    *("experts_implementation", "_experts_implementation", "_experts_implementation_internal"),
)
# Keys by which a file could pick other code, kernels, weights or files than the operator agreed to. attribute_map gives
# any of them another name.
_REFUSED = {
    CONFIG_FILE: re.compile("|".join(("auto_map", "quantization_config", "attribute_map", "sub_configs", "backbone",
                                      r"__(?!float__)\w+__", *_KERNELS))),
    _TOKENIZER_FILE: re.compile(r"auto_map|source_spm|target_spm|(?!special_tokens_map_)\w+_files?"),
    GENERATION_FILE: re.compile("auto_map"),
}  # fmt: skip
_REFUSED_IF_TRUE = ("trust_remote_code", "use_pretrained_backbone", "use_timm_backbone")
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
    max_bytes = MAX_INDEX_BYTES if name == _TOKENIZER_FILE else MAX_JSON_BYTES
    data = store.read_bytes(name, max_bytes=max_bytes)
    return parse_json_object(data, where=f"{store.uri / name}", error=CheckpointError, max_bytes=max_bytes)


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
        declared = f"{_heads_field(metadata)} is {metadata.num_heads}"
        faults += [
            f"{declared}, but config.json has {field} {show(found)}"
            for field, found in _declared_heads(config)
            if type(found) is not int or found != metadata.num_heads  # True == 1, but is no number of heads
        ]
    if faults:
        first, *others = [f"{where}/metadata.json: {fault}" for fault in faults]
        raise MetadataError(
            first, hint="correct the one that is wrong, or load the checkpoint these weights came from", faults=others
        )


def _heads_field(metadata: ModelMetadata) -> str:
    if metadata.mtp is not None:
        return "mtp.n_future_tokens"
    return "horizon" if metadata.horizon is not None else "n_heads"


def _declared_heads(config: dict[str, Any]) -> list[tuple[str, Any]]:
    nested = config.get("mtp_config")
    places = [("", config), ("mtp_config.", nested if isinstance(nested, dict) else {})]
    return [
        (start + field, place[field])
        for start, place in places
        for field in _HEAD_COUNTS
        if place.get(field) is not None
    ]


def _check_keys(where: str, document: dict[str, Any], refused: re.Pattern[str]) -> None:
    found = [f"{plain(path)} = {show(value)}" for path, value in _refused_values(document, refused)]
    if found:
        raise TrustError(
            f"{where}: {', '.join(first_few(found))}: a checkpoint may not set this",
            hint="remove it from the file; code is declared as custom_module_file in metadata.json",
        )


def _refused_values(value: Any, refused: re.Pattern[str], path: str = "") -> Iterator[tuple[str, Any]]:
    """Sub-models read the same keys from the objects inside, in lists as well."""
    if isinstance(value, list):
        for position, item in enumerate(value):
            yield from _refused_values(item, refused, f"{path}{position}.")
    elif isinstance(value, dict):
        for key, item in value.items():
            if (refused.fullmatch(key) and item is not None) or (key in _REFUSED_IF_TRUE and item):
                yield path + key, item
            else:
                yield from _refused_values(item, refused, f"{path}{key}.")
