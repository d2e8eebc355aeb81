"""The thin Trainer: what a step divides by, what it reports, when it stops."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PrinterCallback, Trainer
from typing_extensions import override

from wmtp.algorithms.base import Algorithm, ValueAlgorithm
from wmtp.algorithms.signals import Signals
from wmtp.algorithms.weighting import weight_sums, weighted_sum
from wmtp.data.example import Batch
from wmtp.data.folds import FOLD
from wmtp.models.output import MTPOutput
from wmtp.models.targets import IGNORE
from wmtp.training.inputs import bounds, model_inputs
from wmtp.training.meter import HeadMeter, WeightMeter, row_sums
from wmtp.training.optimizer_step import AroundOptimizerStep, give_own_rate, others, value_parameters

OnlineScore = Callable[[Batch], Tensor]


class WMTPTrainer(Trainer):  # type: ignore[misc, unused-ignore]
    """Minimises `sum(prior[k] * w[t,k] * CE[t,k]) / N` over valid pairs, and beside it the loss of value heads.

    N is `sum_k prior[k] * (valid pairs of head k)` over the whole optimizer step: all micro-batches and all ranks. The
    value loss is divided by the learned tokens of the step. Batch size, accumulation and number of processes therefore
    change nothing but the time a step takes, where the algorithm's weights do not depend on them either. (Except at
    the end of an epoch whose rows do not divide evenly: processes then repeat rows, so that all have work.)

    Args:
        algorithm: Gives the weights w.
        head_prior: One factor a head; its length is the number of heads trained.
        save: Called on the first process when a checkpoint is due before the end, with the step and the best step
            so far: the validated one with the lowest next-token cross-entropy.
        online: Scores that are computed while training, by name.
        before_saving: Called on all processes before that.
        values_only: Train the value heads alone, on their own loss.
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
        before_saving: Callable[[], None] = lambda: None,
        online: Mapping[str, OnlineScore] | None = None,
        values_only: bool = False,
        **arguments: Any,
    ) -> None:
        arguments["model"].leave_out_heads(len(head_prior))
        super().__init__(**arguments)
        self.remove_callback(PrinterCallback)
        self.algorithm = algorithm
        self.head_prior = head_prior.to(self.args.device)
        self._step_losses: list[Tensor] = []
        self._step_pairs = self._step_tokens = 1.0
        self._online = online or {}
        self._values_only = values_only
        self._publish, self._before_saving = save, before_saving
        self._meter = HeadMeter(len(head_prior))
        self._weights = WeightMeter()
        self.add_callback(AroundOptimizerStep(self._step_losses, self._end_step))

    @property
    def horizon(self) -> int:
        """Heads that are trained."""
        return len(self.head_prior)

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
        ce, valid = cast("Tensor", output.ce), cast("Tensor", output.valid)
        documents = bounds(inputs).document_ids
        return Signals(
            ce=ce[..., : self.horizon].detach().float(),
            valid=valid[..., : self.horizon],
            prior=self.head_prior,
            document_ids=torch.zeros_like(inputs["input_ids"]) if documents is None else documents,
            scores=self._scores(inputs),
            values=output.state_values,
            token_values=output.token_values,
            folds=inputs[FOLD].long() if FOLD in inputs else None,
            step=self.state.global_step,
        )

    def _scores(self, inputs: Batch) -> dict[str, Tensor]:
        asked = {score.name for score in self.algorithm.scores}
        computed = {name: score(model_inputs(inputs)) for name, score in self._online.items()}
        return {name: inputs[name] for name in asked - set(computed)} | computed

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

    @override
    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        # The last one is published as the final checkpoint, once and under that name.
        if not self.control.should_training_stop:
            self._before_saving()
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

    def _end_step(self) -> None:
        # While only values are trained the algorithm weighs nothing, so there is no step that it should know of.
        if not self._values_only:
            self.algorithm.end_step(self.total)

    def _count_valid(self, batch: Batch) -> Tensor:
        return (bounds(batch).targets(batch["labels"], self.horizon) != IGNORE).sum((0, 1)).cpu()

    def of_first_process(self, figures: list[float]) -> list[float]:
        """Return what the first process has found, on all: what each finds alone may differ by rounding."""
        found = torch.tensor(figures, dtype=torch.float64)
        return self.total(found if self.is_world_process_zero() else torch.zeros_like(found)).tolist()

    def total(self, values: Tensor) -> Tensor:
        """Return the sum over all processes, which exchange it through their devices."""
        if self.accelerator.num_processes == 1:
            return values
        exchanged = self.accelerator.reduce(values.to(self.args.device), reduction="sum")
        return cast("Tensor", exchanged.to(values.device))
