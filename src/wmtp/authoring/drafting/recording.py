"""Tensors without values that record what is done to them, as far as operations of metadata.json can say it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

import torch
from torch import Tensor

from wmtp.authoring.drafting.expressions import Expression, Untraceable, cut, joined, permuted, reshaped

_T: Any = torch.Tensor
_SAME = {_T.contiguous, _T.clone, _T.detach, _T.to, _T.float, _T.bfloat16, _T.half, _T.cpu}
_PERMUTING = {torch.transpose, _T.transpose, torch.permute, _T.permute, torch.t, _T.t, _T.T.__get__, _T.mT.__get__}
_PERMUTING |= {torch.movedim, _T.movedim, torch.swapaxes, _T.swapaxes}
_RESHAPING = {torch.reshape, _T.reshape, _T.view, torch.flatten, _T.flatten, torch.unflatten, _T.unflatten}
_RESHAPING |= {torch.squeeze, _T.squeeze, torch.unsqueeze, _T.unsqueeze}
_DIVIDING = {torch.chunk, _T.chunk, torch.split, _T.split}
_JOINING = {torch.stack: True, torch.cat: False, torch.concat: False}
# What is asked of a tensor and does nothing to it.
_ASKING = {
    getattr(_T, name).__get__
    for name in ("shape", "dtype", "device", "ndim", "layout", "requires_grad", "is_meta", "grad_fn")
}
_ASKING |= {_T.size, _T.dim, _T.numel, _T.is_floating_point, _T.stride, _T.is_contiguous, _T.__len__, _T.__repr__}


class Recorded(Tensor):
    """A tensor on the meta device that knows what it is made of."""

    expression: Expression

    @classmethod
    def of(cls, expression: Expression, dtype: torch.dtype) -> Self:
        """Return the tensor that an expression makes."""
        made = torch.Tensor._make_subclass(cls, torch.empty(expression.shape, dtype=dtype, device="meta"))
        made.expression = expression
        return made

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        """Do to what is recorded what is done to the tensor.

        Raises:
            Untraceable: For anything that is not recorded.
        """
        given = kwargs or {}
        if func in _JOINING:
            return _join(_JOINING[func], *args, **given)
        if func in _ASKING:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **given)
        this = args[0]
        for functions, record in _RECORDERS:
            if func in functions and isinstance(this, Recorded):
                return record(func, this, args[1:], given)
        raise Untraceable(f"{getattr(func, '__name__', func)}, which is none of the operations that can be declared")


def _join(is_new: bool, tensors: Sequence[Tensor], dim: int = 0) -> Recorded:
    if not all(isinstance(tensor, Recorded) for tensor in tensors):
        raise Untraceable("values that are not stored are joined with those that are")
    parts = tuple(tensor.expression for tensor in tensors)  # type: ignore[attr-defined]
    return Recorded.of(joined(parts, dim, is_new=is_new), tensors[0].dtype)


def _kept(_: Any, this: Recorded, args: Sequence[Any], given: dict[str, Any]) -> Recorded:  # noqa: ARG001
    return this


def _permute(func: Callable[..., Tensor], this: Recorded, args: Sequence[Any], given: dict[str, Any]) -> Recorded:
    probe = torch.empty(tuple(range(len(this.shape))), device="meta")  # each size tells which dimension it was
    order = tuple(func(probe, *args, **given).shape)
    return Recorded.of(permuted(this.expression, order), this.dtype)


def _reshape(func: Callable[..., Tensor], this: Recorded, args: Sequence[Any], given: dict[str, Any]) -> Recorded:
    shape = tuple(func(torch.empty(this.shape, device="meta"), *args, **given).shape)
    return Recorded.of(reshaped(this.expression, shape), this.dtype)


def _divide(
    func: Callable[..., Sequence[Tensor]], this: Recorded, args: Sequence[Any], given: dict[str, Any]
) -> tuple[Recorded, ...]:
    dim = given["dim"] if "dim" in given else args[1] if len(args) > 1 else 0
    pieces = func(torch.empty(this.shape, device="meta"), *args, **given)
    return tuple(_pieces(this, dim % len(this.shape), [piece.shape[dim] for piece in pieces]))


def _pieces(this: Recorded, dim: int, sizes: Sequence[int]) -> Iterator[Recorded]:
    start = 0
    for size in sizes:
        yield Recorded.of(cut(this.expression, dim, start, start + size), this.dtype)
        start += size


def _unbind(_: Any, this: Recorded, args: Sequence[Any], given: dict[str, Any]) -> tuple[Recorded, ...]:
    dim = (given["dim"] if "dim" in given else args[0] if args else 0) % len(this.shape)
    without = (*this.shape[:dim], *this.shape[dim + 1 :])
    pieces = _pieces(this, dim, [1] * this.shape[dim])
    return tuple(Recorded.of(reshaped(piece.expression, without), this.dtype) for piece in pieces)


def _narrow(_: Any, this: Recorded, args: Sequence[Any], given: dict[str, Any]) -> Recorded:  # noqa: ARG001
    dim, start, length = args
    return Recorded.of(cut(this.expression, dim % len(this.shape), start, start + length), this.dtype)


def _index(_: Any, this: Recorded, args: Sequence[Any], given: dict[str, Any]) -> Recorded:  # noqa: ARG001
    wanted = args[0] if isinstance(args[0], tuple) else (args[0],)
    if any(not isinstance(each, (int, slice)) and each is not Ellipsis for each in wanted):
        raise Untraceable("an index that is neither a number nor a range")
    if Ellipsis in wanted:
        place = wanted.index(Ellipsis)
        rest = len(this.shape) - len(wanted) + 1
        wanted = (*wanted[:place], *(slice(None),) * rest, *wanted[place + 1 :])
    expression = this.expression
    for dim, each in enumerate(wanted):
        start, end, step = (slice(each, each + 1 or None) if isinstance(each, int) else each).indices(this.shape[dim])
        if step != 1 or end <= start:
            raise Untraceable("a range with steps, or of nothing")
        expression = cut(expression, dim, start, end)
    gone = {dim for dim, each in enumerate(wanted) if isinstance(each, int)}
    kept = tuple(size for dim, size in enumerate(expression.shape) if dim not in gone)
    return Recorded.of(reshaped(expression, kept) if gone else expression, this.dtype)


_RECORDERS: tuple[tuple[set[Any], Callable[..., Any]], ...] = (
    (_SAME, _kept),
    (_PERMUTING, _permute),
    (_RESHAPING, _reshape),
    (_DIVIDING, _divide),
    ({torch.unbind, _T.unbind}, _unbind),
    ({torch.narrow, _T.narrow}, _narrow),
    ({_T.__getitem__}, _index),
)
