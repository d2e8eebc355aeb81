"""Building a model without its weights: parameters without values, buffers real, initialisation off."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.initialization import no_init_weights
from transformers.modeling_utils import local_torch_dtype

from wmtp.errors import PlanError, WmtpError
from wmtp.load_plan.allocation import build_within_bounds
from wmtp.load_plan.bounds import Bounds
from wmtp.trust.guards import construction_errors

# The contexts that switch initialisation off and set the default dtype are global to the process.
_CONSTRUCTION = threading.RLock()


@dataclass(frozen=True)
class Blueprint:
    """How to build the model that a checkpoint declares.

    Attributes:
        construct: Builds it; torch's default dtype is then the target dtype.
        where: The file that the class is built from, as errors show it.
        keep_stored_dtype: Whether every parameter may keep the dtype in which it is stored.
        code: `file: sha256:<hex>` of the checkpoint's own code that this runs; empty for built-in classes.
        guard: Turns what the class raises into a WmtpError.
    """

    construct: Callable[[], nn.Module]
    where: str
    keep_stored_dtype: bool
    code: dict[str, str] = field(default_factory=dict)
    guard: Callable[[str], AbstractContextManager[None]] = construction_errors


def build_model(blueprint: Blueprint, dtype: torch.dtype, bounds: Bounds) -> tuple[nn.Module, list[str]]:
    """Build a model whose parameters have shapes but no values, and whose buffers are those of plain construction.

    A class that reads its parameters while it is built cannot be built that way; it is then built on the CPU without
    initialisation, and a note says so.

    Returns:
        The model in eval mode, with ties applied, and notes for the receipt.
    """
    with _CONSTRUCTION, local_torch_dtype(dtype), no_init_weights():
        model, notes = _construct(blueprint, bounds)
    with blueprint.guard(blueprint.where):
        if dtype != torch.float32 and not blueprint.code:
            _compute_tables(model)
        for module in _outermost_pretrained(model):
            module.tie_weights()
        model.eval()
    return model, notes


def _construct(blueprint: Blueprint, bounds: Bounds) -> tuple[nn.Module, list[str]]:
    build = partial(build_within_bounds, blueprint.construct, blueprint.guard, bounds, where=blueprint.where)
    try:
        return build(parameters_on_meta=True), []
    except PlanError:
        raise
    except WmtpError:
        return build(parameters_on_meta=False), ["built on the CPU: the class reads its parameters while it is built"]


@torch.no_grad()
def _compute_tables(model: nn.Module) -> None:
    """Compute buffers that no file holds once more, in float32 where the class lets them, as `from_pretrained` does."""
    waiting: list[tuple[nn.Module | None, PreTrainedModel | None]] = [(model, None)]
    while waiting:
        module, owner = waiting.pop()
        if module is not None:
            owner = module if isinstance(module, PreTrainedModel) else owner
            if owner is not None and module._non_persistent_buffers_set:
                owner._init_weights(module)
            waiting += [(child, owner) for child in module._modules.values()]


def build_initialised(blueprint: Blueprint, dtype: torch.dtype) -> nn.Module:
    """Build a model as plain construction does, with random values in its parameters."""
    with _CONSTRUCTION, local_torch_dtype(dtype), blueprint.guard(blueprint.where):
        return blueprint.construct()


def _outermost_pretrained(module: nn.Module) -> Iterator[PreTrainedModel]:
    if isinstance(module, PreTrainedModel):
        yield module  # ties its own sub-models
        return
    for child in module.children():
        yield from _outermost_pretrained(child)
