"""Finding the state dict in what a pickle holds. Nothing is guessed: what is not clear is refused, with its keys."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from wmtp.errors import CheckpointError, FormatError
from wmtp.load_plan.parameters import DTYPE_NAMES
from wmtp.untrusted import first_few, show, show_all

_MAX_NAME_BYTES = 512
_SAVE_AGAIN = "save the file again with torch.save, from a state dict of plain tensors"


@dataclass(frozen=True)
class StateDict:
    """The tensors of a pickle.

    Attributes:
        tensors: By name; each plain, strided, on the CPU, and no larger than its storage.
        unwrapped: The entry that held them, or None for the top.
        dropped: What else was there, in words.
    """

    tensors: dict[str, Tensor]
    unwrapped: str | None
    dropped: tuple[str, ...]


def find_state_dict(loaded: Any, key: str | None) -> StateDict:
    """Return the tensors in what a pickle holds.

    They stand at the top, or in the one entry that is a mapping of tensors, or under `key`. Entries beside them that
    hold no tensor (a step, a version) are dropped and named, as no model has a place for them.

    Raises:
        CheckpointError: If it is not clear which tensors are meant, or some would be lost.
        FormatError: If a name or a tensor is one that safetensors cannot hold.
    """
    entries, unwrapped, dropped = _entries(loaded, key)
    tensors = {name: value for name, value in entries.items() if isinstance(value, Tensor)}
    rest = {name: value for name, value in entries.items() if name not in tensors}
    if nested := [name for name, value in rest.items() if _holds_tensors(value)]:
        raise CheckpointError(
            f"tensors stand beside entries that hold tensors themselves: {_shown_keys(nested)}",
            hint="say which entry holds the weights (key='NAME', --key NAME), so that none is lost",
        )
    dropped += [f"{_shown_key(name)} ({type(value).__name__})" for name, value in rest.items()]
    checked = {_checked_name(name): _checked(name, tensor) for name, tensor in tensors.items()}
    return StateDict(checked, unwrapped, tuple(dropped))


def check_expected(tensors: Mapping[str, Tensor], expected: Collection[str]) -> None:
    """Raise FormatError unless a shard has exactly the tensors that its index says."""
    absent, extra = sorted(set(expected) - set(tensors)), sorted(set(tensors) - set(expected))
    said = [f"{verb} {', '.join(show_all(names))}" for verb, names in (("lacks", absent), ("has", extra)) if names]
    if said:
        raise FormatError(
            f"differs from what the index says of it: {'; '.join(said)}",
            hint="fetch the index and the shards again, from one version",
        )


def _entries(loaded: Any, key: str | None) -> tuple[dict[Any, Any], str | None, list[str]]:
    if not isinstance(loaded, dict):
        raise CheckpointError(f"holds one {type(loaded).__name__}, not a state dict", hint=_SAVE_AGAIN)
    if key is None and _has_tensors(loaded):
        return loaded, None, []
    found = [name for name, value in loaded.items() if isinstance(name, str) and _has_tensors(value)]
    if key is not None and key not in found:
        raise CheckpointError(
            f"has no mapping of tensors under {show(key)}; its keys are: {_shown_keys(loaded)}",
            hint=f"name one that is: {', '.join(show_all(found)) or 'none is'}",
        )
    if key is None and len(found) != 1:
        raise CheckpointError(
            f"holds no tensors itself, and {len(found)} of its entries are mappings of tensors; its keys are:"
            f" {_shown_keys(loaded)}",
            hint=f"say which one to convert: key={show(found[0])} (--key {show(found[0])})" if found else _SAVE_AGAIN,
        )
    chosen = found[0] if key is None else key
    beside = [f"{_shown_key(name)} (beside {show(chosen)})" for name in loaded if name != chosen]
    # A pickle can hold text that is no Unicode; what is reported of it is.
    return loaded[chosen], chosen.encode("utf-8", "backslashreplace").decode(), beside


def _has_tensors(value: Any) -> bool:
    return isinstance(value, dict) and any(isinstance(held, Tensor) for held in value.values())


def _holds_tensors(value: Any) -> bool:
    seen: set[int] = set()
    left = [value]
    while left:  # a pickle may nest deeper than Python's stack, and in circles
        item = left.pop()
        if isinstance(item, Tensor):
            return True
        if id(item) in seen or not isinstance(item, (dict, list, tuple, set)):
            continue
        seen.add(id(item))
        left += item.values() if isinstance(item, dict) else item
    return False


def _shown_keys(keys: Collection[object]) -> str:
    return ", ".join(first_few([_shown_key(key) for key in keys])) or "none"


def _shown_key(key: object) -> str:
    # Of a key that is no text its type only: a tuple can be made so that writing it out never ends.
    return show(key) if isinstance(key, str) else f"a key of type {type(key).__name__}"


def _checked_name(name: object) -> str:
    if isinstance(name, str) and name.isprintable() and 0 < len(name.encode()) <= _MAX_NAME_BYTES:
        return name
    raise FormatError(
        f"a tensor stands under {_shown_key(name)}, which is empty, unprintable, no text, or longer than"
        f" {_MAX_NAME_BYTES} bytes",
        hint=_SAVE_AGAIN,
    )


def _checked(name: object, tensor: Tensor) -> Tensor:
    shown = _shown_key(name)
    is_plain = type(tensor) in (Tensor, nn.Parameter) and tensor.layout == torch.strided and not tensor.is_nested
    if not is_plain or tensor.device.type != "cpu":
        raise FormatError(
            f"{shown} is {tensor.layout} of type {type(tensor).__name__} on {tensor.device}", hint=_SAVE_AGAIN
        )
    if tensor.dtype not in DTYPE_NAMES:
        raise FormatError(f"{shown} has the dtype {tensor.dtype}, which wmtp does not load", hint=_SAVE_AGAIN)
    held = tensor.untyped_storage().nbytes()
    if tensor.nbytes > held:
        raise FormatError(
            f"{shown} of shape {list(tensor.shape)} claims {tensor.nbytes:,} bytes, its storage holds {held:,}",
            hint=_SAVE_AGAIN + ", each with all its values",
        )
    return tensor.detach().resolve_neg()
