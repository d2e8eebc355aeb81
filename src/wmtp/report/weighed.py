"""Weights of held-out tokens at one step of a run: the algorithm's own, on the model that the step has saved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from wmtp.algorithms.base import Algorithm
from wmtp.algorithms.weighting import describe_weights, head_prior, weight_sums
from wmtp.data.example import Batch, Example
from wmtp.data.rows import RowDataset
from wmtp.factory import ComponentFactory, create_model_loader
from wmtp.models.adapter import trainable
from wmtp.models.targets import shift
from wmtp.settings.config import Config
from wmtp.settings.recipe import Recipe
from wmtp.training.inputs import model_inputs, signals_of
from wmtp.training.preparation import probe
from wmtp.training.restoring import TrainedModel, restore_algorithm


@dataclass(frozen=True)
class WeighedBatch:
    """What an algorithm says of a batch. All are indexed by the token that is predicted, not by where from.

    Attributes:
        weights: With which weight head k learns token j; NaN where it does not.
        ce: Its cross-entropy there in nats; NaN where it does not learn it.
        figures: What else the algorithm says of a token, by name; NaN where head 1 does not learn it.
    """

    weights: Float[Tensor, "batch future seq"]
    ce: Float[Tensor, "batch future seq"]
    figures: Mapping[str, Float[Tensor, "batch seq"]]


@dataclass(frozen=True)
class WeighedStep:
    """Every row at one step.

    Attributes:
        batches: The rows, batch by batch.
        statistics: Of the weights of each head, as `describe_weights` returns them.
    """

    batches: list[WeighedBatch]
    statistics: list[dict[str, float]]


@dataclass(frozen=True)
class SavedModel:
    """The model of a step, with the algorithm as it was then.

    Attributes:
        model: With value heads where the algorithm has them; in eval mode.
        algorithm: With its running figures.
        prior: One factor a head.
        step: Optimizer steps done.
    """

    model: TrainedModel
    algorithm: Algorithm
    prior: Float[Tensor, "future"]
    step: int

    @classmethod
    def load(cls, path: Path, step: int, config: Config, recipe: Recipe) -> SavedModel:
        """Load a checkpoint as a run goes on from it; takes and raises what loading does."""
        base = create_model_loader(config).load(path)
        algorithm, model = ComponentFactory.create_algorithm(recipe), trainable(base.model, backend=recipe.loss.backend)
        heads, _, width = probe(model)
        prior = head_prior(recipe.loss.head_prior, recipe.mtp.horizon or heads)
        model.leave_out_heads(len(prior))
        restored = restore_algorithm(algorithm, model, base, width, recipe.run.seed)
        return cls(restored.eval(), algorithm, prior.to(next(model.parameters()).device), step)

    @torch.no_grad()
    def weigh(self, batch: Batch) -> tuple[WeighedBatch, Float[Tensor, "future 6"]]:
        """Return what the algorithm says of a batch, and `weight_sums` of each head."""
        batch = {name: tensor.to(self.prior.device) for name, tensor in batch.items()}
        scores = {score.name: batch[score.name] for score in self.algorithm.scores}
        signals = signals_of(batch, self.model(**model_inputs(batch)), self.prior, scores, step=self.step)
        weights, valid = self.algorithm.weights(signals), signals.valid
        figures = {name: values.masked_fill(~signals.learned, torch.nan) for name, values in self._said(signals)}
        heads = range(len(self.prior))
        sums = torch.stack([weight_sums(weights[..., k : k + 1], valid[..., k : k + 1]) for k in heads])
        seen = [by_token(each.float().masked_fill(~valid, torch.nan)).cpu() for each in (weights, signals.ce)]
        return WeighedBatch(seen[0], seen[1], figures), sums.cpu()

    def _said(self, signals: object) -> Iterator[tuple[str, Tensor]]:
        for name, values in self.algorithm.explain(signals).items():  # type: ignore[arg-type]
            yield name, values.detach().float().cpu()


def by_token(values: Float[Tensor, "batch seq future"]) -> Float[Tensor, "batch future seq"]:
    """Move what head k has at position t to the token that it predicts there, t + k; NaN where none is predicted."""
    heads = values.unbind(2)
    return torch.stack([shift(head, -k, torch.nan) for k, head in enumerate(heads, start=1)], dim=1)


def weigh_rows(saved: SavedModel, rows: RowDataset, batch_size: int) -> WeighedStep:
    """Weigh rows in batches of so many, in their order."""
    starts = range(0, len(rows), batch_size)
    weighed = [saved.weigh(rows.collate(rows.rows[start : start + batch_size])) for start in starts]
    sums = torch.stack([each for _, each in weighed])
    joined = torch.cat([sums[..., :-1].sum(0), sums[..., -1:].amax(0)], dim=-1)
    return WeighedStep([batch for batch, _ in weighed], [describe_weights(each) for each in joined])


@dataclass(frozen=True)
class Place:
    """Where a document is among rows in batches.

    Attributes:
        example: Its tokens.
        batch: Number of the batch.
        row: Row of the batch.
        start: Place of its first token in the row.
    """

    example: Example
    batch: int
    row: int
    start: int

    def of(self, values: Float[Tensor, "batch *shape seq"], length: int) -> Float[Tensor, "*shape tokens"]:
        """Return what a tensor of its batch has for its first tokens."""
        return values[self.row, ..., self.start : self.start + length]


def places(rows: RowDataset, batch_size: int) -> list[Place]:
    """Return where every document is."""
    return [place for number in range(len(rows)) for place in _in_row(rows[number], *divmod(number, batch_size))]


def _in_row(row: Sequence[Example], batch: int, number: int) -> Iterator[Place]:
    start = 0
    for example in row:
        yield Place(example, batch, number, start)
        start += len(example)
