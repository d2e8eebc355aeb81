"""The thin Trainer: what a step divides by, what it reports, when it stops."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PrinterCallback
from typing_extensions import override

from wmtp.algorithms.base import Algorithm, ValueAlgorithm
from wmtp.algorithms.signals import Signals
from wmtp.algorithms.weighting import weight_sums, weighted_sum
from wmtp.data.example import Batch
from wmtp.data.rows import RowDataset
from wmtp.models.output import MTPOutput
from wmtp.models.targets import IGNORE
from wmtp.models.value_heads import without_value_head
from wmtp.training.freed_memory import keep_freed_memory
from wmtp.training.inputs import bounds, model_inputs, signals_of
from wmtp.training.meter import HeadMeter, WeightMeter, row_sums
from wmtp.training.numbered_rows import ROW, NumberedRows, places_of
from wmtp.training.optimizer_step import AroundOptimizerStep, give_own_rate, others, value_parameters
from wmtp.training.resumable import ResumableTrainer
from wmtp.training.sharding import is_sharded

OnlineScore = Callable[[Batch], Tensor]


class WMTPTrainer(ResumableTrainer):
    """Minimises `sum(prior[k] * w[t,k] * CE[t,k]) / N` over valid pairs, and beside it the loss of value heads.

    N is `sum_k prior[k] * (valid pairs of head k)` over the whole optimizer step: all micro-batches and all ranks. The
    value loss is divided by the learned tokens of the step. Batch size, accumulation and number of processes therefore
    change nothing but the time a step takes, where the algorithm's weights do not depend on them either. (Except at
    the end of an epoch whose rows do not divide evenly: processes then repeat rows, so that all have work.)

    Args:
        algorithm: Gives the weights w.
        head_prior: One factor a head; its length is the number of heads trained.
        online: Scores that are computed while training, by name.
        values_only: Train the value heads alone, on their own loss.
        arguments: What `ResumableTrainer` and `transformers.Trainer` take.
    """

    # The loss is divided by the count of the whole step here; Trainer must not divide again.
    loss_is_scaled_for_ga = True

    def __init__(
        self,
        *,
        algorithm: Algorithm,
        head_prior: Float[Tensor, "future"],
        online: Mapping[str, OnlineScore] | None = None,
        values_only: bool = False,
        **arguments: Any,
    ) -> None:
        arguments["model"].leave_out_heads(len(head_prior))
        shares = tuple(head_prior.tolist()) if algorithm.weighs_evenly else None
        without_value_head(arguments["model"]).loss_shares = shares
        super().__init__(horizon=len(head_prior), **arguments)
        self.remove_callback(PrinterCallback)
        self.algorithm = algorithm
        self.head_prior = head_prior.to(self.args.device)
        self._step_losses: list[Tensor] = []
        self._step_rows: list[Tensor | None] = []
        self._step_pairs = self._step_tokens = 1.0
        self._online = online or {}
        self._values_only = values_only
        self.add_callback(AroundOptimizerStep(self._step_losses, self._places, self._end_step))

    @property
    def horizon(self) -> int:
        """Heads that are trained."""
        return len(self.head_prior)

    @override
    def train(self, *args: Any, **kwargs: Any) -> Any:
        if self.args.device.type == "cpu" and not is_sharded(self.model):  # shards are there to take less memory
            keep_freed_memory()
        return super().train(*args, **kwargs)

    @override
    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        optimizer: torch.optim.Optimizer = super().create_optimizer(*args, **kwargs)
        if isinstance(self.algorithm, ValueAlgorithm):
            give_own_rate(optimizer, value_parameters(self.model), self.algorithm.value_learning_rate)
        return optimizer

    @override
    def _clip_grad_norm(self, model: nn.Module) -> Any:
        own = value_parameters(self.model)
        if not own:
            return super()._clip_grad_norm(model)
        # Apart: a large gradient of value heads would otherwise hold back the trunk, from which it is kept.
        self.accelerator.clip_grad_norm_(own, self.args.max_grad_norm)
        return self.accelerator.clip_grad_norm_(others(model.parameters(), own), self.args.max_grad_norm)

    @override
    def get_batch_samples(
        self, epoch_iterator: Iterator[Batch], num_batches: int, device: torch.device
    ) -> tuple[list[Batch], Tensor]:
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        counts = torch.zeros(self.horizon, dtype=torch.float64)
        for batch in batches:
            counts += self._count_valid(batch)
        self._step_losses.clear()
        self._step_rows = [batch.get(ROW) for batch in batches]
        counts = self.total(counts)
        # Nothing valid in the whole step: the loss is 0, not 0 / 0.
        self._step_tokens = max(float(counts[0]), 1.0)
        self._step_pairs = float((counts * self.head_prior.cpu().double()).sum()) or 1.0
        return batches, torch.tensor(self._step_pairs, device=device)

    @override
    def compute_loss(
        self,
        model: nn.Module,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        output: MTPOutput = model(**model_inputs(inputs), with_ce=not self._values_only)
        signals = self._signals(inputs, output)
        loss = torch.zeros((), device=self.args.device)
        if not self._values_only:
            weights = self.algorithm.weights(signals)
            ce = cast("Tensor", output.ce)[..., : self.horizon]
            loss = weighted_sum(ce, weights * self.head_prior, signals.valid) / self._step_pairs
            self._meter.add(row_sums(signals.ce, signals.valid))
            self._weights.add(weight_sums(weights * self.head_prior, signals.valid))
        if isinstance(self.algorithm, ValueAlgorithm):
            loss = loss + self.algorithm.value_loss(signals) / self._step_tokens
        # Gradients are averaged over ranks afterwards, and the divisors already count what all of them have.
        loss = loss * self.accelerator.num_processes
        self._step_losses.append(loss.detach())
        return (loss, output) if return_outputs else loss

    def signals(self, batch: Batch) -> Signals:
        """Return what the algorithm sees of a batch, computed by the model as it is; losses unless values are all."""
        inputs = self._prepare_inputs(batch)
        return self._signals(inputs, self.model(**model_inputs(inputs), with_ce=not self._values_only))

    def _signals(self, inputs: Batch, output: MTPOutput) -> Signals:
        return signals_of(inputs, output, self.head_prior, self._scores(inputs), step=self.state.global_step)

    def _scores(self, inputs: Batch) -> dict[str, Tensor]:
        asked = {score.name for score in self.algorithm.scores}
        computed = {name: score(model_inputs(inputs)) for name, score in self._online.items()}
        return {name: inputs[name] for name in asked - set(computed)} | computed

    @override
    def get_train_dataloader(self) -> Any:
        rows: Any = self.train_dataset
        collate: Any = self.data_collator
        self.train_dataset = numbered = NumberedRows(rows, collate)
        self.data_collator = numbered.collate
        try:
            return super().get_train_dataloader()
        finally:
            self.train_dataset, self.data_collator = rows, collate

    @override
    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        # Trainer has one collator, that of the training rows; these may be packed otherwise, or longer.
        rows: Any = self.eval_dataset if eval_dataset is None else eval_dataset
        of_training, self.data_collator = self.data_collator, rows.collate
        try:
            return super().get_eval_dataloader(eval_dataset)
        finally:
            self.data_collator = of_training

    @override
    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        meter = HeadMeter(self.horizon)
        self.model.eval()
        with torch.no_grad():
            for inputs in self.get_eval_dataloader(eval_dataset):
                output = self.model(**model_inputs(self._prepare_inputs(inputs)), with_top1=True)
                rows = row_sums(output.ce, output.valid, output.top1)[..., : self.horizon]
                meter.add(self.accelerator.gather_for_metrics(rows))
        figures = {"loss": meter.mean_ce(self.head_prior), **meter.figures(with_top1=True)}
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in figures.items()}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    @override
    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        # Asked of what all processes alike know: one that saw nothing valid still has to join in the sums.
        if "loss" in logs and not self._values_only:
            self._meter.reduce(self.total)
            self._weights.reduce(self.total, self.args.process_index, self.accelerator.num_processes)
            if not self._weights.is_empty:
                logs |= self._meter.figures() | self._weights.figures()
            self._meter, self._weights = HeadMeter(self.horizon), WeightMeter()
        super().log(logs, start_time)

    def evaluations(self) -> list[dict[str, float]]:
        """Return the metrics of every validation with its `step`; measures once more when the last is not current."""
        measured = [entry for entry in self.state.log_history if "eval_ce_1" in entry]
        if measured and measured[-1]["step"] != self.state.global_step:
            self.evaluate()
            measured.append(self.state.log_history[-1])
        return measured

    def _places(self, number: int) -> list[str]:
        numbers, rows = self._step_rows[number], cast("RowDataset", self.train_dataset)
        return [] if numbers is None else places_of(rows, numbers.tolist())

    def _end_step(self) -> None:
        # While only values are trained the algorithm weighs nothing, so there is no step that it should know of.
        if not self._values_only:
            self.algorithm.end_step(self.total)

    def _count_valid(self, batch: Batch) -> Tensor:
        return (bounds(batch).targets(batch["labels"], self.horizon) != IGNORE).sum((0, 1)).cpu()
