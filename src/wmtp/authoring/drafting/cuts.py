"""The pieces that tensors are cut into, as all parameters together take them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from itertools import pairwise

from wmtp.authoring.drafting.expressions import Cut, Expression, parts_of


class Pieces:
    """Which pieces there are of everything that is cut.

    Args:
        made: What parameters are made of.
    """

    def __init__(self, made: Iterable[Expression]) -> None:
        self._bounds: dict[tuple[Expression, int], set[int]] = defaultdict(set)
        waiting = list(made)
        while waiting:
            one = waiting.pop()
            if isinstance(one, Cut):
                self._bounds[one.of, one.dim] |= {0, one.start, one.end, one.of.shape[one.dim]}
            waiting += parts_of(one)

    def of(self, piece: Cut) -> tuple[list[int], int]:
        """Return the sizes of all pieces, and which of them this one is.

        A piece that others overlap is said by its own bounds; loading says then that it is used twice.
        """
        bounds = sorted(self._bounds[piece.of, piece.dim])
        if bounds[bounds.index(piece.start) + 1] != piece.end:
            bounds = sorted({0, piece.start, piece.end, piece.of.shape[piece.dim]})
        sizes = [end - start for start, end in pairwise(bounds)]
        return sizes, bounds.index(piece.start)
