"""What a class may allocate while it is built: for its parameters nothing, and otherwise no more than headers allow."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from typing_extensions import override

from wmtp.errors import PlanError, WmtpError
from wmtp.load_plan.bounds import Bounds

_REPLACED_BY = "_wmtp_replaced_by"  # on a parameter that was counted; None: it stands for itself
_NOT_COUNTED = object()
# What makes a tensor from numbers alone: of a given size, of a size that follows from them, and ranges.
_SIZED = frozenset({torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn})
_COMPUTED = frozenset({torch.eye, torch.tril_indices, torch.triu_indices})
_RANGES = frozenset({torch.arange, torch.linspace, torch.logspace})
_MAKERS = _SIZED | _COMPUTED | _RANGES


class LargeAllocation(PlanError):
    """The class makes something so large that it has to be rehearsed without memory first."""


def build_within_bounds(
    construct: Callable[[], nn.Module],
    guard: Callable[[str], AbstractContextManager[None]],
    bounds: Bounds,
    *,
    where: str,
    parameters_on_meta: bool,
) -> nn.Module:
    """Build a class within bounds; if it makes something large, only after a rehearsal on the meta device.

    Args:
        construct: Builds it.
        guard: Turns what it raises into a WmtpError.
        bounds: What the headers allow.
        where: The file that the class is built from, as errors show it.
        parameters_on_meta: False: leave parameters their memory, for a class that reads them while it is built.

    Raises:
        PlanError: If the class asks for more than the bounds allow.
        WmtpError: If it cannot be built.
    """

    def attempt(allowed: Bounds) -> nn.Module:
        with guard(where), bounded_allocation(allowed, where=where, parameters_on_meta=parameters_on_meta):
            return construct()

    try:
        return attempt(bounds)
    except LargeAllocation as error:
        large = PlanError(error.problem, error.hint)
    any_size = replace(bounds, num_elements=sys.maxsize, range_length=sys.maxsize, buffer_bytes=sys.maxsize)
    try:
        with torch.device("meta"):
            rehearsed = attempt(any_size)
    except WmtpError:
        raise large from None  # what cannot be rehearsed is not built either
    _check_rehearsed(rehearsed, bounds, where=where)
    return attempt(any_size)


@contextmanager
def bounded_allocation(bounds: Bounds, *, where: str, parameters_on_meta: bool) -> Iterator[None]:
    """Keep a class that is built inside the block within bounds, and give its parameters no memory.

    Buffers stay real, so they have the values of plain construction; and a parameter registered under two names stays
    one object, so ties are seen. `torch.device("meta")` gives neither. The hook on registration is global to the
    process, so callers hold a lock; models that other threads build meanwhile are left alone.

    Args:
        bounds: What the headers allow.
        where: The file that the class is built from, as errors show it.
        parameters_on_meta: False: leave parameters their memory, for a class that reads them while it is built.

    Raises:
        LargeAllocation: In the block, when the class makes a tensor or range that is larger than is harmless.
        PlanError: In the block, when the class asks for more parameters than the bounds allow.
    """
    original = nn.Module.register_parameter
    this_thread = threading.get_ident()
    within = _WithinBounds(bounds, where, parameters_on_meta=parameters_on_meta)

    def register(module: nn.Module, name: str, param: nn.Parameter | None) -> None:
        if threading.get_ident() != this_thread:
            original(module, name, param)
            return
        with torch._C.DisableTorchFunction():  # nothing is made here: no need to look at it
            original(module, name, within.replacement(param) if type(param) is nn.Parameter else param)

    nn.Module.register_parameter = register  # type: ignore[method-assign, assignment]
    try:
        with within:
            yield
    finally:
        nn.Module.register_parameter = original  # type: ignore[method-assign]


class _WithinBounds(TorchFunctionMode):
    """Looks at what one thread makes; replacing torch's functions would be quicker, and found by whoever lists them."""

    def __init__(self, bounds: Bounds, where: str, *, parameters_on_meta: bool) -> None:
        super().__init__()
        self._bounds, self._where, self._on_meta = bounds, where, parameters_on_meta
        self._num_parameters = self._num_made = 0

    @override
    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        options = kwargs or {}
        if func in _MAKERS:
            self._account(func, args, options)
        return func(*args, **options)

    def _account(self, func: Callable[..., Any], args: Sequence[Any], options: dict[str, Any]) -> None:
        size = _plain_size(args, options) if func in _SIZED else None
        if size is None:
            size = func(*args, **{**options, "device": "meta"}).numel()
        if func is not torch.empty:  # which takes memory only where something is written
            self._num_made += size
        if size > (self._bounds.range_length if func in _RANGES else self._bounds.num_elements):
            raise LargeAllocation(*_asks_too_much(self._where, f"a tensor of {size:,} values"))
        if self._num_made > self._bounds.buffer_bytes:
            raise LargeAllocation(*_asks_too_much(self._where, f"{self._num_made:,} values in all"))

    def replacement(self, param: nn.Parameter) -> nn.Parameter:
        """Count a parameter, and return what stands for it in the model."""
        # What replaces a parameter hangs on it: a tie finds it there, and it lives as long.
        known = param.__dict__.get(_REPLACED_BY, _NOT_COUNTED)
        if known is _NOT_COUNTED:
            self._num_parameters += 1
            if self._num_parameters > self._bounds.num_parameters:
                raise PlanError(*_asks_too_much(self._where, f"more than {self._bounds.num_parameters:,} parameters"))
            known = _without_values(param) if self._on_meta and param.device.type != "meta" else None
            param.__dict__[_REPLACED_BY] = known
        return param if known is None else known


def _check_rehearsed(model: nn.Module, bounds: Bounds, *, where: str) -> None:
    largest = max((parameter.numel() for parameter in model.parameters()), default=0)
    buffer_bytes = sum(buffer.numel() * buffer.element_size() for buffer in model.buffers())
    if largest > bounds.num_elements:
        raise PlanError(*_asks_too_much(where, f"a parameter of {largest:,} values"))
    if buffer_bytes > bounds.buffer_bytes:
        raise PlanError(*_asks_too_much(where, f"{buffer_bytes:,} bytes of buffers"))


def _asks_too_much(where: str, what: str) -> tuple[str, str]:
    problem = f"{where}: the class that is built from it asks for {what}, far more than the tensors hold"
    return problem, "compare config.json with the one that the weights were saved with"


def _without_values(param: nn.Parameter) -> nn.Parameter:
    replacement = nn.Parameter(torch.empty_like(param, device="meta"), requires_grad=param.requires_grad)
    replacement.__dict__[_REPLACED_BY] = None
    return replacement


def _plain_size(args: Sequence[Any], options: dict[str, Any]) -> int | None:
    """The number of values, where it stands there as plain numbers, as it does in nearly every call."""
    if "size" in options:
        return None
    size = 1
    for dimension in args[0] if len(args) == 1 and type(args[0]) is tuple else args:
        if type(dimension) is not int:
            return None
        size *= dimension
    return size
