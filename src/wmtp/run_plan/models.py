"""The models of a run as their small files and headers describe them, and what these alone rule out."""

from __future__ import annotations

from collections.abc import Mapping

from wmtp.algorithms.base import Algorithm
from wmtp.checkpoint.contents import Checkpoint, open_checkpoint
from wmtp.factory import Resolution
from wmtp.models.packing import mixing_of, packing_refusal
from wmtp.run_plan.cost import online_roles
from wmtp.settings.config import Config
from wmtp.settings.recipe import Recipe


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
