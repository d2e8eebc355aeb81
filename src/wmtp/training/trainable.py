"""What of a model a run trains: everything, its heads alone, adapters on its trunk; heads first where that is asked."""

from __future__ import annotations

import logging
from typing import Any

from torch import nn
from transformers import PreTrainedModel, TrainerCallback
from typing_extensions import override

from wmtp.errors import TrainingError
from wmtp.models.adapter import unwrapped
from wmtp.models.mtp import MTPForCausalLM
from wmtp.models.native import NativeMTPForCausalLM
from wmtp.run_plan.trained import check_warmup, refuse_class, refuse_headless, unusual
from wmtp.settings.recipe import Recipe
from wmtp.settings.trainable import keeps_trunk
from wmtp.training.lora import add_adapters

logger = logging.getLogger("wmtp")


def set_trainable(model: nn.Module, recipe: Recipe, horizon: int) -> None:
    """Make a model train the part of it that the recipe names, and say so in the log where that is not everything.

    The trunk is the whole causal LM, its embedding and its unembedding too, whichever heads use them.

    Args:
        model: What `trainable` returned.
        recipe: `train.trainable`, `train.lora` and `mtp.trunk` of it.
        horizon: Heads that are trained.

    Raises:
        TrainingError: If the model's class cannot do that, nothing would be left to train, or there are no layers of
            the names that adapters are asked for.
    """
    inner = unwrapped(model)
    if recipe.mtp.trunk == "detached":
        _detach(inner)
    if (setting := unusual(recipe)) is None:
        return
    trunk = trunk_of(inner, setting)
    keeps = keeps_trunk(recipe.train, recipe.mtp.trunk)
    if horizon == 1 and (keeps or recipe.train.heads_warmup_steps):
        refuse_headless(
            setting, type(inner).__name__, has_more=isinstance(inner, MTPForCausalLM) and inner.num_heads > 1
        )
    if keeps and isinstance(inner, MTPForCausalLM):  # others have one head
        trunk.requires_grad_(False)
        # What is served has no dropout; `mtp.trunk: frozen` never said so, and its runs stay as they are.
        inner.keeps_trunk = recipe.train.trainable == "heads"
        logger.info("the trunk is frozen: heads 2 to %d alone are trained", horizon)
    if recipe.train.lora is not None:
        add_adapters(trunk, recipe.train.lora, recipe.run.seed)


def trunk_of(inner: nn.Module, setting: str) -> PreTrainedModel:
    """Return the causal LM that a model's heads stand on, the model itself where it has none.

    Raises:
        TrainingError: If the class does not show it.
    """
    if isinstance(inner, MTPForCausalLM):
        return inner.trunk
    if not isinstance(inner, PreTrainedModel):
        refuse_class(setting, f"the class {type(inner).__name__}")
    return inner


class HeadsFirst(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """Trains heads alone for the first steps of a run, and everything that the recipe names after them.

    The trunk is in the optimizer from the first step on, without state until it has a gradient, so that both end in one
    schedule of the learning rate. Which of the two is at work follows from the number of the step alone.

    Args:
        model: What is trained.
        recipe: `train.heads_warmup_steps` of it.
    """

    def __init__(self, model: nn.Module, recipe: Recipe) -> None:
        self._steps = recipe.train.heads_warmup_steps
        trunk = trunk_of(unwrapped(model), f"train.heads_warmup_steps is {self._steps}")
        self._later = [parameter for parameter in trunk.parameters() if parameter.requires_grad]
        self._waits = False

    @override
    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        check_warmup(self._steps, state.max_steps)

    @override
    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        waits = state.global_step < self._steps
        if waits == self._waits:
            return
        self._waits = waits
        for parameter in self._later:
            parameter.requires_grad_(not waits)
        first, what = state.global_step + 1, "heads alone are trained" if waits else "the trunk is trained too"
        logger.info("from step %d on %s", first, what)


def _detach(inner: nn.Module) -> None:
    if not isinstance(inner, NativeMTPForCausalLM):
        needed = NativeMTPForCausalLM.__name__
        raise TrainingError(
            f"mtp.trunk is detached, and the base model's class {type(inner).__name__} cannot do that",
            hint=f"set mtp.trunk: trained; only models of the class {needed} have a trunk that can be detached",
        )
    inner.detach_trunk = True
    logger.info("the trunk is detached: it learns from the next-token loss alone")
