"""The thin Trainer: what a step divides by, what it reports, when it stops."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PrinterCallback, Trainer, TrainerCallback
from typing_extensions import override

from wmtp.algorithms.base import Algorithm
from wmtp.algorithms.weighting import weight_statistics, weighted_sum
from wmtp.errors import TrainingError
from wmtp.models.targets import IGNORE
from wmtp.models.targets import Rows as RowBounds
from wmtp.training.meter import HeadMeter, row_sums
from wmtp.training.rows import Batch


class WMTPTrainer(Trainer):  # type: ignore[misc, unused-ignore]
    """Minimises `sum(prior[k] * w[t,k] * CE[t,k]) / N` over valid pairs.

    N is `sum_k prior[k] * (valid pairs of head k)` over the whole optimizer step: all micro-batches and all ranks.
    Batch size, accumulation and number of processes therefore change nothing but the time a step takes. (Except at the
    end of an epoch whose rows do not divide evenly: processes then repeat rows, so that all have work.)

    Args:
        algorithm: Gives the weights w.
        head_prior: One factor a head; its length is the number of heads trained.
        save: Called on the first process when a checkpoint is due before the end, with the step and the best step
            so far: the validated one with the lowest next-token cross-entropy.
        arguments: What `transformers.Trainer` takes.
    """

    model: nn.Module
    # The loss is divided by the count of the whole step here; Trainer must not divide again.
    loss_is_scaled_for_ga = True

    def __init__(
        self,
        *,
        algorithm: Algorithm,
        head_prior: Float[Tensor, "future"],
        save: Callable[[int, int | None], None],
        **arguments: Any,
    ) -> None:
        super().__init__(**arguments)
        self.remove_callback(PrinterCallback)
        self.add_callback(_StopBeforeDamage(self))
        self.algorithm = algorithm
        self.head_prior = head_prior.to(self.args.device)
        self.step_losses: list[Tensor] = []
        self._publish = save
        self._meter = HeadMeter(len(head_prior))
        self._weights: list[dict[str, float]] = []

    @property
    def horizon(self) -> int:
        """Heads that are trained."""
        return len(self.head_prior)

    @override
    def get_batch_samples(
        self, epoch_iterator: Iterator[Batch], num_batches: int, device: torch.device
    ) -> tuple[list[Batch], Tensor]:
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        counts = torch.zeros(self.horizon, dtype=torch.float64)
        for batch in batches:
            counts += self._count_valid(batch)
        self.step_losses.clear()
        pairs = (self._total(counts) * self.head_prior.cpu().double()).sum()
        # Nothing valid in the whole step: the loss is 0, not 0 / 0.
        return batches, torch.where(pairs > 0, pairs, 1.0).float().to(device)

    @override
    def compute_loss(
        self,
        model: nn.Module,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        output = model(**inputs)
        ce, valid = output.ce[..., : self.horizon], output.valid[..., : self.horizon]
        weights = self.algorithm.weights(ce.detach(), valid) * self.head_prior
        # Gradients are averaged over ranks afterwards, and N already counts the pairs of all of them.
        loss = weighted_sum(ce, weights, valid) * self.accelerator.num_processes / num_items_in_batch
        self.step_losses.append(loss.detach())
        self._meter.add(row_sums(ce.detach(), valid))
        self._weights.append(weight_statistics(weights, valid))
        return (loss, output) if return_outputs else loss

    @override
    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        meter = HeadMeter(self.horizon)
        self.model.eval()
        with torch.no_grad():
            for inputs in self.get_eval_dataloader(eval_dataset):
                output = self.model(**self._prepare_inputs(inputs), with_top1=True)
                rows = row_sums(output.ce, output.valid, output.top1)[..., : self.horizon]
                meter.add(self.accelerator.gather_for_metrics(rows))
        figures = {"loss": meter.mean_ce(self.head_prior), **meter.figures(with_top1=True)}
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in figures.items()}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    @override
    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs and self._weights:
            self._meter.reduce(self._total)
            logs |= self._meter.figures() | _mean_statistics(self._weights)
            self._meter, self._weights = HeadMeter(self.horizon), []
        super().log(logs, start_time)

    @override
    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        # The last one is published as the final checkpoint, once and under that name.
        if not self.control.should_training_stop:
            self.on_first_process(lambda: self._publish(self.state.global_step, self.state.best_global_step))

    def on_first_process(self, act: Callable[[], None]) -> None:
        """Do something on the first process while the others wait."""
        if self.is_world_process_zero():
            act()
        self.accelerator.wait_for_everyone()

    def evaluations(self) -> list[dict[str, float]]:
        """Return the metrics of every validation with its `step`; measures once more when the last is not current."""
        measured = [entry for entry in self.state.log_history if "eval_ce_1" in entry]
        if measured and measured[-1]["step"] != self.state.global_step:
            self.evaluate()
            measured.append(self.state.log_history[-1])
        return measured

    def _count_valid(self, batch: Batch) -> Tensor:
        bounds = RowBounds.of(batch.get("attention_mask"), batch.get("position_ids"), batch.get("document_ids"))
        targets = bounds.targets(batch["labels"], self.horizon)
        return (targets != IGNORE).sum((0, 1)).cpu()

    def _total(self, values: Tensor) -> Tensor:
        """Return the sum over all processes, which exchange it through their devices."""
        if self.accelerator.num_processes == 1:
            return values
        return self.accelerator.reduce(values.to(self.args.device), reduction="sum").cpu()


class _StopBeforeDamage(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """Stops before an optimizer step whose loss or gradient is not finite: it would destroy every weight."""

    def __init__(self, trainer: WMTPTrainer) -> None:
        self._trainer = trainer

    @override
    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        losses = torch.stack(self._trainer.step_losses).tolist()
        step = state.global_step + 1
        for number, loss in enumerate(losses, start=1):
            if not math.isfinite(loss):
                _stop(f"step {step}: the loss of micro-batch {number} of {len(losses)} is {loss}")
        gradients = [p.grad for p in self._trainer.model.parameters() if p.grad is not None]
        norm = float(torch.nn.utils.get_total_norm(gradients))
        if not math.isfinite(norm):
            _stop(f"step {step}: the norm of the gradient is {norm}")


def _stop(problem: str) -> NoReturn:
    raise TrainingError(
        f"{problem}; stopped before the optimizer step, checkpoints written so far are untouched",
        hint="lower train.learning_rate, set train.max_grad_norm, or train with devices.dtype float32",
    )


def _mean_statistics(statistics: list[dict[str, float]]) -> dict[str, float]:
    """Return the mean of each statistic over micro-batches; of a maximum, the largest."""
    gathered = {name: [entry[name] for entry in statistics] for name in statistics[0]}
    return {
        f"weight_{name}": max(values) if name == "max" else sum(values) / len(values)
        for name, values in gathered.items()
    }
