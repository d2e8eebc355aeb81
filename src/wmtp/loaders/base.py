"""What every loading strategy is given and gives back, and the one path from a checkpoint to a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypedDict

import torch

from wmtp.checkpoint.assignment import assign_tensors, verify_assigned
from wmtp.checkpoint.bounds import Bounds
from wmtp.checkpoint.configuration import CONFIG_FILE
from wmtp.checkpoint.contents import Checkpoint, open_checkpoint
from wmtp.checkpoint.parameters import check_device, move_buffers, parameter_specs, target_dtype
from wmtp.checkpoint.plan import LoadPlan, make_plan
from wmtp.checkpoint.receipt import LoadReceipt
from wmtp.checkpoint.tokenizer import check_tokenizer
from wmtp.errors import CheckpointError, TrustError
from wmtp.loaders.construction import Blueprint, build_model, keep_initial_values
from wmtp.metadata.schema import ModelMetadata
from wmtp.registry import loading_strategies
from wmtp.storage.locked import Lock
from wmtp.trust.guards import construction_errors
from wmtp.untrusted import did_you_mean, show

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DTYPES = ("auto", "float32", "bfloat16", "float16")


class LoadKeywords(TypedDict, total=False):
    """The keyword arguments of everything that loads; `LoadOptions` says what they mean."""

    dtype: str
    device: str | torch.device
    algorithm: str | None
    allow_code: Mapping[str, str] | None
    allow_symlinks: bool
    lock: Lock | None
    cache_dir: str | Path | None
    cache: bool
    mmap: bool


@dataclass(frozen=True, kw_only=True)
class LoadOptions:
    """How the operator wants a checkpoint loaded.

    Attributes:
        dtype: `auto` (as stored), `float32`, `bfloat16` or `float16`.
        device: Any torch device: `cpu`, `cuda`, `cuda:1`, `mps`.
        algorithm: Refuse a model that does not declare itself fit for this algorithm.
        allow_code: Code that may run: `{"modeling.py": "sha256:<hex>"}`. Consent recorded by `wmtp trust` counts too.
        allow_symlinks: Follow links that leave the checkpoint's directory.
        lock: Digests that the files must have: a lock file's path, which pins the whole checkpoint, or
            `{"model.safetensors": "sha256:<hex>"}`, which pins the files that it names.
        cache_dir: Where files from object stores are kept. Local directories are never copied.
        cache: False: keep nothing on disk. Local directories are never copied.
        mmap: False: read files into private memory, so that changing them later cannot change the model. With a lock
            it is that memory which is verified.
    """

    dtype: str = "auto"
    device: str | torch.device = "cpu"
    algorithm: str | None = None
    allow_code: Mapping[str, str] | None = None
    allow_symlinks: bool = False
    lock: Lock | None = None
    cache_dir: str | Path | None = None
    cache: bool = True
    mmap: bool = True

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            hint = f"use one of {', '.join(DTYPES)}{did_you_mean(str(self.dtype), DTYPES)}"
            raise CheckpointError(f"dtype is {show(self.dtype)}", hint)
        consent: object = self.allow_code
        if not isinstance(consent, Mapping | None):
            hint = 'write allow_code={"modeling.py": "sha256:<hex>"}; \'wmtp trust\' shows the file and its hash'
            raise TrustError(f"allow_code is {show(consent)}, consent is given by hash", hint)


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
        from transformers import AutoTokenizer

        store = self.checkpoint.store
        if not (names := check_tokenizer(store)):
            return None
        directory = store.local_paths([*names, CONFIG_FILE])[CONFIG_FILE].parent
        with construction_errors(f"{store.uri}: {', '.join(names)}", "the tokenizer"):
            return AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)


def prepare(uri: Any, options: LoadOptions) -> PreparedLoad:
    """Open a checkpoint, build its model without weights, and prove the plan; no weight is read."""
    check_device(options.device)
    checkpoint = open_checkpoint(
        uri, allow_symlinks=options.allow_symlinks, algorithm=options.algorithm, lock=options.lock
    )
    strategy: LoadingStrategy = loading_strategies.create(checkpoint.metadata.loading_strategy.loader_type)
    dtype = target_dtype(checkpoint.tensors, options.dtype)
    blueprint = strategy.blueprint(checkpoint, options, dtype)
    model, notes = build_model(blueprint, dtype, Bounds.of_tensors(checkpoint.tensors))
    with blueprint.guard(blueprint.where):
        specs = parameter_specs(model)
    plan = make_plan(
        checkpoint,
        specs,
        model_class=show(type(model).__qualname__)[1:-1],
        keep_stored_dtype=blueprint.keep_stored_dtype and options.dtype == "auto",
        notes=notes,
    )
    return PreparedLoad(checkpoint, options, blueprint, model, plan)


def execute(prepared: PreparedLoad) -> LoadResult:
    """Carry out a proven plan: assign every tensor, and say what was done."""
    plan, checkpoint, blueprint, model = prepared.plan, prepared.checkpoint, prepared.blueprint, prepared.model
    store, device, mmap = checkpoint.store, prepared.options.device, prepared.options.mmap
    files = store.local_paths({assignment.tensor.file for assignment in plan.assignments})
    given = assign_tensors(model, plan.assignments, files, device=device, mmap=mmap, digests=store.verified)
    if plan.kept_initial:
        given |= keep_initial_values(model, blueprint, plan.kept_initial, device=device)
    move_buffers(model, device)
    with blueprint.guard(blueprint.where):
        verify_assigned(model, given, where=blueprint.where)
    receipt = LoadReceipt.of_plan(plan, device=str(device), code=blueprint.code, verified=store.verified)
    return LoadResult(model, checkpoint.metadata, receipt, plan, checkpoint)
