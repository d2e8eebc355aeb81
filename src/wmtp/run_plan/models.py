"""The models of a run as their small files and headers describe them, and what these alone rule out."""

from __future__ import annotations

import re
from collections.abc import Mapping

from wmtp.algorithms.base import Algorithm
from wmtp.checkpoint.contents import Checkpoint, open_checkpoint
from wmtp.factory import Resolution
from wmtp.models.packing import mixing_of, packing_refusal
from wmtp.run_plan.cost import online_roles
from wmtp.settings.config import Config
from wmtp.settings.quantize import PACKAGES, Bits, Quantize
from wmtp.settings.recipe import Recipe

_IN_A_LAYER = re.compile(r"\.\d{1,6}\.")
# Of a weight, with its scales: one for each row, and one in float32 for each block of 64.
_BYTES = {"int8": 1, "nf4": 0.5 + 4 / 64}


def open_models(config: Config, resolution: Resolution) -> dict[str, Checkpoint]:
    """Return the model that was picked for each role, without its weights."""
    cache_dir = config.paths.cache_dir
    return {role: open_checkpoint(found.uri, cache_dir=cache_dir) for role, found in resolution.chosen.items()}


def require_apart(recipe: Recipe, algorithm: Algorithm, opened: Mapping[str, Checkpoint]) -> None:
    """Refuse rows of several documents for a model that is known to let them see each other.

    Asked are the model to train and those that score its batches; a class of the checkpoint's own is asked when it
    runs, as may any model be of which nothing is known.

    Raises:
        TrainingError: Naming the model, and the setting to change.
    """
    if not recipe.data.packs:
        return
    for role in ("base", *sorted(online_roles(algorithm))):
        checkpoint = opened[role]
        why = mixing_of(checkpoint.config)
        if why is not None and checkpoint.metadata.loading_strategy.custom_module_file is None:
            raise packing_refusal(checkpoint.where, why)


def scoring_bytes(checkpoint: Checkpoint, bits: Bits | None, width: int) -> int:
    """Return about how many bytes the weights of a model take that only scores.

    Args:
        checkpoint: The model.
        bits: Into how many the weights of its layers are put; None: none fewer.
        width: Bytes of a parameter that is left as it is.
    """
    total = sum(tensor.num_elements for tensor in checkpoint.tensors)
    if bits is None:
        return total * width
    in_layers = [tensor for tensor in checkpoint.tensors if len(tensor.shape) == 2 and _IN_A_LAYER.search(tensor.name)]
    few = sum(tensor.num_elements for tensor in in_layers)
    return round(few * _BYTES[bits]) + (total - few) * width


def quantised_notes(quantize: Quantize, opened: Mapping[str, Checkpoint]) -> list[str]:
    """Return which of the models that score do so in fewer bits, a line each."""
    found = {role: quantize.of(role) for role in opened}
    return [
        f"{role} scores with its linear layers in {bits}, by {PACKAGES[bits]}" for role, bits in found.items() if bits
    ]
