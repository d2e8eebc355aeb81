"""Native heads as config.json counts them and as files hold them: the two are held to each other.

Nothing here knows a family. A module is told by the names of its tensors: a part named after multi-token prediction, or
a layer whose number is not one of the trunk's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from wmtp.errors import CheckpointError
from wmtp.metadata.schema import ModelMetadata
from wmtp.untrusted import show
from wmtp.wording import counted

COUNTS = ("num_nextn_predict_layers", "mtp_num_hidden_layers", "num_mtp_layers")
_NESTED = ("text_config", "mtp_config")
_NAMED = re.compile(r"(?:model\.)?mtp(?:_[a-z]+)*\.")
_LAYER = re.compile(r"(?:[A-Za-z_]\w*\.){0,3}layers\.(\d{1,6})\.")


def declared_counts(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return every count of native modules in config.json, by its path there; null is no count."""
    places = [("", config), *((f"{name}.", config[name]) for name in _NESTED if isinstance(config.get(name), dict))]
    return {start + field: place[field] for start, place in places for field in COUNTS if place.get(field) is not None}


def with_count(config: Mapping[str, Any], count: int) -> dict[str, Any]:
    """Return config.json with every count of native modules that it has set to one number."""
    changed = {key: count if key in COUNTS and value is not None else value for key, value in config.items()}
    for name in _NESTED:
        nested = config.get(name)
        if isinstance(nested, dict):
            changed[name] = with_count(nested, count)
    return changed


def native_names(config: Mapping[str, Any], names: Iterable[str]) -> list[str]:
    """Return those names of tensors that belong to native modules."""
    depths = set(_depths(config))
    return [name for name in names if _is_native(name, depths)]


def further_layers(config: Mapping[str, Any], names: Iterable[str]) -> set[str]:
    """Return the tensors of layers behind the trunk's last that have only what the trunk's own layers have.

    These are layers of a deeper model, of which config.json counts too few, and no heads: a module has something more,
    a projection or norms of what goes in. Where config.json counts native modules, nothing is said to be a layer.
    """
    depth = max(_depths(config), default=None)
    if depth is None or any(declared_counts(config).values()):
        return set()
    layered = list(_in_layers(name for name in names if not _NAMED.match(name)))
    own = {kind for _, number, kind in layered if number < depth}
    heads = {number for _, number, kind in layered if number >= depth and kind not in own}
    return {name for name, number, _ in layered if number >= depth and number not in heads}


def counting_what_is_there(metadata: ModelMetadata, config: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Return config.json as it is to be written: it counts no native modules where none are written."""
    is_known = metadata.loading_strategy.custom_module_file is None and (
        metadata.mtp is None or metadata.mtp.kind != "sequential"
    )
    return with_count(config, 0) if is_known and not native_names(config, names) else dict(config)


def check_native_heads(metadata: ModelMetadata, config: Mapping[str, Any], names: Iterable[str], *, where: str) -> None:
    """Refuse a checkpoint that declares native modules which its files do not hold, or counts others than it declares.

    A class of the checkpoint's own names its parts as it likes; and a model that is only to score may have lost its
    modules, as servers are not to draft with it.

    Raises:
        CheckpointError: Naming the field that is not true, with what to do.
    """
    if metadata.loading_strategy.custom_module_file is not None:
        return
    held, counts = list(names), declared_counts(config)
    is_native = metadata.mtp is not None and metadata.mtp.conventions is not None
    if metadata.mtp is not None and metadata.mtp.conventions is not None:
        _check_counts(counts, len(metadata.mtp.conventions.block_like), where)
    if native_names(config, held) or any(name.startswith("heads.") for name in held):
        return
    if is_native:
        _refuse(f"{where}/metadata.json: mtp declares native modules")
    elif metadata.wmtp_type == "base_model" and (wrong := [field for field in counts if counts[field] != 0]):
        _refuse(f"{where}/config.json: {wrong[0]} is {show(counts[wrong[0]])}")


def _check_counts(counts: Mapping[str, Any], modules: int, where: str) -> None:
    for field, found in counts.items():
        if type(found) is not int or found != modules:
            raise CheckpointError(
                f"{where}/config.json: {field} is {show(found)}, but mtp.conventions.block_like in metadata.json"
                f" declares {counted(modules, 'native module')}",
                hint="correct the one that is wrong, or load the checkpoint these weights came from",
            )


def _refuse(said: str) -> None:
    raise CheckpointError(
        f"{said}, and the files hold no tensor of a native module",
        hint="take the checkpoint that still has them (a save by a library that does not know them drops them); or"
        " declare none: set the count in config.json to 0, and no mtp in metadata.json",
    )


def _depths(config: Mapping[str, Any]) -> Iterator[int]:
    nested = config.get("text_config")
    for place in (config, nested if isinstance(nested, dict) else {}):
        if type(depth := place.get("num_hidden_layers")) is int:
            yield depth


def _in_layers(names: Iterable[str]) -> Iterator[tuple[str, int, str]]:
    """Yield names of tensors in layers, with the layer's number, and what the name is without it."""
    for name in names:
        if found := _LAYER.match(name):
            yield name, int(found[1]), name[: found.start(1)] + name[found.end(1) :]


def _is_native(name: str, depths: set[int]) -> bool:
    if _NAMED.match(name):
        return True
    number = _LAYER.match(name)
    return number is not None and bool(depths) and int(number[1]) >= max(depths)
