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

from wmtp.checkpoint.headers import FLOATING, TensorInfo
from wmtp.checkpoint.plan import ParameterSpec
from wmtp.errors import CheckpointError, WmtpError
from wmtp.untrusted import show

TORCH_DTYPES = {
    "BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "I16": torch.int16, "I32": torch.int32, "I64": torch.int64,
    "U16": torch.uint16, "U32": torch.uint32, "U64": torch.uint64,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
    "F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64,
}  # fmt: skip
DTYPE_NAMES = {dtype: name for name, dtype in TORCH_DTYPES.items()}

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
    guard: Callable[[str], AbstractContextManager[None]] | None = None


def target_dtype(tensors: Sequence[TensorInfo], asked: str) -> torch.dtype:
    """Return the dtype to build in: the one asked for, or with `auto` the one in which most bytes are stored."""
    if asked != "auto":
        return getattr(torch, asked)
    sizes: dict[str, int] = {}
    for tensor in tensors:
        if tensor.dtype in FLOATING:
            sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + tensor.num_bytes
    return TORCH_DTYPES[max(sizes, key=lambda name: sizes[name])] if sizes else torch.float32


def build_model(blueprint: Blueprint, dtype: torch.dtype) -> tuple[nn.Module, list[str]]:
    """Build a model whose parameters have shapes but no values, and whose buffers are those of plain construction.

    A class that reads its parameters while it is built cannot be built that way; it is then built on the CPU without
    initialisation, and a note says so.

    Returns:
        The model in eval mode, with ties applied, and notes for the receipt.
    """
    guard = blueprint.guard or _construction_errors
    with _CONSTRUCTION, _default_dtype(dtype), no_init_weights():
        try:
            with guard(blueprint.where), _parameters_on_meta():
                model, notes = blueprint.construct(), []
        except WmtpError:
            with guard(blueprint.where):
                model, notes = (
                    blueprint.construct(),
                    ["built on the CPU: the class reads its parameters while it is built"],
                )
    with guard(blueprint.where):
        for module in _outermost_pretrained(model):
            module.tie_weights()
        model.eval()
    return model, notes


def keep_initial_values(
    model: nn.Module, blueprint: Blueprint, names: Sequence[str], *, device: str | torch.device
) -> None:
    """Give the named parameters the values of a plain, initialised construction: no tensor fills them."""
    guard = blueprint.guard or _construction_errors
    with _CONSTRUCTION, _default_dtype(next(model.parameters()).dtype), guard(blueprint.where):
        initial = dict(parameter_slots(blueprint.construct()))
    slots = dict(parameter_slots(model))
    for name in names:
        slots[name].assign(initial[name].tensor.detach().to(device))


def finish_model(model: nn.Module, *, device: str | torch.device) -> None:
    """Move the buffers that no tensor filled to where the parameters are."""
    for module in model.modules():
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = buffer.to(device)


@dataclass(frozen=True, slots=True)
class ParameterSlot:
    """Where one parameter or persistent buffer hangs in a model."""

    owner: nn.Module
    attribute: str

    @property
    def tensor(self) -> torch.Tensor:
        """What hangs there now."""
        found = self.owner._parameters.get(self.attribute)
        held = found if found is not None else self.owner._buffers[self.attribute]
        assert held is not None
        return held

    def assign(self, value: torch.Tensor) -> None:
        """Hang other values there; a parameter keeps `requires_grad`, and one given as a Parameter keeps identity."""
        if self.attribute in self.owner._buffers:
            self.owner._buffers[self.attribute] = value
        elif isinstance(value, nn.Parameter):
            self.owner._parameters[self.attribute] = value
        else:
            self.owner._parameters[self.attribute] = nn.Parameter(value, requires_grad=self.tensor.requires_grad)


def parameter_slots(model: nn.Module) -> Iterator[tuple[str, ParameterSlot]]:
    """Yield every parameter and persistent buffer by every name it has, as `state_dict` would name it.

    Read from the modules themselves: `state_dict` may be overridden by a checkpoint's own class.
    """
    for prefix, module in model.named_modules(remove_duplicate=False):
        start = f"{prefix}." if prefix else ""
        for name, parameter in module._parameters.items():
            if parameter is not None:
                yield start + name, ParameterSlot(module, name)
        for name, buffer in module._buffers.items():
            if buffer is not None and name not in module._non_persistent_buffers_set:
                yield start + name, ParameterSlot(module, name)


def parameter_specs(model: nn.Module) -> list[ParameterSpec]:
    """Return what a model needs to be filled; parameters that are one object have one entry with several names."""
    names: dict[int, list[str]] = {}
    tensors: dict[int, torch.Tensor] = {}
    for name, slot in parameter_slots(model):
        tensor = slot.tensor
        names.setdefault(id(tensor), []).append(name)
        tensors[id(tensor)] = tensor
    return [
        ParameterSpec(tuple(names[key]), tuple(tensor.shape), DTYPE_NAMES.get(tensor.dtype, str(tensor.dtype)))
        for key, tensor in tensors.items()
    ]


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
            if param not in moved:
                moved[param] = nn.Parameter(param.detach().to("meta"), requires_grad=param.requires_grad)
            param = moved[param]
        original(module, name, param)

    nn.Module.register_parameter = register  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        nn.Module.register_parameter = original  # type: ignore[method-assign]


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def _construction_errors(where: str) -> Iterator[None]:
    try:
        yield
    except (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, WmtpError):
            raise
        raise CheckpointError(
            f"{where}: the model cannot be built from it: {type(error).__name__}: {show(str(error))}",
            hint="compare config.json with the one that the weights were saved with",
        ) from error
