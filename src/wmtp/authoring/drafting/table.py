"""transformers' own conversion of stored tensors, run on tensors without values to see what it makes of which."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    WeightConverter,
    WeightRenaming,
    WeightTransform,
    dot_natural_key,
    rename_source_key,
)

from wmtp.authoring.drafting.expressions import Expression, Stored, Untraceable, stored_in
from wmtp.authoring.drafting.recording import Recorded
from wmtp.untrusted import plain

# What transformers' operations raise when they are given tensors that they were not written for.
_FAILURES = (ValueError, TypeError, KeyError, AttributeError, IndexError, RuntimeError, NotImplementedError)


@dataclass
class Trace:
    """What transformers makes of stored tensors.

    Attributes:
        made: What each parameter is made of.
        untraceable: Why others are not known, a sentence each.
        elsewhere: Stored tensors that are for other parts of a larger model.
        changed: Stored tensors that become no parameter as they are.
    """

    made: dict[str, Expression] = field(default_factory=dict)
    untraceable: list[str] = field(default_factory=list)
    elsewhere: set[str] = field(default_factory=set)
    changed: set[str] = field(default_factory=set)


def trace_conversion(model: PreTrainedModel, stored: Mapping[str, Expression]) -> Trace:
    """Return what transformers would make of stored tensors, as `from_pretrained` of this class would load them.

    Args:
        model: The class that is to be filled; its parameters need no values.
        stored: Tensors by their names in the files.
    """
    # Follows convert_and_load_state_dict_in_model, which also reads, casts and assigns.
    transforms = get_model_conversion_mapping(model)
    converters = {
        pattern: each for each in transforms if isinstance(each, WeightConverter) for pattern in each.source_patterns
    }
    parameters = model.state_dict()
    jobs: dict[str, WeightConverter | WeightRenaming] = {}
    trace = Trace()
    for name in sorted(stored, key=dot_natural_key):
        target, pattern = _renamed(name, transforms, model, parameters)
        if target not in parameters:
            continue
        if pattern is None:
            job = jobs.setdefault(target, WeightRenaming(name, target))
        else:
            job = jobs.get(target) or jobs.setdefault(target, deepcopy(converters[pattern]))
        tensor = Recorded.of(stored[name], torch.float32)
        job.add_tensor(target, name, name if pattern is None else pattern, tensor)  # type: ignore[arg-type]
        trace.changed.update(stored_in(stored[name]))
    for target, job in jobs.items():
        _convert(job, target, model, trace)
    trace.changed -= {made.name for made in trace.made.values() if isinstance(made, Stored)}
    return trace


def _renamed(
    name: str, transforms: list[WeightTransform], model: PreTrainedModel, parameters: dict[str, Tensor]
) -> tuple[str, str | None]:
    renamings = [each for each in transforms if isinstance(each, WeightRenaming)]
    converters = [each for each in transforms if isinstance(each, WeightConverter)]
    target, pattern = rename_source_key(name, renamings, converters, model.base_model_prefix, parameters)
    if target not in parameters and name in parameters:
        return rename_source_key(name, [], [], model.base_model_prefix, parameters)
    return target, pattern


def _convert(job: WeightConverter | WeightRenaming, target: str, model: PreTrainedModel, trace: Trace) -> None:
    try:
        made = job.convert(target, model=model, config=model.config)
    except Untraceable as error:
        trace.untraceable.append(f"{plain(target)} is made by {error}")
        return
    except _FAILURES as error:
        trace.untraceable.append(f"{plain(target)} is not made by transformers: {plain(str(error))}")
        return
    for name, value in made.items():
        tensor = value[0] if isinstance(value, list) else value
        if isinstance(tensor, Recorded):
            trace.made[name] = tensor.expression
        else:
            trace.untraceable.append(f"{plain(name)} is made of values that are not stored")
