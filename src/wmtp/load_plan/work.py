"""How much work a stranger's patterns may ask for: counted in steps, so that every machine refuses the same."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from wmtp.errors import PlanError
from wmtp.metadata.transforms import steps_to_match

# A step is an instruction of a compiled pattern met by a byte of a name: ten nanoseconds at the worst, commonly one.
# Ten long rules for the 140,000 tensors of the largest models that are published need half of these.
MAX_STEPS = 10_000_000_000


class Work:
    """The steps that one field's patterns take for all names.

    Args:
        field: The field of metadata.json, as errors show it.
        patterns: All of them, compiled.
        names: What they are held against.

    Raises:
        PlanError: If one search for each pattern in each name is more work than any honest patterns need.
    """

    def __init__(self, field: str, patterns: Collection[Any], names: Collection[str]) -> None:
        self._field, self._num_names, self._num_steps = field, len(names), 0
        num_bytes = sum(len(name.encode()) for name in names)
        self._check(sum(steps_to_match(each, num_bytes=num_bytes, num_names=len(names)) for each in patterns))

    def spend(self, num_steps: int) -> None:
        """Count steps that are about to be taken.

        Raises:
            PlanError: If they are more, in all, than any honest patterns need.
        """
        self._num_steps += num_steps
        self._check(self._num_steps)

    def _check(self, num_steps: int) -> None:
        if num_steps > MAX_STEPS:
            raise PlanError(
                f"{self._field} needs {num_steps:,} steps of matching for {self._num_names:,} names,"
                f" more than the {MAX_STEPS:,} allowed",
                hint="write fewer or simpler patterns; remove_prefix and add_prefix cost nothing",
            )
