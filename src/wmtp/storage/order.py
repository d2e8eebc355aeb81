"""Work that runs ahead on several threads, given back in the order in which it was asked for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import TypeVar

_Item = TypeVar("_Item")
_Answer = TypeVar("_Answer")


def in_order(
    pool: Executor, act: Callable[[_Item], _Answer], items: Iterable[_Item], *, ahead: int
) -> Iterator[_Answer]:
    """Yield `act(item)` for each item, with at most `ahead` of them begun and not yet taken.

    `Executor.map` would begin all of them, and hold every answer in memory. When the caller stops early or an item
    fails, those not begun yet are given up.
    """
    begun: deque[Future[_Answer]] = deque()
    try:
        for item in items:
            begun.append(pool.submit(act, item))
            if len(begun) >= ahead:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        for future in begun:
            future.cancel()
