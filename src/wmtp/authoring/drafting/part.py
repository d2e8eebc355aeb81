"""A text model from the files of a larger model: what transformers makes of them for that one, under its own names."""

from __future__ import annotations

from collections.abc import Mapping

from transformers import PreTrainedModel

from wmtp.authoring.drafting.expressions import Expression, stored_in
from wmtp.authoring.drafting.table import Trace, trace_conversion


def trace_part(model: PreTrainedModel, whole: PreTrainedModel, stored: Mapping[str, Expression]) -> Trace | None:
    """Return what parameters of a model are made of, where a larger model has it as a part.

    Args:
        model: The class that is to be filled.
        whole: The class that the files are of.
        stored: Tensors by their names in the files.

    Returns:
        None where the larger model has no such part.
    """
    base = model.base_model
    paths = [name for name, module in whole.named_modules() if name and type(module) is type(base)]
    if len(paths) != 1 or base is model:
        return None
    own = f"{model.base_model_prefix}."
    outer = [name for name in model.state_dict() if not name.startswith(own)]  # the unembedding
    found = trace_conversion(whole, stored)
    trace = Trace(untraceable=found.untraceable)
    for name, made in found.made.items():
        inner = name.removeprefix(f"{paths[0]}.")
        if inner != name:
            trace.made[own + inner] = made
        elif alike := [each for each in outer if f".{name}".endswith(f".{each}")]:
            trace.made[alike[0]] = made
        else:
            trace.elsewhere.update(stored_in(made))
    return trace
