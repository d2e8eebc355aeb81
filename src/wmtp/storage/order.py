"""Work that runs ahead on several threads, given back in the order in which it was asked for; and whether that pays."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import Generic, TypeVar

_LONG_SECONDS = 1.0
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


class Waited(Generic[_Item]):
    """An iterator that knows how much of its user's time is spent waiting for it."""

    def __init__(self, items: Iterator[_Item]) -> None:
        self._items, self._began, self._seconds = items, time.monotonic(), 0.0

    def __iter__(self) -> Iterator[_Item]:
        return self

    def __next__(self) -> _Item:
        asked = time.monotonic()
        item = next(self._items)
        self._seconds += time.monotonic() - asked
        return item

    @property
    def mostly(self) -> bool:
        """Whether waiting was three quarters of the time since it began, and has lasted for a while."""
        return self._seconds > max(_LONG_SECONDS, (time.monotonic() - self._began) * 3 / 4)
