"""The text of `rearrange`: einops' notation, as far as it is a bijection, read by a grammar of its own."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from wmtp.untrusted import show

_MAX_AXES = 16
_TOKEN = re.compile(r"[a-z][a-z0-9_]*|->|[()]|[^ ]")
_AXIS = re.compile(r"[a-z][a-z0-9_]*")

Groups = tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Rearrangement:
    """Dimensions that are divided into axes, put in another order, and joined again.

    Attributes:
        before: The axes that each dimension is divided into.
        after: The axes that each dimension of the result is joined from; the same ones.
    """

    before: Groups
    after: Groups

    @property
    def order(self) -> tuple[int, ...]:
        """For each axis of the result, which axis of the source it is."""
        axes = [axis for group in self.before for axis in group]
        return tuple(axes.index(axis) for group in self.after for axis in group)

    @property
    def inverse(self) -> Rearrangement:
        """What undoes it."""
        return Rearrangement(self.after, self.before)

    def axis_sizes(self, shape: tuple[int, ...], given: Mapping[str, int]) -> dict[str, int]:
        """Return the size of every axis for a source of a given shape.

        Args:
            shape: The source's dimensions.
            given: Sizes of axes that are known.

        Raises:
            ValueError: If the axes do not divide the dimensions, or leave open how; says which.
        """
        if len(shape) != len(self.before):
            raise ValueError(f"has {len(self.before)} dimensions before the arrow, the tensor has {len(shape)}")
        sizes = dict(given)
        for group, size in zip(self.before, shape, strict=True):
            open_axes = [axis for axis in group if axis not in sizes]
            known = prod(sizes[axis] for axis in group if axis in sizes)
            if len(open_axes) > 1:
                raise ValueError(f"needs the sizes of all axes but one of ({' '.join(group)})")
            if open_axes and size % known == 0:
                sizes[open_axes[0]] = size // known
            elif open_axes or known != size:
                raise ValueError(f"has axes ({' '.join(group)}) of {known}, which do not divide a dimension of {size}")
        return sizes


def parse_rearrangement(text: str) -> Rearrangement:
    """Parse the text of a rearrangement such as `(h d two) x -> (h two d) x`.

    Raises:
        ValueError: If it is none; says why.
    """
    tokens = _TOKEN.findall(text)
    sides = [_groups(side) for side in _split(tokens)]
    if len(sides) != 2 or not all(sides):
        raise ValueError(f"is {show(text)}, which is not axes before and after an arrow, as in '(h d) x -> (d h) x'")
    counts = [Counter(axis for group in side for axis in group) for side in sides]
    if counts[0] != counts[1] or set(counts[0].values()) != {1}:
        raise ValueError(f"is {show(text)}, whose two sides do not name the same axes, each once")
    if counts[0].total() > _MAX_AXES:
        raise ValueError(f"has {counts[0].total()} axes, at most {_MAX_AXES} are allowed")
    return Rearrangement(sides[0], sides[1])


def _split(tokens: list[str]) -> list[list[str]]:
    sides: list[list[str]] = [[]]
    for text in tokens:
        if text == "->":
            sides.append([])
        else:
            sides[-1].append(text)
    return sides


def _groups(tokens: list[str]) -> Groups:
    """The axes of each dimension; none where the tokens are not that."""
    groups: list[tuple[str, ...]] = []
    open_group: list[str] | None = None
    for text in tokens:
        if text == "(" and open_group is None:
            open_group = []
        elif text == ")" and open_group:
            groups.append(tuple(open_group))
            open_group = None
        elif not _AXIS.fullmatch(text):
            return ()
        elif open_group is None:
            groups.append((text,))
        else:
            open_group.append(text)
    return () if open_group is not None else tuple(groups)
