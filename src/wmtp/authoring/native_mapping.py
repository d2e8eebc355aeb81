"""How experts of trunk and modules are merged: what transformers does with trunk layers, said of the modules too."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from wmtp.authoring.mapping import needed_mapping
from wmtp.checkpoint.contents import Checkpoint
from wmtp.checkpoint.native_heads import native_names
from wmtp.errors import WmtpError
from wmtp.load_plan.mapping import map_names
from wmtp.metadata.heads import MTPInfo
from wmtp.metadata.schema import LoadingStrategy, ModelMetadata, StateDictMapping

_LAYER = re.compile(r"model\.(?:language_model\.)?layers\.(?:\{\w+\}|\d+)\.")
_BLOCK = "heads.{i}.mtp_block."
_PLACE = re.compile(r"\\\{\w+\\\}")


def with_made_parameters(checkpoint: Checkpoint, notes: list[str]) -> ModelMetadata:
    """Return the drafted metadata of a checkpoint with native heads, with rules for the parameters that are made.

    Args:
        checkpoint: With a draft that names what every tensor becomes, and nothing else.
        notes: Gets a sentence where the trunk's tensors are not known to become its parameters.
    """
    metadata = checkpoint.metadata
    assert metadata.mtp is not None
    try:
        fields = needed_mapping(_of_trunk(checkpoint, metadata.mtp)).fields
    except WmtpError as error:
        notes.append(f"state_dict_mapping.tensors: none; the trunk alone does not load: {error.problem}")
        return metadata
    mapping = metadata.loading_strategy.state_dict_mapping
    names = map_names(mapping, [tensor.name for tensor in checkpoint.tensors], where=checkpoint.where)
    rules = dict(_rules(fields.get("tensors", {}), {each.name for each in names.values()}))
    changes = {"tensors": rules, "allow_unexpected": fields.get("allow_unexpected", [])}
    if not any(changes.values()):
        return metadata
    mapped = StateDictMapping.model_validate(mapping.model_dump(exclude_defaults=True) | changes)
    strategy = metadata.loading_strategy.model_copy(update={"state_dict_mapping": mapped})
    return metadata.model_copy(update={"loading_strategy": strategy})


def _of_trunk(checkpoint: Checkpoint, mtp: MTPInfo) -> Checkpoint:
    """The checkpoint without its modules, declared as a plain causal LM."""
    declared = checkpoint.metadata
    conventions = mtp.conventions
    assert conventions is not None
    strategy = LoadingStrategy(
        loader_type="huggingface",
        transformers_class=conventions.trunk_class or "AutoModelForCausalLM",
        required_files=declared.loading_strategy.required_files,
    )
    architecture = conventions.trunk_type or declared.base_architecture
    changes = {"loading_strategy": strategy, "mtp": None, "base_architecture": architecture}
    native = set(native_names(checkpoint.config, [tensor.name for tensor in checkpoint.tensors]))
    tensors = [tensor for tensor in checkpoint.tensors if tensor.name not in native]
    return replace(checkpoint, metadata=declared.model_copy(update=changes), tensors=tensors)


def _rules(of_trunk: Mapping[str, Any], names: set[str]) -> Iterator[tuple[str, Any]]:
    for target, rule in of_trunk.items():
        # Names in rules are those after the transforms, by which all of the trunk is in `trunk.`.
        yield f"trunk.{target}", _renamed(rule, r"^", "trunk.")
        if _LAYER.match(target):
            of_block = _renamed(rule, _LAYER.pattern, _BLOCK)
            if all(_is_there(part, names) for part in _leaves(of_block)):
                yield _LAYER.sub(_BLOCK, target), of_block


def _renamed(rule: Any, pattern: str, text: str) -> Any:
    if isinstance(rule, str):
        return re.sub(pattern, lambda _: text, rule)
    if isinstance(rule, list):
        return [_renamed(part, pattern, text) for part in rule]
    return {key: _renamed(part, pattern, text) if key in ("of", "scales") else part for key, part in rule.items()}


def _leaves(rule: Any) -> Iterator[str]:
    if isinstance(rule, str):
        yield rule
    elif isinstance(rule, list):
        for part in rule:
            yield from _leaves(part)
    else:
        yield from _leaves(rule["of"])


def _is_there(name: str, names: set[str]) -> bool:
    pattern = re.compile(_PLACE.sub(r"\\d+", re.escape(name)))
    return any(pattern.fullmatch(each) for each in names)
