"""What a run does to the trunk under the heads: trains it, keeps the heads' losses from it, or leaves it as it is."""

from __future__ import annotations

import logging

from torch import nn

from wmtp.errors import TrainingError
from wmtp.models.adapter import unwrapped
from wmtp.models.mtp import MTPForCausalLM
from wmtp.models.native import NativeMTPForCausalLM
from wmtp.settings.heads import Trunk

logger = logging.getLogger("wmtp")


def set_trunk(model: nn.Module, trunk: Trunk, horizon: int) -> None:
    """Make a model train its trunk as the recipe says, and say so in the log where that is not as usual.

    Args:
        model: What `trainable` returned.
        trunk: `mtp.trunk` of the recipe.
        horizon: Heads that are trained.

    Raises:
        TrainingError: If the model's class cannot do that, or nothing would be left to train.
    """
    if trunk == "trained":
        return
    inner = unwrapped(model)
    needed = NativeMTPForCausalLM if trunk == "detached" else MTPForCausalLM
    if not isinstance(inner, needed):
        raise TrainingError(
            f"mtp.trunk is {trunk}, and the base model's class {type(inner).__name__} cannot do that",
            hint=f"set mtp.trunk: trained; only models of the class {needed.__name__} have a trunk that can be {trunk}",
        )
    if trunk == "frozen" and horizon == 1:
        raise TrainingError(
            "mtp.trunk is frozen, and only the next-token head is trained, which is the trunk's own: nothing learns",
            hint="train more heads (mtp.horizon), or set mtp.trunk: trained",
        )
    if isinstance(inner, NativeMTPForCausalLM):
        inner.detach_trunk = trunk == "detached"
    if trunk == "frozen":
        inner.trunk.requires_grad_(False)
        logger.info("the trunk is frozen: heads 2 to %d alone are trained", horizon)
    else:
        logger.info("the trunk is detached: it learns from the next-token loss alone")
