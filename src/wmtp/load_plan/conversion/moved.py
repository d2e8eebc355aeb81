"""A mapping of a model, as that of a larger model which has it as a part; and back."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from wmtp.metadata.operations import Operation, Part
from wmtp.metadata.schema import StateDictMapping

_BEGIN = "^"


def moved_below(mapping: StateDictMapping, prefix: str, own: Iterable[str]) -> StateDictMapping:
    """Return the mapping for a model in which every parameter of the mapped one has a prefix.

    Args:
        mapping: That of the part.
        prefix: What stands in front of its names.
        own: The first parts of the names that the larger model has beside it; in files they are named as in the model.
    """
    added = prefix + (mapping.add_prefix or "")
    removed = {f"{_BEGIN}{re.escape(mapping.remove_prefix)}": ""} if mapping.remove_prefix else {}
    back = {f"{_BEGIN}{re.escape(f'{added}{part}.')}": f"{part}." for part in own}
    # The tensors of a rule are named before add_prefix: here that is a transform, so their names have it.
    rules = {prefix + target: _renamed(rule, lambda name: f"{added}{name}") for target, rule in mapping.tensors.items()}
    return StateDictMapping(key_transforms={**removed, **mapping.key_transforms, _BEGIN: added, **back}, tensors=rules)


def moved_above(mapping: StateDictMapping, prefix: str) -> StateDictMapping:
    """Return the mapping for a part of the mapped model, whose names lack a prefix there.

    Args:
        mapping: That of the larger model.
        prefix: What stands in front of the part's names in it.
    """
    transforms = dict(mapping.key_transforms)
    if transforms.pop(_BEGIN, None) == prefix:
        transforms = {k: v for k, v in transforms.items() if not k.startswith(f"{_BEGIN}{re.escape(prefix)}")}
    else:
        transforms = {**mapping.key_transforms, f"{_BEGIN}{re.escape(prefix)}": ""}
    rules = {
        target.removeprefix(prefix): _renamed(rule, lambda name: name.removeprefix(prefix))
        for target, rule in mapping.tensors.items()
        if target.startswith(prefix)
    }
    return StateDictMapping(remove_prefix=mapping.remove_prefix, key_transforms=transforms, tensors=rules)


def _renamed(rule: Operation, rename: Callable[[str], str]) -> Operation:
    """The same rule, of tensors with other names."""

    def renamed(part: Part) -> Part:
        return rename(part) if isinstance(part, str) else _renamed(part, rename)

    changes: dict[str, Any] = {
        field: [renamed(each) for each in value] if isinstance(value, list) else renamed(value)
        for field, value in vars(rule).items()
        if field in ("of", "scales")
    }
    return rule.model_copy(update=changes)
