"""Names with numbers in them, found by a name that has places for the numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from wmtp.checkpoint.tensors import TensorInfo

Numbers = tuple[int, ...]
_DIGITS = re.compile(r"([0-9]+)")
_PLACE_OR_DIGITS = re.compile(r"\{([a-z0-9_]+)\}|([0-9]+)")


class NumberedName:
    """A name with places for numbers, such as `layers.{i}.w1.weight`.

    Args:
        text: The name.

    Attributes:
        form: What it is but for all numbers in it, and places for them.
    """

    def __init__(self, text: str) -> None:
        pieces = _PLACE_OR_DIGITS.split(text)  # text, place or None, digits or None, text, ...
        self.form = tuple(pieces[::3])
        self._slots = list(zip(pieces[1::3], pieces[2::3], strict=True))

    def filled(self, numbers: Mapping[str, int]) -> str:
        """Return the name with numbers in its places."""
        slots = (str(numbers[place]) if place is not None else digits for place, digits in self._slots)
        return "".join(text + slot for text, slot in zip(self.form, (*slots, ""), strict=True))

    def positions(self, variable: str) -> list[int]:
        """Return which of the numbers in the name are those of a variable."""
        return [position for position, (place, _) in enumerate(self._slots) if place == variable]

    @property
    def fixed(self) -> list[tuple[int, str]]:
        """Positions at which a certain number stands, with its digits."""
        return [(position, digits) for position, (place, digits) in enumerate(self._slots) if place is None]


class NumberedNames:
    """Tensors by their names, each found by its form: what the name is but for the numbers in it.

    Args:
        tensors: All of them.
    """

    def __init__(self, tensors: Mapping[str, TensorInfo]) -> None:
        # A form is a tuple and not a text with marks for the numbers: a stranger's names may hold any mark.
        self._by_form: dict[tuple[str, ...], list[tuple[list[str], TensorInfo]]] = {}
        for name, tensor in tensors.items():
            pieces = _DIGITS.split(name)
            self._by_form.setdefault(tuple(pieces[::2]), []).append((pieces[1::2], tensor))

    def count(self, name: NumberedName) -> int:
        """Return how many tensors have a name of the form of this one."""
        return len(self._by_form.get(name.form, ()))

    def find(self, name: NumberedName, variables: Sequence[str]) -> dict[Numbers, TensorInfo]:
        """Return the tensors that have this name for some numbers.

        Args:
            name: The name.
            variables: All that have places in it; the numbers come in their order.
        """
        alike = self._by_form.get(name.form, [])
        for position, wanted in name.fixed:
            alike = [one for one in alike if one[0][position] == wanted]
        positions = [name.positions(variable) for variable in variables]
        for first, other in ((places[0], other) for places in positions for other in places[1:]):
            alike = [one for one in alike if one[0][first] == one[0][other]]
        chosen = [places[0] for places in positions]
        for position in chosen:  # a number has no zero in front, so that each name is found for one only
            alike = [one for one in alike if one[0][position][0] != "0" or one[0][position] == "0"]
        return {tuple([int(digits[position]) for position in chosen]): tensor for digits, tensor in alike}
