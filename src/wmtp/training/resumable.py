"""A Trainer that can be stopped after any optimizer step, and goes on from there in another process, bit for bit.

transformers' own way writes pickles. Its hooks are kept, and what they do is done here: see `publishing.training_state`
for what is written. On a CPU nothing of a run depends on whether it was interrupted.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from typing_extensions import override

from wmtp.errors import TrainingError
from wmtp.publishing.training_state import LoopState, ProcessState
from wmtp.training.gathering import gathered
from wmtp.training.meter import HeadMeter, WeightMeter
from wmtp.training.optimizer_state import (
    optimizer_state,
    restore_optimizer,
    restore_schedule,
    restore_unrounded,
    unrounded_values,
)
from wmtp.training.processes import JoinedTrainer
from wmtp.training.random_state import random_numbers, set_random_numbers
from wmtp.training.reading_order import ReadingOrder
from wmtp.training.stopping import StopAfterStep, Stopped, StopRequest

logger = logging.getLogger("wmtp")

# Tensors of the optimizer and where the loop is; the tensors are there on the first process alone.
Loop = tuple[LoopState, dict[str, Tensor]]
Save = Callable[[int, int | None, Loop | None], None]


class ResumableTrainer(JoinedTrainer):
    """Takes down after each save where it is, and goes on from there.

    Args:
        horizon: Heads that are trained.
        save: Called on the first process when a checkpoint is due before the end, with the step, the best step so far
            (the validated one with the lowest next-token cross-entropy) and what going on needs.
        before_saving: Called on all processes before that.
        resumed: What `save` was given, to go on from there; None: begin.
        stop: Whether this process is asked to stop.
        saves_unrounded: Whether checkpoints hold the model in fewer bits than it is trained in, so that going on needs
            the rest.
        arguments: What `transformers.Trainer` takes.
    """

    lr_scheduler: LambdaLR

    def __init__(
        self,
        *,
        horizon: int,
        save: Save,
        before_saving: Callable[[], None] = lambda: None,
        resumed: Loop | None = None,
        stop: StopRequest | None = None,
        saves_unrounded: bool = False,
        **arguments: Any,
    ) -> None:
        super().__init__(**arguments)
        self._stop = StopAfterStep(stop or StopRequest(), self.total)
        self.add_callback(self._stop)
        self._num_heads, self._meter, self._weights = horizon, HeadMeter(horizon), WeightMeter()
        self._publish, self._before_saving, self._resumed = save, before_saving, resumed
        self._saves_unrounded = saves_unrounded
        self._order = ReadingOrder(1, 1)
        self._began, self._seconds_before = time.time(), resumed[0].seconds if resumed else 0.0
        if resumed:
            self.args.eval_on_start = False  # that stands in the log already

    @property
    def goes_on(self) -> bool:
        """Whether training goes on from a checkpoint rather than begins."""
        return self._resumed is not None

    @override
    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train to the end; raises Stopped where a signal has ended it before."""
        output = super().train(*args, **kwargs)
        if self._stop.by is not None:
            raise Stopped(self._stop.by, self.state.global_step)
        return output

    @override
    def _inner_training_loop(self, *args: Any, **kwargs: Any) -> Any:
        # Any path will do: whatever would be read from there is read by the methods below.
        path = self.args.output_dir if self._resumed else None
        return super()._inner_training_loop(*args, **kwargs | {"resume_from_checkpoint": path})

    @override
    def set_initial_training_values(self, args: Any, dataloader: Any) -> tuple[Any, ...]:
        values = super().set_initial_training_values(args, dataloader)
        _, steps_per_epoch, examples, samples, rows_per_step, batches, max_steps = values
        self._order = ReadingOrder(steps_per_epoch, rows_per_step)
        if self._resumed is None:
            return values
        loop, _ = self._resumed
        self._order = self._order.going_on(loop.position, loop.step)
        if args.max_steps <= 0:
            max_steps = self._order.steps_of(args.num_train_epochs)
        if max_steps <= loop.step:
            raise TrainingError(
                f"the checkpoint has done {loop.step} optimizer steps, and the run is to have {max_steps}",
                hint="raise train.max_steps or train.num_train_epochs",
            )
        return self._order.epochs_of(max_steps), steps_per_epoch, examples, samples, rows_per_step, batches, max_steps

    @override
    def _init_training_state(self, *args: Any, **kwargs: Any) -> tuple[int, int]:
        super()._init_training_state(*args, **kwargs)
        self._began = time.time()
        if self._resumed is None:
            return 0, 0
        loop, _ = self._resumed
        self.state.global_step, self.state.epoch = loop.step, loop.epoch
        self.state.log_history = [dict(entry) for entry in loop.log]
        self.state.best_metric, self.state.best_global_step = loop.best_metric, loop.best_step
        if repeated := self._order.repeated_rows(loop.position):
            logger.info("%d rows are read a second time, as steps had another size before", repeated)
        epochs, steps = self._order.begin
        return epochs, steps * self.args.gradient_accumulation_steps

    @override
    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if self._resumed is None:
            return
        loop, tensors = self._resumed
        restore_unrounded(self.model, tensors)
        restore_optimizer(self._plain_optimizer, self.model, tensors, loop.numbers)
        restore_schedule(self.lr_scheduler, self._plain_optimizer, loop.schedule)

    @override
    def _load_scaler(self, checkpoint: str | None) -> None:
        """Do nothing: nothing is trained in float16."""

    @override
    def _load_rng_state(self, checkpoint: str | None) -> None:
        # Called once, right before the first step that is made: whatever came before has drawn random numbers.
        if self._resumed is None:
            return
        loop, _ = self._resumed
        rank, own = self.args.process_index, _own_share(loop.processes, self.args.process_index, self.args.world_size)
        if rank < len(loop.processes):
            set_random_numbers(loop.processes[rank].random, self.args.device)
        self._tr_loss = torch.tensor(own.loss, device=self.args.device)
        if len(own.heads[0]) == self._num_heads:
            self._meter.add_sums(own.heads)
        self._weights.add_sums(own.weights)
        self._total_loss_scalar, self._globalstep_last_logged = loop.loss_total, loop.logged_step
        self._initial_global_step = 0  # means and speeds in the last line of the log are of the whole run
        self._resumed = None  # its tensors are many

    @override
    def _finalize_training(self, trial: Any, num_train_samples: Any, start_time: float) -> Any:
        return super()._finalize_training(trial, num_train_samples, start_time - self._seconds_before)

    @override
    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        # The last one is published as the final checkpoint, once and under that name.
        if self.state.global_step < self.state.max_steps:
            self._before_saving()
            loop = self._loop()  # all processes have a part in it
            self.on_first_process(lambda: self._publish(self.state.global_step, self.state.best_global_step, loop))

    @property
    def _plain_optimizer(self) -> torch.optim.Optimizer:
        return cast("torch.optim.Optimizer", getattr(self.optimizer, "optimizer", self.optimizer))

    def _loop(self) -> Loop:
        own = ProcessState(
            random=random_numbers(self.args.device),
            loss=self._tr_loss.item(),
            heads=self._meter.sums(),
            weights=self._weights.sums(),
        )
        processes = [ProcessState.model_validate_json(text) for text in self.of_every_process(own.model_dump_json())]
        tensors, numbers = optimizer_state(self._plain_optimizer, self.model)
        tensors |= unrounded_values(self.model) if self._saves_unrounded else {}
        state = self.state
        loop = LoopState(
            step=state.global_step,
            epoch=state.epoch,
            position=self._order.position(state.global_step),
            schedule=self.lr_scheduler.last_epoch,
            rates=[group["lr"] for group in self._plain_optimizer.param_groups],
            log=state.log_history,
            best_metric=state.best_metric,
            best_step=state.best_global_step,
            loss_total=self._total_loss_scalar,
            logged_step=self._globalstep_last_logged,
            seconds=self._seconds_before + time.time() - self._began,
            numbers=numbers,
            processes=processes,
        )
        return loop, gathered(tensors, Path(cast("str", self.args.output_dir)))


def _own_share(processes: list[ProcessState], rank: int, count: int) -> ProcessState:
    """Return what a process goes on with: its own of then, or where their number has changed its part of all."""
    if len(processes) == count:
        return processes[rank]
    loss = sum(process.loss for process in processes) / len(processes)  # of which the mean over processes is logged
    heads, weights = HeadMeter(len(processes[0].heads[0])), WeightMeter()
    for process in processes if rank == 0 else []:
        heads.add_sums(process.heads)
        weights.add_sums(process.weights)
    return processes[0].model_copy(update={"loss": loss, "heads": heads.sums(), "weights": weights.sums()})
