"""A Trainer among the processes of a run: what they find out together, and how they part."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast

import torch
from accelerate import PartialState
from accelerate.utils import reduce
from torch import Tensor, nn
from transformers import Trainer
from typing_extensions import override

from wmtp.errors import TrainingError, WmtpError


def together(act: Callable[[], object], device: torch.device) -> float:
    """Do something on the first process while the others wait, and return its answer on all, where it is a number.

    Raises:
        WmtpError: What the first process raised; elsewhere a TrainingError that points to it.
    """
    failure: WmtpError | OSError | None = None
    answer = 0.0
    if PartialState().process_index == 0:
        try:
            found = act()
            answer = found if isinstance(found, int | float) else 0.0
        except (WmtpError, OSError) as error:
            failure = error
    failed, told = sum_over_processes(torch.tensor([failure is not None, answer], dtype=torch.float32), device)
    if failure is not None:
        raise failure
    if failed:
        raise TrainingError(
            "the first process of this run could not do its part, and this one ends with it",
            hint="what was wrong stands in the output of the process with RANK 0",
        )
    return float(told)


def sum_over_processes(values: Tensor, device: torch.device) -> Tensor:
    """Return the sum over all processes, which exchange it through their devices."""
    if PartialState().num_processes == 1:
        return values
    return cast("Tensor", reduce(values.to(device), reduction="sum").to(values.device))


class JoinedTrainer(Trainer):  # type: ignore[misc, unused-ignore]
    """A Trainer that knows what the others know."""

    model: nn.Module  # type: ignore[assignment, unused-ignore]

    @contextmanager
    @override
    def _defer_fsdp_gradient_reduction(self) -> Iterator[None]:
        # Each micro-batch's gradients are summed and put into shards at once. Put off to the end of a step, every
        # process would have those of the whole model.
        yield

    def on_first_process(self, act: Callable[[], None]) -> None:
        """Do something on the first process while the others wait; where it fails, all of them fail.

        Raises:
            WmtpError: What the first process raised; elsewhere a TrainingError that points to it.
        """
        together(act, self.args.device)

    def of_first_process(self, figures: list[float]) -> list[float]:
        """Return what the first process has found, on all: what each finds alone may differ by rounding."""
        found = torch.tensor(figures, dtype=torch.float64)
        return self.total(found if self.is_world_process_zero() else torch.zeros_like(found)).tolist()

    def total(self, values: Tensor) -> Tensor:
        """Return the sum over all processes."""
        return sum_over_processes(values, self.args.device)

    def of_every_process(self, text: str) -> list[str]:
        """Return the texts of all processes, in their order: each gives one, and gets all."""
        if self.accelerator.num_processes == 1:
            return [text]
        data, rank = text.encode(), self.args.process_index
        sizes = torch.zeros(self.accelerator.num_processes)
        sizes[rank] = len(data)
        lengths = [int(size) for size in self.total(sizes)]
        # As numbers that every backend can sum: nothing is pickled.
        table = torch.zeros(len(lengths), max(lengths))
        table[rank, : len(data)] = torch.frombuffer(bytearray(data), dtype=torch.uint8).float()
        rows = self.total(table).to(torch.uint8)
        return [bytes(row[:length].tolist()).decode() for row, length in zip(rows, lengths, strict=True)]

    def end(self) -> None:
        """Part from the other processes, and from trackers; the trainer can do nothing more afterwards.

        What wraps the model for several processes holds on to their group: destroyed before it, the group's threads go
        on, and abort the process now and then when the interpreter takes itself apart under them.
        """
        self.accelerator.wait_for_everyone()
        self.model_wrapped = self.model
        self.accelerator.free_memory()
        gc.collect()  # also what earlier stages left in circles
        self.accelerator.end_training()
