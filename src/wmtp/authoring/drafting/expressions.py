"""What a parameter is made of, as a trace finds it: stored tensors, and what was done to them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

Shape = tuple[int, ...]


class Untraceable(ValueError):
    """Something was done to a stored tensor that no operation of metadata.json describes; the text says what."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A stored tensor, by its name in the files."""

    name: str
    shape: Shape


@dataclass(frozen=True, slots=True)
class Scaled:
    """A tensor in fewer bits and its scales, which are the values of one."""

    kind: str
    block: Shape
    values: Stored
    scales: Stored
    shape: Shape


@dataclass(frozen=True, slots=True)
class Joined:
    """Parts one behind the other, along a dimension that is new or that they have."""

    dim: int
    is_new: bool
    parts: tuple[Expression, ...]
    shape: Shape


@dataclass(frozen=True, slots=True)
class Cut:
    """The indices from `start` up to `end` of one dimension."""

    dim: int
    start: int
    end: int
    of: Expression

    @property
    def shape(self) -> Shape:
        """Of what is cut out."""
        return (*self.of.shape[: self.dim], self.end - self.start, *self.of.shape[self.dim + 1 :])


@dataclass(frozen=True, slots=True)
class Turned:
    """The axes of `of` in another order.

    Attributes:
        of: What is turned.
        sizes: Of every axis, in the order of `of`.
        before: How many axes each dimension of `of` has.
        after: The axes of each dimension of the result, by their position in `sizes`.
    """

    of: Expression
    sizes: Shape
    before: Shape
    after: tuple[tuple[int, ...], ...]

    @property
    def shape(self) -> Shape:
        """Of the result."""
        return tuple(math.prod(self.sizes[axis] for axis in group) for group in self.after)

    @property
    def changes(self) -> bool:
        """Whether it does anything."""
        return self.shape != self.of.shape or [axis for group in self.after for axis in group] != sorted(
            axis for group in self.after for axis in group
        )


Expression = Stored | Scaled | Joined | Cut | Turned


def parts_of(expression: Expression) -> tuple[Expression, ...]:
    """Return what an expression is made of directly."""
    match expression:
        case Stored():
            return ()
        case Scaled():
            return (expression.values, expression.scales)
        case Joined():
            return expression.parts
        case _:
            return (expression.of,)


def stored_in(expression: Expression) -> Iterator[str]:
    """Yield the names of the stored tensors in an expression."""
    waiting = [expression]
    while waiting:
        one = waiting.pop()
        if isinstance(one, Stored):
            yield one.name
        waiting += reversed(parts_of(one))


def joined(parts: tuple[Expression, ...], dim: int, *, is_new: bool) -> Expression:
    """Return parts joined; parts that are joined that way themselves become parts of the whole."""
    first = parts[0].shape
    dim %= len(first) + is_new
    if is_new:
        return Joined(dim, True, parts, (*first[:dim], len(parts), *first[dim:]))
    if len(parts) == 1:
        return parts[0]
    length = sum(part.shape[dim] for part in parts)
    return Joined(dim, False, parts, (*first[:dim], length, *first[dim + 1 :]))


def cut(of: Expression, dim: int, start: int, end: int) -> Expression:
    """Return a range of a dimension."""
    if (start, end) == (0, of.shape[dim]):
        return of
    if isinstance(of, Cut) and of.dim == dim:
        return Cut(dim, of.start + start, of.start + end, of.of)
    return Cut(dim, start, end, of)


def permuted(of: Expression, order: tuple[int, ...]) -> Expression:
    """Return the dimensions in another order."""
    turned = _turned(of)
    return _simplest(replace(turned, after=tuple(turned.after[dim] for dim in order)))


def reshaped(of: Expression, shape: Shape) -> Expression:
    """Return the values in another shape, in the order in which they are.

    Raises:
        Untraceable: If axes would have to be divided where they are not divisible.
    """
    turned = _turned(of)
    axes = [(axis, turned.sizes[axis]) for group in turned.after for axis in group]
    pieces: dict[int, list[int]] = {}  # of each axis, the sizes that it is divided into
    groups: list[list[tuple[int, int]]] = []  # of each new dimension, axis and number of the piece
    for size in shape:
        groups.append([])
        wanted = size
        while wanted > 1 or not groups[-1]:
            if wanted == 1:  # an axis of one is divided from whatever is next to it
                axis = axes[0][0] if axes else _last_axis(pieces)
                _put(groups[-1], pieces, axis, 1)
                break
            axis, left = axes.pop(0)
            piece = math.gcd(left, wanted)
            if left > piece < wanted:
                raise Untraceable(f"a reshape from {list(of.shape)} to {list(shape)}, across axes")
            if left > piece:
                axes.insert(0, (axis, left // piece))
            if piece > 1 or left == 1:
                _put(groups[-1], pieces, axis, piece)
            wanted //= piece
    for axis, left in axes:  # axes of one that are left
        _put(groups[-1], pieces, axis, left)
    return _simplest(_divided(turned, pieces, groups))


def _last_axis(pieces: dict[int, list[int]]) -> int:
    return list(pieces)[-1]


def _put(group: list[tuple[int, int]], pieces: dict[int, list[int]], axis: int, size: int) -> None:
    pieces.setdefault(axis, []).append(size)
    group.append((axis, len(pieces[axis]) - 1))


def _divided(turned: Turned, pieces: dict[int, list[int]], groups: list[list[tuple[int, int]]]) -> Turned:
    """The same values with axes divided into pieces, which the new dimensions are groups of."""
    divided = [pieces.get(axis, [1]) for axis in range(len(turned.sizes))]
    starts = [sum(map(len, divided[:axis])) for axis in range(len(divided))]
    before, axis = [], 0
    for count in turned.before:
        before.append(sum(map(len, divided[axis : axis + count])))
        axis += count
    after = tuple(tuple(starts[axis] + piece for axis, piece in group) for group in groups)
    return Turned(turned.of, tuple(size for sizes in divided for size in sizes), tuple(before), after)


def _turned(of: Expression) -> Turned:
    if isinstance(of, Turned):
        return of
    dims = len(of.shape)
    return Turned(of, of.shape, (1,) * dims, tuple((dim,) for dim in range(dims)))


def _simplest(turned: Turned) -> Expression:
    return turned if turned.changes else turned.of
