"""How far into its data a run is, also where it goes on with other batches or another number of processes."""

from __future__ import annotations

import math
from dataclasses import dataclass

from wmtp.publishing.training_state import Position


@dataclass(frozen=True)
class ReadingOrder:
    """How optimizer steps go through the rows.

    Attributes:
        steps_per_epoch: Optimizer steps in one pass over the rows.
        rows_per_step: Rows that all processes together read in one of them; fewer in the last of a pass.
        first: Steps from the begin of the first pass to where this process began, had they all been as they are now.
        done: Optimizer steps that had been done there.
    """

    steps_per_epoch: int
    rows_per_step: int
    first: int = 0
    done: int = 0

    def going_on(self, position: Position, done: int) -> ReadingOrder:
        """Return the order from a position on. A step that would begin before it begins there again."""
        in_epoch = min(position.rows // self.rows_per_step, self.steps_per_epoch)
        return ReadingOrder(
            self.steps_per_epoch, self.rows_per_step, position.epoch * self.steps_per_epoch + in_epoch, done
        )

    def repeated_rows(self, position: Position) -> int:
        """Return how many rows are read again when a run goes on from a position."""
        is_within = position.rows < self.steps_per_epoch * self.rows_per_step
        return position.rows % self.rows_per_step if is_within else 0

    def position(self, step: int) -> Position:
        """Return where the run is after so many optimizer steps."""
        epoch, in_epoch = divmod(self.first + step - self.done, self.steps_per_epoch)
        return Position(epoch=epoch, rows=in_epoch * self.rows_per_step)

    @property
    def begin(self) -> tuple[int, int]:
        """Passes that are complete, and steps of the next one, where this process begins."""
        return divmod(self.first, self.steps_per_epoch)

    def steps_of(self, epochs: float) -> int:
        """Return how many optimizer steps the run has done at the end of so many passes over the rows."""
        return self.done + math.ceil(epochs * self.steps_per_epoch) - self.first

    def epochs_of(self, steps: int) -> int:
        """Return how many passes are begun in all until so many optimizer steps are done."""
        return math.ceil((self.first + steps - self.done) / self.steps_per_epoch)
