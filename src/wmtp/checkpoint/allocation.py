"""What a class may allocate while it is built: for its parameters nothing, and otherwise no more than headers allow."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary
from typing_extensions import override

from wmtp.checkpoint.bounds import Bounds
from wmtp.errors import PlanError

# What makes a tensor from numbers alone: of a given size, of a size that follows from them, and ranges.
_SIZED = frozenset({torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn})
_COMPUTED = frozenset({torch.eye, torch.tril_indices, torch.triu_indices})
_RANGES = frozenset({torch.arange, torch.linspace, torch.logspace})


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
        PlanError: In the block, when the class asks for more parameters, or a larger tensor, than the bounds allow.
    """
    original = nn.Module.register_parameter
    moved = WeakIdKeyDictionary()
    this_thread = threading.get_ident()
    within = _WithinBounds(bounds, where)

    def register(module: nn.Module, name: str, param: nn.Parameter | None) -> None:
        if type(param) is nn.Parameter and threading.get_ident() == this_thread:
            with torch._C.DisableTorchFunction():  # our own work: no need to look at it
                if param.device.type != "meta" and param not in moved:
                    within.count_parameter()
                    moved[param] = _without_values(param) if parameters_on_meta else param
                param = moved.get(param, param)  # type: ignore[no-untyped-call]
        original(module, name, param)

    nn.Module.register_parameter = register  # type: ignore[method-assign, assignment]
    try:
        with within:
            yield
    finally:
        nn.Module.register_parameter = original  # type: ignore[method-assign]


class _WithinBounds(TorchFunctionMode):
    def __init__(self, bounds: Bounds, where: str) -> None:
        super().__init__()
        self._bounds, self._where = bounds, where
        self._num_parameters = 0

    @override
    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        options = kwargs or {}
        if func in _SIZED or func in _COMPUTED or func in _RANGES:
            self._check(func, args, options)
        return func(*args, **options)

    def count_parameter(self) -> None:
        self._num_parameters += 1
        if self._num_parameters > self._bounds.num_parameters:
            raise self._refusal(f"more than {self._bounds.num_parameters:,} parameters")

    def _check(self, func: Callable[..., Any], args: Sequence[Any], options: dict[str, Any]) -> None:
        limit = self._bounds.range_length if func in _RANGES else self._bounds.num_elements
        if func in _SIZED and _product((*args, *options.values())) <= limit:
            return  # nearly every call there is
        num_elements = func(*args, **{**options, "device": "meta"}).numel()
        if num_elements > limit:
            raise self._refusal(f"a tensor of {num_elements:,} values")

    def _refusal(self, what: str) -> PlanError:
        return PlanError(
            f"{self._where}: the class that is built from it asks for {what}, far more than the tensors hold",
            hint="compare config.json with the one that the weights were saved with",
        )


def _without_values(param: nn.Parameter) -> nn.Parameter:
    return nn.Parameter(torch.empty_like(param, device="meta"), requires_grad=param.requires_grad)


def _product(values: Iterable[Any]) -> float:
    """Of every number in sight: never below the number of values that they ask for, and quick."""
    product: float = 1
    for value in values:
        if isinstance(value, int | float):
            product *= max(abs(value), 1)
        elif isinstance(value, tuple | list):
            product *= _product(value)
    return product
