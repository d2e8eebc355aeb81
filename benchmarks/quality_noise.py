"""Noise recovery: how much of what noise in the training text costs does selecting tokens win back?

Text is the standard library of Python, byte by byte. A known share of the bytes that the policy trains on is replaced
by random printable ones. References train on other files of it, without noise. All models are measured on files that
none has seen, without noise.

Fixed before any result was seen: everything in `FULL`; the learning rate alone was chosen, on the arm `clean`. The
references' budgets are shares of the policy's own, so that the weakest is far below the policy, and the strongest saw
as much as it, but clean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from quality_marked import MARKED, Watched
from quality_training import Budget, Shape, new_model, next_token_loss, train
from torch import Tensor
from typing_extensions import override

from wmtp.algorithms.base import Algorithm
from wmtp.algorithms.baseline_mtp import BaselineMTP
from wmtp.algorithms.rho1_section import Rho1Section
from wmtp.algorithms.rho1_selection import REFERENCE_NLL
from wmtp.algorithms.rho1_wmtp import Rho1WMTP
from wmtp.algorithms.signals import Signals
from wmtp.data.example import Example
from wmtp.data.rows import RowDataset
from wmtp.demo.zoo import stdlib_sources
from wmtp.models.causal import causal_model
from wmtp.models.mtp import MTPForCausalLM
from wmtp.scoring.nll import token_losses

_PRINTABLE = (32, 127)  # of random bytes: from the first, up to before the second
_OTHER = ord("?")  # stands for the few bytes that are not ASCII


@dataclass(frozen=True)
class Sizes:
    """What is run: models, budgets, seeds and noise."""

    shape: Shape
    budget: Budget
    seeds: tuple[int, ...]
    references: tuple[float, ...]
    noise: float
    keep_ratio: float
    held_out_rows: int
    arms: tuple[str, ...]


FULL = Sizes(
    shape=Shape(vocabulary=128, context=128),
    budget=Budget(steps=300, batch_size=16, learning_rate=8e-3),
    seeds=(0, 1, 2),
    references=(0.125, 0.25, 0.5, 1.0),
    noise=0.2,
    keep_ratio=0.7,
    held_out_rows=512,
    arms=("clean", "uniform", "random", "token_skip", "weighted", "absolute"),
)
SHORT = replace(
    FULL,
    budget=replace(FULL.budget, steps=150),
    seeds=(0,),
    references=(1.0,),
    held_out_rows=128,
    arms=("clean", "uniform", "token_skip", "absolute"),
)


class AbsoluteScore(Rho1WMTP):
    """rho1 with the excess loss without its sign: what a token is better at counts like what it is worse at."""

    @override
    def _by_share(self, scores: Float[Tensor, "batch seq"], signals: Signals) -> Float[Tensor, "batch seq future"]:
        return super()._by_share(scores.abs(), signals)


class RandomSkip(Rho1WMTP):
    """As many tokens skipped as rho1 would, at random; no reference."""

    def __init__(self, section: Rho1Section) -> None:
        super().__init__(section)
        self.scores = ()
        self._draws = torch.Generator().manual_seed(0)

    @override
    def weights(self, signals: Signals) -> Float[Tensor, "batch seq future"]:
        return self._by_share(torch.rand(signals.learned.shape, generator=self._draws), signals)


def _token_skip(keep: float) -> Algorithm:
    return Rho1WMTP(Rho1Section(selection_mode="token_skip", keep_ratio=keep))


def _weighted(keep: float) -> Algorithm:
    return Rho1WMTP(Rho1Section(selection_mode="weighted", keep_ratio=keep))


ALGORITHMS: Mapping[str, Callable[[float], Algorithm]] = {
    "clean": lambda _: BaselineMTP(),
    "uniform": lambda _: BaselineMTP(),
    "random": lambda keep: RandomSkip(Rho1Section(keep_ratio=keep)),
    "token_skip": _token_skip,
    "weighted": _weighted,
    "absolute": lambda keep: AbsoluteScore(Rho1Section(keep_ratio=keep)),
}
SELECTING = ("token_skip", "weighted", "absolute")


@cache
def text_of(part: str) -> Int[Tensor, "bytes"]:
    """Return the bytes of one part of the corpus; every file is in one part alone.

    Args:
        part: `policy`, `reference` or `held_out`.
    """
    of = {"policy": (0, 2, 4, 6, 8), "reference": (1, 3, 5, 7), "held_out": (9,)}[part]
    content = b"".join(path.read_bytes() for index, path in enumerate(stdlib_sources()) if index % 10 in of)
    ids = torch.frombuffer(bytearray(content), dtype=torch.uint8).int()
    return torch.where(ids < 128, ids, _OTHER)


def rows_of(part: str, count: int, context: int, seed: int) -> tuple[Int[Tensor, "rows seq"], torch.Generator]:
    """Return pieces of a part's text without overlap, chosen by the seed, and the generator that chose them."""
    pieces = text_of(part).unfold(0, context, context)
    if count > len(pieces):
        raise SystemExit(f"error: {part}: {len(pieces)} pieces of {context} bytes, {count} are needed")
    draws = torch.Generator().manual_seed(seed)
    return pieces[torch.randperm(len(pieces), generator=draws)[:count]], draws


