"""Building a model without its weights: parameters on the meta device, buffers real, initialisation off."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.utils.weak import WeakIdKeyDictionary
from transformers import PreTrainedModel
from transformers.initialization import no_init_weights
from transformers.modeling_utils import local_torch_dtype

from wmtp.checkpoint.parameters import parameter_slots
from wmtp.errors import CheckpointError, WmtpError
from wmtp.untrusted import show

# The contexts that switch initialisation off and set the default dtype are global to the process.
_CONSTRUCTION = threading.RLock()


@contextmanager
def construction_errors(where: str) -> Iterator[None]:
    """Turn what a class of transformers or of wmtp raises while it is built into an error that names the file."""
    try:
        yield
    except (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, WmtpError):
            raise
        raise CheckpointError(
            f"{where}: the model cannot be built from it: {type(error).__name__}: {show(str(error))}",
            hint="compare config.json with the one that the weights were saved with",
        ) from error


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


def build_model(blueprint: Blueprint, dtype: torch.dtype) -> tuple[nn.Module, list[str]]:
    """Build a model whose parameters have shapes but no values, and whose buffers are those of plain construction.

    A class that reads its parameters while it is built cannot be built that way; it is then built on the CPU without
    initialisation, and a note says so.

    Returns:
        The model in eval mode, with ties applied, and notes for the receipt.
    """
    with _CONSTRUCTION, local_torch_dtype(dtype), no_init_weights():
        try:
            with blueprint.guard(blueprint.where), _parameters_on_meta():
                model, notes = blueprint.construct(), []
        except WmtpError:
            with blueprint.guard(blueprint.where):
                model, notes = (
                    blueprint.construct(),
                    ["built on the CPU: the class reads its parameters while it is built"],
                )
    with blueprint.guard(blueprint.where):
        for module in _outermost_pretrained(model):
            module.tie_weights()
        model.eval()
    return model, notes


def keep_initial_values(
    model: nn.Module, blueprint: Blueprint, names: Sequence[str], *, device: str | torch.device
) -> None:
    """Give the named parameters the values of a plain, initialised construction: no tensor fills them."""
    with _CONSTRUCTION, local_torch_dtype(next(model.parameters()).dtype), blueprint.guard(blueprint.where):
        initial = dict(parameter_slots(blueprint.construct()))
    slots = dict(parameter_slots(model))
    for name in names:
        slots[name].assign(initial[name].tensor.detach().to(device))


def _outermost_pretrained(module: nn.Module) -> Iterator[PreTrainedModel]:
    if isinstance(module, PreTrainedModel):
        yield module  # ties its own sub-models
        return
    for child in module.children():
        yield from _outermost_pretrained(child)


@contextmanager
def _parameters_on_meta() -> Iterator[None]:
    """Move each parameter to the meta device as it is registered.

    Buffers stay real, so they have the values of plain construction; and a parameter registered under two names stays
    one object, so ties are seen. `torch.device("meta")` gives neither.
    """
    original = nn.Module.register_parameter
    moved = WeakIdKeyDictionary()

    def register(module: nn.Module, name: str, param: nn.Parameter | None) -> None:
        if type(param) is nn.Parameter and param.device.type != "meta":
            on_meta = moved.get(param)
            if on_meta is None:
                on_meta = nn.Parameter(torch.empty_like(param, device="meta"), requires_grad=param.requires_grad)
                moved[param] = on_meta
            param = on_meta
        original(module, name, param)

    nn.Module.register_parameter = register  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        nn.Module.register_parameter = original  # type: ignore[method-assign]
