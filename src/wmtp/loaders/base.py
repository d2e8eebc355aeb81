"""What every loading strategy is given and gives back, and the one path from a checkpoint to a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import torch

from wmtp.checkpoint.contents import Checkpoint, open_checkpoint
from wmtp.devices import check_device
from wmtp.load_plan.bounds import Bounds
from wmtp.load_plan.filling import assign_initial, assign_tensors, verify_assigned
from wmtp.load_plan.matching import make_plan
from wmtp.load_plan.parameters import move_buffers, parameter_slots, parameter_specs, target_dtype
from wmtp.load_plan.plan import LoadPlan
from wmtp.load_plan.receipt import LoadReceipt
from wmtp.loaders.construction import Blueprint, build_initialised, build_model
from wmtp.loaders.tokenizer import load_tokenizer
from wmtp.metadata.schema import ModelMetadata
from wmtp.registry import loading_strategies
from wmtp.settings.loading import LoadOptions
from wmtp.untrusted import plain

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from wmtp.load_plan.matching import make_plan
from wmtp.load_plan.parameters import ParameterSlot


class LoadingStrategy(Protocol):
    """Finds the class that a checkpoint declares; everything after that is the same for all strategies."""

    def blueprint(self, checkpoint: Checkpoint, options: LoadOptions, dtype: torch.dtype) -> Blueprint:
        """Return how to build the declared model, or raise a WmtpError that names the field at fault."""
        ...


@dataclass(frozen=True)
class PreparedLoad:
    """A proven plan, with the model that it will fill."""

    checkpoint: Checkpoint
    options: LoadOptions
    blueprint: Blueprint
    model: torch.nn.Module
    slots: dict[str, ParameterSlot]
    plan: LoadPlan


@dataclass(frozen=True)
class LoadResult:
    """A loaded model, with everything that says where it came from.

    Attributes:
        model: The model, in eval mode.
        metadata: The checkpoint's declaration.
        receipt: What was loaded, per parameter.
        plan: The plan that was carried out.
        checkpoint: The checkpoint's files, configuration and headers.
    """

    model: torch.nn.Module
    metadata: ModelMetadata
    receipt: LoadReceipt
    plan: LoadPlan
    checkpoint: Checkpoint

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase | None:
        """The checkpoint's tokenizer, loaded on first use; None when it has no tokenizer files.

        Raises:
            CheckpointError: If transformers cannot make one of those files.
        """
        return load_tokenizer(self.checkpoint)


def prepare(uri: Any, options: LoadOptions) -> PreparedLoad:
    """Open a checkpoint, build its model without weights, and prove the plan; no weight is read."""
    check_device(options.device)
    checkpoint = open_checkpoint(uri, algorithm=options.algorithm, lock=options.lock, **options.access)
    strategy: LoadingStrategy = loading_strategies.create(checkpoint.metadata.loading_strategy.loader_type)
    dtype = target_dtype(checkpoint.tensors, options.dtype)
    blueprint = strategy.blueprint(checkpoint, options, dtype)
    model, notes = build_model(blueprint, dtype, Bounds.of_tensors(checkpoint.tensors))
    with blueprint.guard(blueprint.where):
        slots = dict(parameter_slots(model))
        specs = parameter_specs(slots.items())
    plan = make_plan(
        checkpoint,
        specs,
        model_class=plain(type(model).__qualname__),
        keep_stored_dtype=blueprint.keep_stored_dtype and options.dtype == "auto",
        notes=[*checkpoint.notes, *notes],
    )
    return PreparedLoad(checkpoint, options, blueprint, model, slots, plan)


def execute(prepared: PreparedLoad, assign: Callable[..., dict[str, torch.Tensor]] = assign_tensors) -> LoadResult:
    """Carry out a proven plan: assign every tensor (or what else `assign` does in its place), and say what was done."""
    plan, checkpoint, blueprint, model = prepared.plan, prepared.checkpoint, prepared.blueprint, prepared.model
    store, device = checkpoint.store, prepared.options.device
    given = assign(prepared.slots, plan.assignments, store, device=device, mmap=prepared.options.mmap)
    if plan.kept_initial:
        initial = build_initialised(blueprint, next(model.parameters()).dtype)
        given |= assign_initial(prepared.slots, initial, plan.kept_initial, device=device)
    move_buffers(model, device)
    with blueprint.guard(blueprint.where):
        verify_assigned(model, given, where=blueprint.where)
    receipt = LoadReceipt.of_plan(plan, device=str(device), code=blueprint.code, verified=store.verified)
    return LoadResult(model, checkpoint.metadata, receipt, plan, checkpoint)
