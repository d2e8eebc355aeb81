"""What goes on beside a model: the state of its optimizer by the names of parameters, and values before rounding."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from wmtp.training.optimizer_step import value_parameters
from wmtp.training.sharding import shard_like

logger = logging.getLogger("wmtp")

# A kind that no optimizer of torch or transformers gives to what it keeps.
_UNROUNDED = "unrounded"


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


def unrounded_values(model: nn.Module) -> dict[str, Tensor]:
    """Return the float32 values of parameters that a checkpoint of the model holds in fewer bits, by name."""
    whole = {id(parameter) for parameter in value_parameters(model)}  # in checkpoints as they are
    held = {name: parameter.detach() for name, parameter in model.named_parameters() if id(parameter) not in whole}
    return {f"{_UNROUNDED}.{name}": value for name, value in held.items() if value.dtype == torch.float32}


@torch.no_grad()
def restore_unrounded(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give parameters that are float32 the values that `unrounded_values` returned; without any, nothing is done."""
    for name, parameter in model.named_parameters():
        value = tensors.get(f"{_UNROUNDED}.{name}")
        if value is None or parameter.dtype != value.dtype:
            continue
        if isinstance(parameter, DTensor):
            kept = shard_like(value, parameter)
            assert isinstance(kept, DTensor)
            parameter.to_local().copy_(kept.to_local())
        else:
            parameter.copy_(value)


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
        if kind == _UNROUNDED:
            continue
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
