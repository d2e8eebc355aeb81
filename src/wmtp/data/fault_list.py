"""What is wrong with data, told at once: the first faults with their places, and how many there are in all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from wmtp.errors import DataError
from wmtp.untrusted import MAX_SHOWN

_HINT = "mend what is named, or leave it out"


class FaultList:
    """The faults of one data source.

    Args:
        field: The recipe's section that the data comes from: `data.train`.
    """

    def __init__(self, field: str) -> None:
        self._field = field
        self._first: list[DataError] = []
        self._count = 0

    @contextmanager
    def collected(self) -> Iterator[None]:
        """Keep a DataError that is raised within, and go on after it."""
        try:
            yield
        except DataError as error:
            self._count += 1
            if len(self._first) < MAX_SHOWN:
                self._first.append(error)

    def __bool__(self) -> bool:
        return self._count > 0

    def raise_any(self) -> None:
        """Raise DataError if there is a fault: that one, or one error that names the first 20 and counts them all."""
        if self._count == 1:
            raise self._first[0]
        if self._count:
            rest = self._count - len(self._first)
            hints = {error.hint for error in self._first}
            raise DataError(
                f"{self._field}: {self._count:,} faults",
                hint=hints.pop() if len(hints) == 1 else _HINT,
                faults=[*(error.problem for error in self._first), *([f"and {rest:,} more"] if rest else [])],
            )
