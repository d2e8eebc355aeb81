"""The state of an optimizer by the names of parameters: as tensors and numbers, and put back from them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from wmtp.training.sharding import shard_like

logger = logging.getLogger("wmtp")


def optimizer_state(optimizer: Optimizer, model: nn.Module) -> tuple[dict[str, Tensor], dict[str, float | int]]:
    """Return what an optimizer keeps for each parameter: tensors and numbers, each by `<kind>.<parameter>`."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, float | int] = {}
    for parameter, kept in optimizer.state.items():
        for kind, value in kept.items():
            key = f"{kind}.{names[id(parameter)]}"
            if isinstance(value, Tensor):
                tensors[key] = value
            elif value is not None:
                numbers[key] = value
    return tensors, numbers


def restore_optimizer(
    optimizer: Optimizer, model: nn.Module, tensors: Mapping[str, Tensor], numbers: Mapping[str, float | int]
) -> None:
    """Give an optimizer what `optimizer_state` returned; rates and the like stay as the recipe has them now.

    What belongs to parameters that are not trained any more is left aside, and the log says so.
    """
    places, parameters = _places(optimizer, model), dict(model.named_parameters())
    state: dict[int, dict[str, Any]] = {}
    left = []
    for key, value in {**tensors, **numbers}.items():
        kind, _, name = key.partition(".")
        if name in places:
            kept = shard_like(value, parameters[name]) if isinstance(value, Tensor) else value
            state.setdefault(places[name], {})[kind] = kept
        else:
            left.append(key)
    if left:
        logger.warning("the optimizer's state of %d parameters is left aside: they are not trained now", len(left))
    optimizer.load_state_dict(optimizer.state_dict() | {"state": state})


def restore_schedule(schedule: LambdaLR, optimizer: Optimizer, step: int) -> None:
    """Put a schedule of learning rates where it is after so many steps.

    All schedules that a recipe can name are a factor for each step; so where nothing has changed, these are the rates
    that it had then.
    """
    schedule.last_epoch, schedule._step_count = step, step + 1
    rates = [rate * factor(step) for rate, factor in zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)]
    schedule._last_lr = rates
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate


def _places(optimizer: Optimizer, model: nn.Module) -> dict[str, int]:
    """Return the number of each trained parameter, as state dicts count them: through all groups in order."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return {names[id(parameter)]: number for number, parameter in enumerate(trained)}
