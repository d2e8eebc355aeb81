"""Semantic reward: does weighing tokens by a reward teach which of two rules is the right one?

A document is a few sums, `a+b=c;`, modulo 5. In one half of the documents c is a + b, in the other half always
a + b + 1: two rules, equally frequent, each as easy as the other. A document's reward is 1 where the rule is the right
one, else 0. A model pretrained on all of them knows both rules and tells from the first answer which one a document
follows; the first answer itself it can only guess. From this one model all arms train on for the same number of steps.

Measured on sums drawn afresh: the share of right answers when the model answers the first sum greedily, and all sums of
a document, its own answers before it; and the probability of the right first answer, over all sums.

Fixed before any result of an arm was seen: everything in `FULL`. Modulus and length of pretraining were chosen so that
the loss at the second answer is near 0, where the rule is known. critic-wmtp has its default settings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from quality_training import Budget, Shape, new_model, train
from torch import Tensor
from typing_extensions import override

from wmtp.algorithms.base import Algorithm
from wmtp.algorithms.baseline_mtp import BaselineMTP
from wmtp.algorithms.critic_wmtp import CriticSection, CriticWMTP
from wmtp.data.example import Example
from wmtp.data.rows import RowDataset
from wmtp.errors import TrainingError
from wmtp.models.mtp import MTPForCausalLM

MODULUS, NUM_SUMS, TOKENS_OF_SUM = 5, 4, 6
PLUS, EQUALS, SEMICOLON, BEGIN, END = range(MODULUS, MODULUS + 5)
_LENGTH = NUM_SUMS * TOKENS_OF_SUM + 2
REWARD = "reward"


@dataclass(frozen=True)
class Sizes:
    """What is run: model, budgets and seeds."""

    shape: Shape
    pretraining: Budget
    budget: Budget
    seeds: tuple[int, ...]
    measured: int
    arms: tuple[str, ...]


FULL = Sizes(
    shape=Shape(vocabulary=MODULUS + 5, context=_LENGTH),
    pretraining=Budget(steps=1500, batch_size=64, learning_rate=5e-3),
    budget=Budget(steps=200, batch_size=64, learning_rate=1e-3),
    seeds=(0, 1, 2),
    measured=512,
    arms=("all", "good", "critic_batch", "critic_horizon", "shuffled"),
)
SHORT = replace(FULL, seeds=(0,), arms=("critic_batch", "shuffled"))


class Ungated(CriticWMTP):
    """critic-wmtp that goes on whatever its value head has learned, to see what comes of it."""

    @override
    def require_fit(self, explained: Sequence[float]) -> None:
        """Refuse nothing."""


def _critic(normalize: str) -> Algorithm:
    return Ungated(CriticSection.model_validate({"reward_column": REWARD, "normalize": normalize}))


ALGORITHMS: Mapping[str, Callable[[], Algorithm]] = {
    "all": BaselineMTP,
    "good": BaselineMTP,
    "critic_batch": lambda: _critic("batch"),
    "critic_horizon": lambda: _critic("horizon"),
    "shuffled": lambda: _critic("batch"),
}


def documents(count: int, draws: torch.Generator, *, good_only: bool = False) -> tuple[Tensor, Tensor]:
    """Return the tokens of documents, `[count, seq]`, and which follow the right rule: every other one."""
    a, b = torch.randint(MODULUS, (2, count, NUM_SUMS), generator=draws).unbind()
    wrong = torch.zeros(count, dtype=torch.long) if good_only else torch.arange(count) % 2
    c = (a + b + wrong.unsqueeze(1)) % MODULUS
    plus, equals, semicolon = (torch.full_like(a, sign) for sign in (PLUS, EQUALS, SEMICOLON))
    sums = torch.stack([a, plus, b, equals, c, semicolon], dim=2).flatten(1)
    begin, end = (torch.full((count, 1), sign) for sign in (BEGIN, END))
    return torch.cat([begin, sums, end], dim=1), 1.0 - wrong


def training_rows(budget: Budget, seed: int, arm: str) -> RowDataset:
    """Return the documents of an arm, each seen once, with rewards; for `shuffled` those of other documents."""
    draws = torch.Generator().manual_seed(seed)
    ids, rewards = documents(budget.steps * budget.batch_size, draws, good_only=arm == "good")
    if arm == "shuffled":
        rewards = rewards[torch.randperm(len(rewards), generator=draws)]
    return RowDataset(
        [(Example(row.int(), scores={REWARD: reward}),) for row, reward in zip(ids, rewards, strict=True)]
    )


def pretrain(sizes: Sizes, seed: int, path: Path) -> dict[str, Any]:
    """Train the model that all arms of a seed begin from, and keep it."""
    model = new_model(sizes.shape, seed)
    train(model, _unscored(training_rows(sizes.pretraining, seed, "all")), BaselineMTP(), sizes.pretraining, seed)
    torch.save(model.state_dict(), path)
    return measured(model, sizes)


def continue_training(sizes: Sizes, seed: int, arm: str, pretrained: Path) -> dict[str, Any]:
    """Train one arm on from the pretrained model; says what the gate after the first stage answers, and goes on."""
    model = new_model(sizes.shape, seed)
    model.load_state_dict(torch.load(pretrained, weights_only=True))
    algorithm = ALGORITHMS[arm]()
    rows = training_rows(sizes.budget, seed + 1000, arm)
    if not algorithm.scores:
        rows = _unscored(rows)
    explained = train(model, rows, algorithm, sizes.budget, seed)
    return measured(model, sizes) | {"explained_variance": explained, "gate": gate(explained)}


def gate(explained: list[float]) -> str:
    """Return what critic-wmtp answers to a fit of the value head: nothing, or why it would not go on."""
    try:
        if explained:
            CriticWMTP().require_fit(explained)
    except TrainingError as refusal:
        return refusal.problem
    return ""


def _unscored(rows: RowDataset) -> RowDataset:
    return RowDataset([(Example(row[0].input_ids),) for row in rows.rows])


@torch.no_grad()
def measured(model: MTPForCausalLM, sizes: Sizes) -> dict[str, Any]:
    """Return the accuracies and the probability that the module's text names, and the loss at the second answer."""
    model.eval()
    draws = torch.Generator().manual_seed(12345)
    ids, _ = documents(sizes.measured, draws)
    second = TOKENS_OF_SUM + 5
    answers = greedy_answers(model, ids)
    right = (ids[:, 1:-1:TOKENS_OF_SUM] + ids[:, 3:-1:TOKENS_OF_SUM]) % MODULUS
    return {
        "first_right": float((answers == right)[:, 0].float().mean()),
        "all_right": float((answers == right).float().mean()),
        "probability": float(_first_probabilities(model).mean()),
        "second_loss": float(model(ids, labels=ids).ce[:, second - 1, 0].mean()),
    }


def greedy_answers(model: MTPForCausalLM, ids: Int[Tensor, "documents seq"]) -> Int[Tensor, "documents sums"]:
    """Return the model's most probable answer to each sum of documents, its own answers standing before it."""
    ids = ids.clone()
    places = range(5, _LENGTH, TOKENS_OF_SUM)
    for place in places:
        ids[:, place] = model(ids[:, :place]).logits[:, -1, 0].argmax(-1)
    return ids[:, list(places)]


def _first_probabilities(model: MTPForCausalLM) -> Float[Tensor, "pairs"]:
    a, b = torch.cartesian_prod(torch.arange(MODULUS), torch.arange(MODULUS)).unbind(1)
    signs = [torch.full_like(a, sign) for sign in (BEGIN, PLUS, EQUALS)]
    prompts = torch.stack([signs[0], a, signs[1], b, signs[2]], dim=1)
    probabilities: Tensor = model(prompts).logits[:, -1, 0].softmax(-1)
    return probabilities.gather(1, ((a + b) % MODULUS).unsqueeze(1)).squeeze(1)
