"""Small models trained by the project's own trainer, on rows of token ids."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers import LlamaConfig, TrainerCallback, TrainingArguments, set_seed
from typing_extensions import override

from wmtp.algorithms.base import Algorithm, ValueAlgorithm
from wmtp.algorithms.weighting import head_prior
from wmtp.data.folds import with_folds
from wmtp.data.rows import RowDataset
from wmtp.models.mtp import MTPForCausalLM
from wmtp.models.value_heads import WithValueHead
from wmtp.training.trainer import WMTPTrainer
from wmtp.training.value_stage import fit_values

HEADS = 2


@dataclass(frozen=True)
class Shape:
    """The size of a model, a llama with one linear head beside its next-token head."""

    vocabulary: int
    context: int
    width: int = 64
    layers: int = 2


@dataclass(frozen=True)
class Budget:
    """How long is trained: optimizer steps of `batch_size` rows, at a rate that falls to 0 after a short warm-up."""

    steps: int
    batch_size: int
    learning_rate: float


def new_model(shape: Shape, seed: int, *, heads: int = HEADS) -> MTPForCausalLM:
    """Return a model with random weights; its next-token part is the same for a seed, however many heads."""
    config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        intermediate_size=3 * shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=shape.context,
        initializer_range=0.1,  # at 0.02, a model this narrow needs hundreds of steps to leave the uniform distribution
        bos_token_id=None,
        eos_token_id=None,
    )
    config.mtp_config = {"n_future_tokens": heads, "head_type": "linear"}
    set_seed(seed)
    return MTPForCausalLM(config)


@dataclass(frozen=True)
class Watch:
    """What is looked at while a model is trained: before the first step, every so many steps, and after the last.

    Attributes:
        every: Optimizer steps.
        look: Returns figures by name; the trainer's model is the one that is trained.
    """

    every: int
    look: Callable[[WMTPTrainer], dict[str, float]]


@dataclass(frozen=True)
class Trained:
    """What was seen of a training.

    Attributes:
        explained: Explained variance by relative position after the first stage of an algorithm with value heads.
        curve: What was looked at, with the `step`.
    """

    explained: list[float] = field(default_factory=list)
    curve: list[dict[str, float]] = field(default_factory=list)


def train(
    model: MTPForCausalLM,
    rows: RowDataset,
    algorithm: Algorithm,
    budget: Budget,
    seed: int,
    watch: Watch | None = None,
) -> Trained:
    """Train a model in place; the order of the rows follows from the seed alone."""
    algorithm.begin(rows.document_scores())
    set_seed(seed)
    trained = Trained()
    with tempfile.TemporaryDirectory() as scratch:
        arguments = _arguments(scratch, budget, seed)
        learner: MTPForCausalLM | WithValueHead = model
        if isinstance(algorithm, ValueAlgorithm):
            rows = with_folds(rows, algorithm.folds)
            learner = _with_value_heads(model, algorithm)
            fit = partial(_trainer, learner, algorithm, values_only=True)
            trained.explained.extend(fit_values(algorithm, learner, rows, arguments, fit))
            algorithm.require_fit(trained.explained)
        trainer = _trainer(learner, algorithm, arguments, rows)
        if watch:
            trainer.add_callback(_Watcher(watch, trainer, trained.curve))
        trainer.train()
    return trained


class _Watcher(TrainerCallback):
    def __init__(self, watch: Watch, trainer: WMTPTrainer, curve: list[dict[str, float]]) -> None:
        self._watch, self._trainer, self._curve = watch, trainer, curve

    @override
    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._look(state.global_step)

    @override
    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step % self._watch.every == 0 or state.global_step == state.max_steps:
            self._look(state.global_step)

    def _look(self, step: int) -> None:
        self._trainer.model.eval()
        with torch.no_grad():
            self._curve.append({"step": step, **self._watch.look(self._trainer)})
        self._trainer.model.train()


def _with_value_heads(model: MTPForCausalLM, algorithm: ValueAlgorithm) -> WithValueHead:
    return WithValueHead(
        model,
        model.config.hidden_size,
        detach_trunk=algorithm.detach_trunk,
        folds=algorithm.folds,
        values_tokens=algorithm.values_tokens,
    )


def policy(model: nn.Module) -> MTPForCausalLM:
    """Return what predicts tokens in what is trained."""
    found = model.model if isinstance(model, WithValueHead) else model
    assert isinstance(found, MTPForCausalLM)
    return found


def _trainer(
    model: MTPForCausalLM | WithValueHead,
    algorithm: Algorithm,
    arguments: TrainingArguments,
    rows: RowDataset,
    **more: Any,
) -> WMTPTrainer:
    return WMTPTrainer(
        model=model,
        args=arguments,
        train_dataset=rows,
        data_collator=rows.collate,
        algorithm=algorithm,
        head_prior=head_prior("uniform", policy(model).num_heads),
        save=_save_nothing,
        **more,
    )


def _save_nothing(*_: object) -> None:
    """Keep no checkpoint: the trained model is in memory."""


def _arguments(directory: str, budget: Budget, seed: int) -> TrainingArguments:
    return TrainingArguments(
        output_dir=directory,
        use_cpu=True,
        seed=seed,
        data_seed=seed,
        accelerator_config={"use_seedable_sampler": True},
        max_steps=budget.steps,
        per_device_train_batch_size=budget.batch_size,
        learning_rate=budget.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=min(50, budget.steps // 10),
        weight_decay=0.01,
        max_grad_norm=1.0,
        logging_steps=budget.steps,
        logging_nan_inf_filter=False,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
    )


@torch.no_grad()
def next_token_loss(model: MTPForCausalLM, rows: RowDataset) -> float:
    """Return the mean cross-entropy of head 1 over all tokens of rows, in nats."""
    total, count = 0.0, 0
    model.eval()
    for start in range(0, len(rows), 64):
        output = model(**rows.collate(rows.rows[start : start + 64]))
        total += float(output.ce[..., 0].double().sum())
        count += int(output.valid[..., 0].sum())
    model.train()
    return total / count
