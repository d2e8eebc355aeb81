"""What a class may allocate while it is built: for its parameters nothing, and otherwise no more than headers allow."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from wmtp.checkpoint.bounds import Bounds
from wmtp.errors import PlanError

_REPLACED_BY = "_wmtp_replaced_by"
# What makes a tensor from numbers alone: of a given size, of a size that follows from them, and ranges.
_SIZED = ("empty", "zeros", "ones", "full", "rand", "randn")
_COMPUTED = ("eye", "tril_indices", "triu_indices")
_RANGES = ("arange", "linspace", "logspace")


@contextmanager
def bounded_allocation(bounds: Bounds, *, where: str, parameters_on_meta: bool) -> Iterator[None]:
    """Keep a class that is built inside the block within bounds, and give its parameters no memory.

    Buffers stay real, so they have the values of plain construction; and a parameter registered under two names stays
    one object, so ties are seen. `torch.device("meta")` gives neither, and a mode of torch's would be called for every
    operation there is, at a tenth of the time that loading takes. What is replaced here is global to the process, so
    callers hold a lock; models that other threads build meanwhile are left alone.

    Args:
        bounds: What the headers allow.
        where: The file that the class is built from, as errors show it.
        parameters_on_meta: False: leave parameters their memory, for a class that reads them while it is built.

    Raises:
        PlanError: In the block, when the class asks for more parameters, or a larger tensor, than the bounds allow.
    """
    allocation = _Allocation(bounds, where, parameters_on_meta=parameters_on_meta)
    replaced: list[tuple[Any, str, Any]] = [(nn.Module, "register_parameter", allocation.registering)]
    replaced += [(torch, name, allocation.making) for name in (*_SIZED, *_COMPUTED, *_RANGES)]
    originals = [(owner, name, getattr(owner, name)) for owner, name, _ in replaced]
    for (owner, name, hook), (_, _, original) in zip(replaced, originals, strict=True):
        setattr(owner, name, hook(name, original))
    try:
        yield
    finally:
        allocation.end()
        for owner, name, original in originals:
            setattr(owner, name, original)


class _Allocation:
    """What one construction has allocated so far."""

    def __init__(self, bounds: Bounds, where: str, *, parameters_on_meta: bool) -> None:
        self._bounds, self._where, self._on_meta = bounds, where, parameters_on_meta
        self._thread: int | None = threading.get_ident()
        self._num_parameters = 0

    def end(self) -> None:
        """Hold nobody to the bounds any more: a module imported meanwhile may have kept what it found in torch."""
        self._thread = None

    def registering(self, _: str, original: Callable[..., None]) -> Callable[..., None]:
        """Return what registers a parameter in place of `original`."""

        def register(module: nn.Module, name: str, param: nn.Parameter | None) -> None:
            if param is not None and type(param) is nn.Parameter and threading.get_ident() == self._thread:
                param = param if param.device.type == "meta" else self._replacement(param)
            original(module, name, param)

        return register

    def making(self, name: str, original: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        """Return what makes a tensor in place of `original`."""
        limit = self._bounds.range_length if name in _RANGES else self._bounds.num_elements
        size_is_given = name in _SIZED

        def make(*args: Any, **options: Any) -> torch.Tensor:
            # Of nearly every call there is, the product says enough.
            may_be_large = not size_is_given or _product((*args, *options.values())) > limit
            if may_be_large and threading.get_ident() == self._thread:
                self._check(original(*args, **{**options, "device": "meta"}).numel(), limit)
            return original(*args, **options)

        return make

    def _replacement(self, param: nn.Parameter) -> nn.Parameter:
        # What replaces a parameter hangs on it: a tie finds it there, and it lives as long.
        if _REPLACED_BY not in param.__dict__:
            self._num_parameters += 1
            if self._num_parameters > self._bounds.num_parameters:
                raise self._refusal(f"more than {self._bounds.num_parameters:,} parameters")
            param.__dict__[_REPLACED_BY] = _without_values(param) if self._on_meta else param
        replacement: nn.Parameter = param.__dict__[_REPLACED_BY]
        return replacement

    def _check(self, num_elements: int, limit: int) -> None:
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
