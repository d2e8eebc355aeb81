"""Semantic reward: does weighing tokens by a reward teach which of two rules is the right one?

In one half of the documents all four answers are right, in the other half all are one too many: two rules, equally
frequent, each as easy as the other. A document's reward is 1 where the rule is the right one, else 0. A model that was
pretrained on all of them knows both rules and tells from the first answer which one a document follows; that first
answer it can only guess. From this one model all arms train on for the same number of steps.

Measured: the probability of the right first answer, over all sums. How many answers are right when the model answers
greedily, its own answers before it, is kept too, but where both answers are equally probable it is chance.

Fixed before any result of an arm was seen: sizes and budgets. Modulus and length of pretraining were chosen so that the
loss at the second answer is near 0, where the rule is known. critic-wmtp has its default settings where an arm says
nothing else; defaults were chosen on this benchmark.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from quality_arms import Arm
from quality_sums import (
    BEGIN,
    EQUALS,
    FIRST_ANSWER,
    MODULUS,
    PLUS,
    TOKENS_OF_SUM,
    answer_places,
    documents,
    pretrain,
    pretrained,
    right_answers,
    rows_of,
    shape_of,
)
from quality_training import Budget, Shape, train
from torch import Tensor

from wmtp.data.rows import RowDataset
from wmtp.models.mtp import MTPForCausalLM

NUM_SUMS = 4

_WEIGHED = (
    Arm("documents by exp(R)", temperature=1.0),
    Arm("return, lambda 0", critic={"credit": "return", "lambda_advantage": 0.0}),
    Arm("return, lambda 0.95", critic={"credit": "return", "lambda_advantage": 0.95}),
    Arm("return, lambda 1", critic={"credit": "return"}),
    Arm("token", critic={}),
    Arm("token, horizon", critic={"normalize": "horizon"}),
)


@dataclass(frozen=True)
class Sizes:
    """What is run: model, budgets, arms and seeds."""

    shape: Shape
    pretraining: Budget
    budget: Budget
    seeds: tuple[int, ...]
    measured: int
    arms: tuple[Arm, ...]


FULL = Sizes(
    shape=shape_of(NUM_SUMS, width=64),
    pretraining=Budget(steps=1500, batch_size=64, learning_rate=5e-3),
    budget=Budget(steps=200, batch_size=64, learning_rate=1e-3),
    seeds=(0, 1, 2),
    measured=512,
    arms=(
        Arm("all"),
        Arm("good", least_reward=1.0),
        *_WEIGHED,
        *(arm.with_shuffled_rewards() for arm in _WEIGHED),
    ),
)
SHORT = replace(
    FULL, seeds=(0,), arms=tuple(arm for arm in FULL.arms if arm.name in {"all", "token", "token, shuffled"})
)


def training_rows(budget: Budget, seed: int, arm: Arm) -> RowDataset:
    """Return the documents of an arm, each seen once; every other one follows the right rule, unless all have to."""
    draws = torch.Generator().manual_seed(seed)
    count = budget.steps * budget.batch_size
    rewards = torch.ones(count) if arm.least_reward else 1.0 - torch.arange(count) % 2
    right = (rewards > 0).unsqueeze(1).expand(count, NUM_SUMS)
    ids = documents(right, draws)
    if arm.shuffled:
        rewards = rewards[torch.randperm(count, generator=draws)]
    return rows_of(ids, right, rewards)


def train_first(sizes: Sizes, seed: int, path: Path) -> dict[str, Any]:
    """Train the model that all arms of a seed begin from, and keep it."""
    ids = torch.stack([example.input_ids for example in training_rows(sizes.pretraining, seed, Arm("all")).examples])
    return measured(pretrain(ids, sizes.shape, sizes.pretraining, seed, path), sizes)


def train_arm(sizes: Sizes, seed: int, arm: Arm, path: Path) -> dict[str, Any]:
    """Train one arm on from the pretrained model; says what the gate after the first stage answers, and goes on."""
    model = pretrained(sizes.shape, seed, path)
    trained = train(model, training_rows(sizes.budget, seed + 1000, arm), arm.algorithm(), sizes.budget, seed)
    found = {"explained_variance": trained.explained, "gate": arm.gate(trained.explained)}
    return measured(model, sizes) | found


@torch.no_grad()
def measured(model: MTPForCausalLM, sizes: Sizes) -> dict[str, Any]:
    """Return the accuracies and the probability that the module's text names, and the loss at the second answer."""
    model.eval()
    draws = torch.Generator().manual_seed(12345)
    right = (torch.arange(sizes.measured) % 2 == 0).unsqueeze(1).expand(-1, NUM_SUMS)
    ids = documents(right, draws)
    answers = greedy_answers(model, ids)
    second = FIRST_ANSWER + TOKENS_OF_SUM
    return {
        "first_right": float((answers == right_answers(ids))[:, 0].float().mean()),
        "all_right": float((answers == right_answers(ids)).float().mean()),
        "probability": float(_first_probabilities(model).mean()),
        "second_loss": float(model(ids, labels=ids).ce[:, second - 1, 0].mean()),
    }


def greedy_answers(model: MTPForCausalLM, ids: Int[Tensor, "documents seq"]) -> Int[Tensor, "documents sums"]:
    """Return the model's most probable answer to each sum of documents, its own answers standing before it."""
    ids = ids.clone()
    for place in answer_places(NUM_SUMS):
        ids[:, place] = model(ids[:, :place]).logits[:, -1, 0].argmax(-1)
    return ids[:, answer_places(NUM_SUMS)]


def _first_probabilities(model: MTPForCausalLM) -> Float[Tensor, "pairs"]:
    a, b = torch.cartesian_prod(torch.arange(MODULUS), torch.arange(MODULUS)).unbind(1)
    signs = [torch.full_like(a, sign) for sign in (BEGIN, PLUS, EQUALS)]
    prompts = torch.stack([signs[0], a, signs[1], b, signs[2]], dim=1)
    said: Tensor = model(prompts).logits[:, -1, 0].softmax(-1)
    return said.gather(1, ((a + b) % MODULUS).unsqueeze(1)).squeeze(1)
