"""Names with numbers in them, found by a name that has places for the numbers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property

_DIGITS = re.compile(r"([0-9]+)")
_PLACE_OR_DIGITS = re.compile(r"\{([a-z0-9_]+)\}|([0-9]+)")


class NumberedName:
    """A name with places for numbers, such as `layers.{i}.w1.weight`.

    Args:
        text: The name.
    """

    def __init__(self, text: str) -> None:
        self._pieces = _PLACE_OR_DIGITS.split(text)  # text, place or None, digits or None, text, ...

    @cached_property
    def form(self) -> str:
        """The name with every number and place alike."""
        return "{}".join(self._pieces[::3])

    @cached_property
    def _slots(self) -> list[tuple[str | None, str | None]]:
        return list(zip(self._pieces[1::3], self._pieces[2::3], strict=True))

    def filled(self, numbers: Mapping[str, int]) -> str:
        """Return the name with numbers in its places."""
        slots = (str(numbers[place]) if place is not None else digits for place, digits in self._slots)
        return "".join(text + str(slot) for text, slot in zip(self._pieces[:-1:3], slots, strict=True)) + (
            self._pieces[-1] or ""
        )

    def read(self, digits: tuple[str, ...]) -> dict[str, int] | None:
        """Return the numbers that a name of this form has in the places; None where it is another name."""
        found: dict[str, int] = {}
        for (place, fixed), number in zip(self._slots, digits, strict=True):
            if place is None and number != fixed:
                return None
            if place is not None and (
                str(int(number)) != number or found.setdefault(place, int(number)) != int(number)
            ):
                return None
        return found


class NumberedNames:
    """Names, each found by its form: what it is but for the numbers in it.

    Args:
        names: All of them.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._by_form: dict[str, list[tuple[str, ...]]] = {}
        for name in names:
            pieces = _DIGITS.split(name)
            self._by_form.setdefault("{}".join(pieces[::2]), []).append(tuple(pieces[1::2]))

    def count(self, name: NumberedName) -> int:
        """Return how many names have the form of this one."""
        return len(self._by_form.get(name.form, ()))

    def find(self, name: NumberedName) -> Iterator[dict[str, int]]:
        """Yield the numbers that each name has in the places of this one."""
        for digits in self._by_form.get(name.form, ()):
            if (numbers := name.read(digits)) is not None:
                yield numbers
