"""What happens around an optimizer step: a stop before damage, clipping, and the value heads' own rate."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import TrainerCallback
from typing_extensions import override

from wmtp.errors import TrainingError
from wmtp.models.value_heads import WithValueHead
from wmtp.untrusted import first_few, show


class AroundOptimizerStep(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """Stops before a step whose loss or gradient is not finite, which would destroy every weight; tells of its end.

    Args:
        losses: The loss of each micro-batch of the step that is being made; whoever computes them keeps the list.
        places: Returns where the documents of one of these micro-batches come from, by its number from 0.
        end_step: Called once the step is made.
    """

    def __init__(
        self, losses: Sequence[Tensor], places: Callable[[int], list[str]], end_step: Callable[[], None]
    ) -> None:
        self._losses, self._places, self._end_step = losses, places, end_step

    @override
    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        losses = torch.stack(list(self._losses)).tolist()
        step = state.global_step + 1
        for number, loss in enumerate(losses, start=1):
            if not math.isfinite(loss):
                problem = f"step {step}: the loss of micro-batch {number} of {len(losses)} is {loss}"
                _stop(problem, self._places(number - 1))
        gradients = [p.grad for p in kwargs["model"].parameters() if p.grad is not None]
        total = torch.nn.utils.get_total_norm(gradients)
        norm = float(total.full_tensor() if isinstance(total, DTensor) else total)  # of all shards
        if not math.isfinite(norm):
            places = [place for number in range(len(losses)) for place in self._places(number)]
            _stop(f"step {step}: the norm of the gradient is {norm}", places)

    @override
    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._end_step()


def value_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters of a model's value heads; none without them."""
    return list(model.value_heads.parameters()) if isinstance(model, WithValueHead) else []


def others(parameters: Iterable[Tensor], own: Iterable[Tensor]) -> list[Tensor]:
    """Return the parameters that are not among `own`."""
    known = {id(parameter) for parameter in own}
    return [parameter for parameter in parameters if id(parameter) not in known]


def give_own_rate(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], rate: float) -> None:
    """Move parameters to a group of their own: a rate that fine-tunes a trunk would leave value heads as they began."""
    for group in optimizer.param_groups:
        group["params"] = others(group["params"], parameters)
    optimizer.param_groups = [group for group in optimizer.param_groups if group["params"]]
    optimizer.add_param_group({"params": parameters, "lr": rate, "weight_decay": 0.0})


def _stop(problem: str, places: Sequence[str]) -> NoReturn:
    raise TrainingError(
        f"{problem}; stopped before the optimizer step, checkpoints written so far are untouched",
        hint="lower train.learning_rate, set train.max_grad_norm, or train with devices.dtype float32",
        faults=first_few([f"it has learned from {show(place)}" for place in places]),
    )
