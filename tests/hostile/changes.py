"""The one thing that is wrong with a case: functions that return a change of a draft."""

from __future__ import annotations

import json
from typing import Any

from hostile.case import Change
from hostile.draft import INDEX, WEIGHTS, Draft, Tensor, sharded

OUTSIDE = "../outside"


def meta(**fields: Any) -> Change:
    """Set fields of metadata.json."""
    return lambda draft: draft.metadata.update(fields)


def strategy(**fields: Any) -> Change:
    """Set fields of `loading_strategy`."""
    return lambda draft: draft.strategy.update(fields)


def mapping(**fields: Any) -> Change:
    """Set `state_dict_mapping`."""
    return strategy(state_dict_mapping=fields)


def config(**keys: Any) -> Change:
    """Set keys of config.json."""
    return lambda draft: draft.config.update(keys)


def file(name: str, data: bytes | str | dict[str, Any] | None) -> Change:
    """Add or replace a file; an object is written as JSON, None leaves the file out."""
    content = json.dumps(data) if isinstance(data, dict) else data
    return lambda draft: draft.files.update({name: content.encode() if isinstance(content, str) else content})


def weights(data: bytes) -> Change:
    """Put other bytes in place of model.safetensors."""
    return file(WEIGHTS, data)


def tensors(**changed: Tensor | None) -> Change:
    """Set tensors; `__` in a name stands for `.`, and None removes one."""
    return tensors_named({name.replace("__", "."): tensor for name, tensor in changed.items()})


def tensors_named(changed: dict[str, Tensor | None]) -> Change:
    """Set tensors; None removes one."""

    def change(draft: Draft) -> None:
        for name, tensor in changed.items():
            if tensor is None:
                del draft.tensors[name]
            else:
                draft.tensors[name] = tensor

    return change


def without(*path: str) -> Change:
    """Remove a field of metadata.json by its path."""

    def change(draft: Draft) -> None:
        place = draft.metadata
        for part in path[:-1]:
            place = place[part]
        del place[path[-1]]

    return change


def index(**changed: Any) -> Change:
    """Write the weights in two shards with an index, and set keys of the index."""

    def change(draft: Draft) -> None:
        found = {**sharded(draft), **changed}
        draft.files[INDEX] = json.dumps(found).encode()

    return change


def entries(**changed: Any) -> Change:
    """Write the weights in two shards with an index, and set entries of its `weight_map` as `tensors` does."""

    def change(draft: Draft) -> None:
        found = sharded(draft)
        for name, shard in changed.items():
            found["weight_map"][name.replace("__", ".")] = shard
        draft.files[INDEX] = json.dumps(found).encode()

    return change


def shard_at(name: str) -> Change:
    """Keep the second shard under another name, which the index gives truthfully."""

    def change(draft: Draft) -> None:
        found = sharded(draft, ("model-00001-of-00002.safetensors", "second.safetensors"))
        data = draft.files.pop("second.safetensors")
        weight_map = {
            tensor: shard.replace("second.safetensors", name) for tensor, shard in found["weight_map"].items()
        }
        draft.files[INDEX] = json.dumps({**found, "weight_map": weight_map}).encode()

        def put(directory: Any) -> None:
            path = (directory / name).resolve()
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data or b"")

        if not name.startswith(("/", "~")) and "\0" not in name and "://" not in name:
            draft.after.append(put)

    return change
