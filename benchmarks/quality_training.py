"""Small models trained by the project's own trainer, on rows of token ids."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import LlamaConfig, TrainingArguments, set_seed
from typing_extensions import override

from wmtp.algorithms.base import Algorithm, Score, ValueAlgorithm
from wmtp.algorithms.signals import Signals
from wmtp.algorithms.weighting import head_prior
from wmtp.data.rows import RowDataset
from wmtp.models.mtp import MTPForCausalLM
from wmtp.models.targets import shift
from wmtp.models.value_heads import WithValueHead
from wmtp.training.trainer import WMTPTrainer
from wmtp.training.value_stage import fit_values

HEADS = 2
MARKED = "marked"


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


def train(model: MTPForCausalLM, rows: RowDataset, algorithm: Algorithm, budget: Budget, seed: int) -> list[float]:
    """Train a model in place; the order of the rows follows from the seed alone.

    Returns:
        Explained variance by relative position after the first stage of an algorithm with a value head, else nothing.
    """
    algorithm.begin(rows.document_scores())
    set_seed(seed)
    with tempfile.TemporaryDirectory() as scratch:
        arguments = _arguments(scratch, budget, seed)
        if not isinstance(algorithm, ValueAlgorithm):
            _trainer(model, algorithm, arguments, rows).train()
            return []
        valued = WithValueHead(model, model.config.hidden_size, detach_trunk=algorithm.detach_trunk)
        fit = partial(_trainer, valued, algorithm, values_only=True)
        explained = fit_values(algorithm, valued, rows, arguments, fit)
        _trainer(valued, algorithm, arguments, rows).train()
    return explained


def _trainer(
    model: MTPForCausalLM | WithValueHead,
    algorithm: Algorithm,
    arguments: TrainingArguments,
    rows: RowDataset,
    **more: Any,
) -> WMTPTrainer:
    policy = model.model if isinstance(model, WithValueHead) else model
    assert isinstance(policy, MTPForCausalLM)
    return WMTPTrainer(
        model=model,
        args=arguments,
        train_dataset=rows,
        data_collator=rows.collate,
        algorithm=algorithm,
        head_prior=head_prior("uniform", policy.num_heads),
        save=_save_nothing,
        **more,
    )


def _save_nothing(_step: int, _best_step: int | None) -> None:
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


class Watched(Algorithm):
    """An algorithm as it is, which also counts what becomes of marked tokens.

    Args:
        algorithm: Gives the weights. The rows need a score `marked`: 1 at the tokens to count, 0 elsewhere.
    """

    name = "watched"
    training_algorithm = "mtp"

    def __init__(self, algorithm: Algorithm) -> None:
        super().__init__()
        self.inner = algorithm
        self.roles = algorithm.roles
        self.scores = (*algorithm.scores, Score(MARKED, "column", column=MARKED))
        self._sums = torch.zeros(4, dtype=torch.float64)

    @override
    def weights(self, signals: Signals) -> Float[Tensor, "batch seq future"]:
        weights = self.inner.weights(signals)
        of_tokens = shift(weights[..., 0], -1, fill=0.0)[signals.learned]
        marked = signals.scores[MARKED][signals.learned]
        parts = (marked, marked * (of_tokens > 0), marked * of_tokens, of_tokens)
        self._sums += torch.stack([part.double().sum() for part in parts])
        return weights

    @override
    def begin(self, scores: Mapping[str, Float[Tensor, "documents"]]) -> None:
        self.inner.begin(scores)

    @override
    def end_step(self, total: Callable[[Tensor], Tensor]) -> None:
        self.inner.end_step(total)

    def figures(self) -> dict[str, float]:
        """Return the share of marked tokens that were kept (weight above 0), and their share of all weight."""
        marked, kept, weight, all_weight = self._sums.tolist()
        return {"share_kept": kept / max(marked, 1), "share_of_weight": weight / max(all_weight, 1)}
