"""A text model from the files of a larger model: what transformers makes of them for that one, under its own names."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn
from transformers import PreTrainedModel

from wmtp.authoring.drafting.expressions import Expression, stored_in
from wmtp.authoring.drafting.table import Trace, trace_conversion

_TELLING_PARTS = 2  # of a parameter's name: module and kind, such as `q_proj.weight`


def trace_part(model: PreTrainedModel, whole: PreTrainedModel, stored: Mapping[str, Expression]) -> Trace:
    """Return what parameters of a model are made of, where a larger model has it as a part.

    Where no part of the larger model is surely this one, it is what transformers makes of the files for the model
    alone, as far as it makes the same of them for the larger one.

    Args:
        model: The class that is to be filled.
        whole: The class that the files are of.
        stored: Tensors by their names in the files.
    """
    found = trace_conversion(whole, stored)
    place = _place(model, whole)
    if place is not None:
        return _cut_out(found, model, *place)
    trace = _agreed(trace_conversion(model, stored), found)
    names = (
        f"{type(whole).__name__}, which the files are of, has no one part that is {type(model).__name__} or its body"
    )
    trace.untraceable.insert(0, names)
    return trace


def _place(model: PreTrainedModel, whole: PreTrainedModel) -> tuple[str, str] | None:
    """What begins the names of the largest module that both have, in the one and in the other."""
    modules: dict[type[nn.Module], list[str]] = {}
    for name, module in whole.named_modules():
        if name:
            modules.setdefault(type(module), []).append(f"{name}.")
    for name, module in model.named_modules():
        places = modules.get(type(module), []) if isinstance(module, PreTrainedModel) else []
        if len(places) == 1:
            return f"{name}." if name else "", places[0]
    return None


def _cut_out(found: Trace, model: PreTrainedModel, own: str, theirs: str) -> Trace:
    outer = [name for name in model.state_dict() if not name.startswith(own)]  # the unembedding
    trace = Trace(untraceable=found.untraceable, changed=found.changed)
    for name, made in found.made.items():
        if name.startswith(theirs):
            trace.made[own + name.removeprefix(theirs)] = made
        else:
            trace.elsewhere.update(stored_in(made))
    for name in outer:
        # One of its name at the top of the larger model before those of the other parts.
        alike = [each for each in found.made if f".{each}".endswith(f".{name}") and not each.startswith(theirs)]
        if name in alike or len(alike) == 1:
            trace.made[name] = found.made[name if name in alike else alike[0]]
            trace.elsewhere.difference_update(stored_in(trace.made[name]))
    return trace


def _agreed(alone: Trace, found: Trace) -> Trace:
    """What both say; of the rest, that they differ."""
    theirs = {(made, _telling(name)) for name, made in found.made.items()}
    differing = [name for name, made in alone.made.items() if (made, _telling(name)) not in theirs]
    said = [f"{name} is made otherwise for the larger model that the files are of" for name in differing]
    trace = Trace(untraceable=[*said, *alone.untraceable], changed=alone.changed | found.changed)
    trace.made = {name: made for name, made in alone.made.items() if name not in differing}
    trace.changed.update(each for name in differing for each in stored_in(alone.made[name]))
    own = {each for made in alone.made.values() for each in stored_in(made)}
    trace.elsewhere = {each for made in found.made.values() for each in stored_in(made)} - own
    return trace


def _telling(name: str) -> tuple[str, ...]:
    return tuple(name.split(".")[-_TELLING_PARTS:])
