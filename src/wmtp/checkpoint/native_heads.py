"""Native heads as config.json counts them and as files hold them: the two are held to each other.

Nothing here knows a family. A module is told by the names of its tensors: a part named after multi-token prediction, or
a layer whose number is not one of the trunk's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from wmtp.checkpoint.tensors import TensorInfo

_COUNTS = ("num_nextn_predict_layers", "mtp_num_hidden_layers", "num_mtp_layers")
_NESTED = ("text_config", "mtp_config")
_NAMED = re.compile(r"(?:model\.)?mtp(?:_[a-z]+)*\.")
_LAYER = re.compile(r"(?:[A-Za-z_]\w*\.){0,3}layers\.(\d{1,6})\.")


def declared_counts(config: dict[str, Any]) -> dict[str, Any]:
    """Return every count of native modules in config.json, by its path there; null is no count."""
    places = [("", config), *((f"{name}.", config[name]) for name in _NESTED if isinstance(config.get(name), dict))]
    return {start + field: place[field] for start, place in places for field in _COUNTS if place.get(field) is not None}


def with_count(config: dict[str, Any], count: int) -> dict[str, Any]:
    """Return config.json with every count of native modules that it has set to one number."""
    changed = {key: count if key in _COUNTS and value is not None else value for key, value in config.items()}
    for name in _NESTED:
        if isinstance(changed.get(name), dict):
            changed[name] = with_count(changed[name], count)
    return changed


def native_tensors(config: dict[str, Any], tensors: Iterable[TensorInfo]) -> list[str]:
    """Return the names of the tensors that belong to native modules."""
    return [tensor.name for tensor in tensors if _is_native(tensor.name, set(_depths(config)))]


def _depths(config: dict[str, Any]) -> Iterator[int]:
    nested = config.get("text_config")
    for place in (config, nested if isinstance(nested, dict) else {}):
        if type(depth := place.get("num_hidden_layers")) is int:
            yield depth


def _is_native(name: str, depths: set[int]) -> bool:
    if _NAMED.match(name):
        return True
    number = _LAYER.match(name)
    return bool(number and depths) and int(number[1]) >= max(depths)  # type: ignore[index]
