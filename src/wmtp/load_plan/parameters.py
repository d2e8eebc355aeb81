"""The parameters of a model as a plan sees them, and where their values go when it is carried out."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import nn

from wmtp.checkpoint.tensors import FLOATING, TensorInfo
from wmtp.load_plan.plan import ParameterSpec

TORCH_DTYPES = {
    "BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "I16": torch.int16, "I32": torch.int32, "I64": torch.int64,
    "U16": torch.uint16, "U32": torch.uint32, "U64": torch.uint64,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "F8_E8M0": torch.float8_e8m0fnu,
    "F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64,
}  # fmt: skip
DTYPE_NAMES = {dtype: name for name, dtype in TORCH_DTYPES.items()}


def target_dtype(tensors: Iterable[TensorInfo], asked: str) -> torch.dtype:
    """Return the dtype to build in: the one asked for, or with `auto` the one in which most bytes are stored."""
    if asked != "auto":
        dtype: torch.dtype = getattr(torch, asked)
        return dtype
    sizes: Counter[str] = Counter()
    for tensor in tensors:
        if tensor.dtype in FLOATING:
            sizes[tensor.dtype] += tensor.num_bytes
    return TORCH_DTYPES[sizes.most_common(1)[0][0]] if sizes else torch.float32


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

    Read from the modules themselves: a checkpoint's own class may override `state_dict` and `named_modules`.

    Raises:
        TypeError: If a module keeps them in something of its own, which may show other values than it uses.
    """
    for start, module in _modules(model):
        for name, parameter in module._parameters.items():
            if parameter is not None:
                yield start + name, ParameterSlot(module, name)
        for name, buffer in module._buffers.items():
            if buffer is not None and name not in module._non_persistent_buffers_set:
                yield start + name, ParameterSlot(module, name)


def _modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    waiting = [("", model)]
    while waiting:
        start, module = waiting.pop()
        for kept in (module._parameters, module._buffers, module._modules):
            if type(kept) is not dict and type(kept) is not OrderedDict:
                raise TypeError(
                    f"the module {start!r} keeps its parts in a {type(kept).__qualname__}, not a plain dict"
                )
        yield start, module
        children = [(f"{start}{name}.", child) for name, child in module._modules.items() if child is not None]
        waiting += reversed(children)


def parameter_specs(slots: Iterable[tuple[str, ParameterSlot]]) -> list[ParameterSpec]:
    """Return what a model needs to be filled; parameters that are one object have one entry with several names."""
    names: dict[int, list[str]] = {}
    tensors: dict[int, torch.Tensor] = {}
    for name, slot in slots:
        tensor = slot.tensor
        names.setdefault(id(tensor), []).append(name)
        tensors[id(tensor)] = tensor
    return [
        ParameterSpec(tuple(names[key]), tuple(tensor.shape), DTYPE_NAMES.get(tensor.dtype, str(tensor.dtype)))
        for key, tensor in tensors.items()
    ]


def move_buffers(model: nn.Module, device: str | torch.device) -> None:
    """Move every buffer of a model; those that no tensor filled are still where they were built."""
    for _, module in _modules(model):
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = buffer.to(device)
