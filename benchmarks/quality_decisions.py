"""Many decisions: is credit given to the token that earned it, where a document makes eight decisions of its own?

Each of a document's eight answers is right by a coin of its own, else one too many; its reward is the share of right
ones. Few documents are good throughout: whoever weighs whole documents learns from those few alone, or learns the wrong
answers of the better ones too. There are 2,048 documents, seen again and again, so that heads which remember a
document's reward can be told from heads that explain it.

Measured on sums drawn afresh, every so many steps: the probability of the right answer, over all eight answers of
documents by coin; and what the eight answers of a document that is right throughout cost, in nats. Of the weights: the
effective share of tokens, (sum w)^2 / (n sum w^2), and how well a weight tells a right answer from a wrong one (AUROC).

Sizes and budgets were fixed by how long pretraining takes to know both answers to any sum, and by the time there was.
critic-wmtp has its default settings where an arm says nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Bool, Float
from quality_arms import Arm
from quality_sums import (
    RIGHT,
    documents,
    pretrain,
    pretrained,
    probabilities,
    right_answers,
    rows_of,
    shape_of,
)
from quality_training import Budget, Shape, Watch, policy, train
from torch import Tensor

from wmtp.data.rows import RowDataset
from wmtp.models.mtp import MTPForCausalLM
from wmtp.models.targets import shift
from wmtp.training.trainer import WMTPTrainer

NUM_SUMS = 8


@dataclass(frozen=True)
class Sizes:
    """What is run: model, budgets, documents, arms and seeds.

    Attributes:
        documents: How many an arm is trained on.
        every: Optimizer steps from one measurement to the next.
        measured: Documents that models are measured on.
        weighed: Training documents whose weights are looked at.
    """

    shape: Shape
    pretraining: Budget
    budget: Budget
    seeds: tuple[int, ...]
    arms: tuple[Arm, ...]
    documents: int = 2048
    every: int = 50
    measured: int = 512
    weighed: int = 512


FULL = Sizes(
    shape=shape_of(NUM_SUMS, width=32),
    pretraining=Budget(steps=600, batch_size=64, learning_rate=5e-3),
    budget=Budget(steps=300, batch_size=64, learning_rate=1e-3),
    seeds=(0, 1, 2),
    arms=(
        Arm("all"),
        Arm("at least 7 of 8 right", least_reward=7 / 8),
        Arm("documents by exp(R)", temperature=1.0),
        Arm("documents by exp(R / 0.5)", temperature=0.5),
        Arm("documents by exp(R / 0.25)", temperature=0.25),
        Arm("token", critic={}),
        Arm("token, folds 1", critic={"folds": 1}),
        Arm("token, shuffled", critic={}, shuffled=True),
        Arm("without wrong answers", knows_answers=True),
    ),
)
_IN_SHORT = {"documents by exp(R)", "documents by exp(R / 0.25)", "token", "token, shuffled"}
SHORT = replace(FULL, seeds=(0,), arms=tuple(arm for arm in FULL.arms if arm.name in _IN_SHORT))


def coins(count: int, draws: torch.Generator) -> Bool[Tensor, "documents sums"]:
    """Return which answers of documents are right."""
    return torch.rand((count, NUM_SUMS), generator=draws) < 0.5


def training_rows(sizes: Sizes, seed: int, arm: Arm) -> RowDataset:
    """Return the documents of an arm; where it leaves some out the others are seen the more often."""
    draws = torch.Generator().manual_seed(seed)
    right = coins(sizes.documents, draws)
    ids, rewards = documents(right, draws), right.float().mean(1)
    if arm.shuffled:
        rewards = rewards[torch.randperm(len(rewards), generator=draws)]
    kept = rewards >= (arm.least_reward or 0)
    return rows_of(ids[kept], right[kept], rewards[kept])


def train_first(sizes: Sizes, seed: int, path: Path) -> dict[str, Any]:
    """Train the model that all arms of a seed begin from on documents by coin, each seen once, and keep it."""
    draws = torch.Generator().manual_seed(seed)
    ids = documents(coins(sizes.pretraining.steps * sizes.pretraining.batch_size, draws), draws)
    return measured(pretrain(ids, sizes.shape, sizes.pretraining, seed, path), sizes)


def train_arm(sizes: Sizes, seed: int, arm: Arm, path: Path) -> dict[str, Any]:
    """Train one arm on from the pretrained model, and return the curve of what was measured and its end."""
    model = pretrained(sizes.shape, seed, path)
    rows = training_rows(sizes, seed + 1000, arm)
    watch = Watch(sizes.every, partial(_look, sizes=sizes))
    trained = train(model, rows, arm.algorithm(), sizes.budget, seed, watch)
    gate = arm.gate(trained.explained)
    return trained.curve[-1] | {
        "documents": len(rows),
        "curve": trained.curve,
        "explained_variance": trained.explained,
        "gate": gate,
    }


def _look(trainer: WMTPTrainer, *, sizes: Sizes) -> dict[str, float]:
    return measured(policy(trainer.model), sizes) | weights_seen(trainer, sizes.weighed)


@torch.no_grad()
def measured(model: MTPForCausalLM, sizes: Sizes) -> dict[str, float]:
    """Return the probability of right answers, and what the answers of a document that is right throughout cost."""
    model.eval()
    draws = torch.Generator().manual_seed(12345)
    by_coin = documents(coins(sizes.measured, draws), draws)
    right = documents(torch.ones((sizes.measured, NUM_SUMS), dtype=torch.bool), draws)
    return {
        "probability": float(probabilities(model, by_coin, right_answers(by_coin)).mean()),
        "nats": float(-probabilities(model, right, right_answers(right)).log().sum(1).mean()),
    }


def weights_seen(trainer: WMTPTrainer, count: int) -> dict[str, float]:
    """Return the effective share of tokens, and how well weights tell right answers from wrong ones, in training."""
    rows = cast("RowDataset", trainer.train_dataset)  # with folds, where value heads have some
    size, weights, marks = trainer.args.per_device_train_batch_size, [], []
    for start in range(0, min(count, len(rows)), size):
        batch = rows.collate(rows.rows[start : start + size])
        signals = trainer.signals(batch)
        found = shift(trainer.algorithm.weights(signals)[..., 0], -1, 0.0)
        weights.append(found[signals.learned])
        marks.append(batch[RIGHT][signals.learned])
    every, mark = torch.cat(weights).double(), torch.cat(marks)
    share = float(every.sum().square() / every.square().sum() / len(every))
    return {"effective_share": share, "auroc": auroc(every[mark > 0], every[mark < 0])}


def auroc(higher: Float[Tensor, "some"], lower: Float[Tensor, "others"]) -> float:
    """Return how often one of `higher` is above one of `lower`, where equal ones count half."""
    ordered = lower.sort().values
    below = torch.searchsorted(ordered, higher), torch.searchsorted(ordered, higher, right=True)
    return float((below[0] + below[1]).double().mean() / 2 / max(len(lower), 1))