def with_noise(
    ids: Int[Tensor, "rows seq"], share: float, draws: torch.Generator
) -> tuple[Int[Tensor, "rows seq"], Bool[Tensor, "rows seq"]]:
    """Return text in which each byte is random with probability `share`, and which bytes are."""
    noisy = torch.rand(ids.shape, generator=draws) < share
    noise = torch.randint(*_PRINTABLE, ids.shape, generator=draws, dtype=ids.dtype)
    return torch.where(noisy, noise, ids), noisy


def training_rows(sizes: Sizes, seed: int, *, clean: bool) -> RowDataset:
    """Return the policy's training rows, each seen once, with the score `marked`: 1 at a random byte."""
    ids, draws = rows_of("policy", sizes.budget.steps * sizes.budget.batch_size, sizes.shape.context, seed)
    noisy = torch.zeros_like(ids, dtype=torch.bool)
    if not clean:
        ids, noisy = with_noise(ids, sizes.noise, draws)
    return RowDataset([(Example(row, scores={MARKED: at.float()}),) for row, at in zip(ids, noisy, strict=True)])


def plain_rows(part: str, count: int, context: int, seed: int) -> RowDataset:
    """Return rows of a part's text as it is."""
    return RowDataset([(Example(row),) for row in rows_of(part, count, context, seed)[0]])


def held_out(sizes: Sizes) -> RowDataset:
    """Return the rows that every model is measured on, the same for all seeds."""
    return plain_rows("held_out", sizes.held_out_rows, sizes.shape.context, seed=0)


def train_reference(sizes: Sizes, seed: int, share: float, path: Path) -> dict[str, Any]:
    """Train a plain next-token model on clean text with a share of the policy's budget.

    Args:
        sizes: What is run.
        seed: Of its weights and its text, and of the policy whose training text it scores.
        share: Of the policy's optimizer steps.
        path: Where its losses on that text are kept.

    Returns:
        Its loss on clean held-out text, and on the bytes of the policy's text that are random and that are not.
    """
    steps = round(share * sizes.budget.steps)
    budget = Budget(steps, sizes.budget.batch_size, sizes.budget.learning_rate)
    rows = plain_rows("reference", steps * budget.batch_size, sizes.shape.context, seed)
    model = new_model(sizes.shape, seed + 1000, heads=1)
    train(model, rows, BaselineMTP(), budget, seed)
    scored = training_rows(sizes, seed, clean=False)
    losses = reference_losses(scored, model)
    torch.save(losses, path)
    noisy = torch.stack([example.scores[MARKED] for example in scored.examples]).bool()
    noisy, losses = noisy[:, 1:], losses[:, 1:]  # the first byte of a row has nothing before it, and no loss
    return {
        "held_out_loss": next_token_loss(model, held_out(sizes)),
        "loss_on_noise": float(losses[noisy].mean()),
        "loss_on_text": float(losses[~noisy].mean()),
    }


def reference_losses(rows: RowDataset, model: MTPForCausalLM) -> Float[Tensor, "rows seq"]:
    """Return the loss of a reference at every byte, computed as `wmtp score` does."""
    frozen, texts = causal_model(model), [example.input_ids for example in rows.examples]
    parts = [token_losses(frozen, texts[start : start + 64], torch.device("cpu")) for start in range(0, len(texts), 64)]
    return torch.stack([loss for part in parts for loss in part])


def train_policy(sizes: Sizes, seed: int, arm: str, reference: Path | None) -> dict[str, Any]:
    """Train one policy; returns its loss on clean held-out text and what became of the random bytes."""
    rows = training_rows(sizes, seed, clean=arm == "clean")
    if reference is not None:
        rows = rows.with_scores(REFERENCE_NLL, torch.load(reference, weights_only=True).unbind())
    algorithm = Watched(ALGORITHMS[arm](sizes.keep_ratio))
    policy = new_model(sizes.shape, seed)
    train(policy, rows, algorithm, sizes.budget, seed)
    return {"held_out_loss": next_token_loss(policy, held_out(sizes)), **algorithm.figures()}
