"""SIGTERM and SIGINT end a run after its optimizer step, with a checkpoint; a second one ends it at once."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback
from typing_extensions import override

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
# What torchrun passes on to its processes, which a terminal has told as well.
_ECHO_SECONDS = 2.0


class Stopped(Exception):
    """Training was ended by a signal, after a step that was not its last.

    Attributes:
        by: The signal.
        step: Optimizer steps done.
    """

    def __init__(self, by: signal.Signals, step: int) -> None:
        super().__init__(by, step)
        self.by, self.step = by, step


class StopRequest:
    """Whether this process was asked to stop.

    Attributes:
        by: The signal that asked; None: none did.
    """

    def __init__(self) -> None:
        self.by: signal.Signals | None = None
        self._heard: list[signal.Signals] = []
        self._since = 0.0

    @contextmanager
    def heard(self, *, echoes: bool) -> Iterator[None]:
        """Take signals down, rather than be ended by them; only the main thread of a process can.

        Args:
            echoes: Whether each signal may come twice.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        # Who starts a program in the background has it ignore some: that stays so.
        before = {number: signal.getsignal(number) for number in _SIGNALS}
        self._heard = [number for number in _SIGNALS if before[number] is not signal.SIG_IGN]
        for number in self._heard:
            signal.signal(number, self._echoed if echoes else self._once)
        try:
            yield
        finally:
            for number in self._heard:
                signal.signal(number, before[number])

    def _once(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002  Python passes it
        self.by = signal.Signals(number)
        for each in self._heard:
            signal.signal(each, signal.SIG_DFL)  # the system ends the process then, whatever it is doing

    def _echoed(self, number: int, frame: FrameType | None) -> None:
        if self.by is None:
            self.by, self._since = signal.Signals(number), time.monotonic()
        elif time.monotonic() - self._since > _ECHO_SECONDS:
            self._once(number, frame)
            signal.raise_signal(number)


class StopAfterStep(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """Ends training with a checkpoint after a step in which any process was asked to stop.

    Args:
        request: That of this process.
        total: Returns the sum over all processes.

    Attributes:
        by: The signal that has ended training; None: none.
    """

    def __init__(self, request: StopRequest, total: Callable[[Tensor], Tensor]) -> None:
        self._request, self._total = request, total
        self.by: signal.Signals | None = None

    @override
    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        asked = self._total(torch.tensor([float(self._request.by is number) for number in _SIGNALS])).tolist()
        found = [number for number, count in zip(_SIGNALS, asked, strict=True) if count]
        # After the last step nothing is left to stop: the run is finished, and says so.
        if found and state.global_step < state.max_steps:
            self.by = found[0]
            control.should_save = control.should_training_stop = True
