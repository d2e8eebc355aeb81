"""What a person sees of a run: a progress line on a terminal, log lines elsewhere."""

from __future__ import annotations

import logging
import re
import sys
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from transformers import TrainerCallback
from typing_extensions import override

logger = logging.getLogger("wmtp")

_VALIDATION = "validation: "
_HEAD_CE = re.compile(r"(eval_)?ce_\d+")


class ProgressReport(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """Shows steps and losses on stderr when that is a terminal, and logs them through `logging` when it is not.

    Args:
        draws: Whether to draw. None: when stderr is a terminal, and whoever runs us lets the library's INFO lines
            through, as the command line does unless it was told to be quiet.
    """

    def __init__(self, *, draws: bool | None = None) -> None:
        wanted = sys.stderr.isatty() and logger.isEnabledFor(logging.INFO)
        self._draws = wanted if draws is None else draws
        self._progress: Progress | None = None
        self._task = TaskID(0)

    @override
    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._draws and state.is_world_process_zero:
            columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._progress = Progress(*columns, TextColumn("{task.description}"), console=Console(stderr=True))
            self._task = self._progress.add_task("", total=state.max_steps, completed=state.global_step)
            self._progress.start()

    @override
    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._progress:
            self._progress.update(self._task, completed=state.global_step)

    @override
    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        text = describe(logs or {})
        if not text or not state.is_world_process_zero:
            return
        if self._progress is None:
            logger.info("step %d of %d: %s", state.global_step, state.max_steps, text)
        elif text.startswith(_VALIDATION):
            self._progress.console.print(f"step {state.global_step}: {text}", highlight=False)
        else:
            self._progress.update(self._task, description=text)

    @override
    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.stop()

    def stop(self) -> None:
        """Leave the terminal as it was found; also after an error, which ends training without `on_train_end`."""
        if self._progress:
            self._progress.stop()
            self._progress = None


def describe(logs: dict[str, float]) -> str:
    """Return the losses of a log entry in a few words, or nothing when it has none.

    `ce` lists the mean cross-entropy of each head in nats, the next-token head first.
    """
    heads = [f"{value:.3f}" for name, value in logs.items() if _HEAD_CE.fullmatch(name)]
    if not heads:
        return ""
    kind, loss = (_VALIDATION, logs["eval_loss"]) if "eval_loss" in logs else ("", logs["loss"])
    return f"{kind}loss {loss:.3f}, ce {' '.join(heads)}"
