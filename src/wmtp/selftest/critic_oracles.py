"""Oracles of critic-wmtp: what values, rewards and folds must do to weights, whatever the model and the data are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from wmtp.algorithms.base import ValueAlgorithm
from wmtp.algorithms.critic_advantage import Response, RewardStandardiser, advantages
from wmtp.algorithms.signals import Signals
from wmtp.models.targets import shift
from wmtp.selftest.oracles import CRITIC_MODES, LOSS_TOLERANCE, WEIGHT_TOLERANCE, Finding, in_each_mode
from wmtp.selftest.subject import MODES, Build, Subject
from wmtp.training.trainer import WMTPTrainer

_TOKEN_MODES = ("critic token, batch", "critic token, horizon")


@in_each_mode("value = reward", CRITIC_MODES)
def values_that_are_the_reward_weigh_all_alike(subject: Subject, name: str) -> Iterator[Finding]:
    """Where everything was expected from the start, no token has raised anything."""
    trainer, signals = _seen(subject, MODES[name])
    states, tokens = _rewards(subject, signals)
    weights = trainer.algorithm.weights(_with_values(signals, states, tokens))
    yield Finding("value = reward", f"{name}: weights are 1", _off_one(weights, signals), WEIGHT_TOLERANCE)


@in_each_mode("tokens that change nothing", _TOKEN_MODES)
def tokens_without_a_value_of_their_own_weigh_all_alike(subject: Subject, name: str) -> Iterator[Finding]:
    """A value of tokens that does not look at the token is that of the state before it, and gives no credit."""
    trainer, signals = _seen(subject, MODES[name])
    assert signals.values is not None
    blind = replace(signals, token_values=shift(signals.values.detach(), -1, 0.0))
    yield Finding(
        "tokens that change nothing",
        f"{name}: weights are 1",
        _off_one(trainer.algorithm.weights(blind), signals),
        WEIGHT_TOLERANCE,
    )


def advantages_telescope(subject: Subject) -> Iterator[Finding]:
    """With lambda 1 all later one-step errors add up: an advantage is the reward less the value before the token."""
    oracle, compared, build = (
        "advantages telescope",
        "lambda 1, and reward - value before",
        MODES["critic return, batch"],
    )
    if lacking := subject.lacks(build):
        yield Finding(oracle, compared, note=lacking)
        return
    _, signals = _seen(subject, build)
    assert signals.values is not None
    values, (_, rewards) = signals.values.detach()[..., 0], _rewards(subject, signals)
    response = Response.of(signals.learned, signals.document_ids)
    expected = (rewards - shift(values, -1, 0.0))[signals.learned]
    found = advantages(values, rewards, response, gamma=1.0, lambda_=1.0)
    yield Finding(oracle, compared, float((found[signals.learned] - expected).abs().max()), LOSS_TOLERANCE)
    found = advantages(values, rewards, response, gamma=1.0, lambda_=0.0).sum(1)
    first = signals.learned.int().argmax(1, keepdim=True)
    before = (rewards - shift(values, -1, 0.0)).gather(1, first).squeeze(1)
    compared = "lambda 0: their sum, and reward - value before"
    yield Finding(oracle, compared, float((found - before).abs().max()), LOSS_TOLERANCE)


@in_each_mode("temperature", CRITIC_MODES)
def boundless_temperature_weighs_all_alike(subject: Subject, name: str) -> Iterator[Finding]:
    """The higher the temperature, the closer to baseline-mtp."""
    cold, _ = _seen(subject, MODES[name])
    trainer, signals = _seen(subject, partial(_hot, MODES[name]))
    hot, usual = (_off_one(each.algorithm.weights(signals), signals) for each in (trainer, cold))
    yield Finding("temperature", f"{name}: weights are 1 without bound", hot, WEIGHT_TOLERANCE)
    yield Finding("temperature", f"{name}: and are not at its own", 0.0 if usual > 100 * hot else 1.0)


@in_each_mode("constant added to rewards", CRITIC_MODES)
def constant_added_to_rewards_changes_nothing(subject: Subject, name: str) -> Iterator[Finding]:
    """Only differences between documents count: weights and value loss are those of rewards that are all higher."""
    found = []
    for more in (0.0, 4.0):
        _, signals = _seen(subject, MODES[name])
        algorithm = MODES[name]()
        assert isinstance(algorithm, ValueAlgorithm)
        algorithm.begin({"reward": subject.rows.document_scores()["reward"] + more})
        moved = replace(signals, scores={"reward": signals.scores["reward"] + more})
        found.append((algorithm.weights(moved)[signals.valid], float(algorithm.value_loss(moved).detach())))
    (before, loss), (after, loss_after) = found
    yield Finding(
        "constant added to rewards", f"{name}: weights", float((before - after).abs().max()), WEIGHT_TOLERANCE
    )
    yield Finding(
        "constant added to rewards", f"{name}: value loss", abs(loss - loss_after), LOSS_TOLERANCE * max(1, abs(loss))
    )


@in_each_mode("folds", CRITIC_MODES)
def credit_is_by_heads_that_were_fitted_on_others(subject: Subject, name: str) -> Iterator[Finding]:
    """What gives credit to a document is never fitted on it, and what is fitted on it never gives credit to it."""
    trainer, signals = _seen(subject, MODES[name])
    algorithm = trainer.algorithm
    assert isinstance(algorithm, ValueAlgorithm)
    assert signals.folds is not None
    own = torch.nn.functional.one_hot(signals.folds, algorithm.folds).bool()
    other_credit, other_fit = (_changed(signals, where) for where in (own, ~own))
    loss, weights = algorithm.value_loss(signals).detach(), algorithm.weights(signals)
    off = float((algorithm.value_loss(other_credit).detach() - loss).abs())
    yield Finding("folds", f"{name}: heads that give credit, in the loss", off, LOSS_TOLERANCE)
    apart = (algorithm.weights(other_fit) - weights)[signals.valid].abs().max()
    yield Finding("folds", f"{name}: heads that are fitted, in weights", float(apart), WEIGHT_TOLERANCE)


def _seen(subject: Subject, build: Build) -> tuple[WMTPTrainer, Signals]:
    """Return a trainer with experience and what its algorithm sees of all documents."""
    trainer = subject.experienced_trainer(build)
    return trainer, trainer.signals(subject.batch())


def _rewards(subject: Subject, signals: Signals) -> tuple[Tensor, Tensor]:
    """Return the standardised reward of each document, at states before its learned tokens and at these; else 0."""
    standardise = RewardStandardiser()
    standardise.fit(subject.rows.document_scores()["reward"])
    tokens = torch.where(signals.learned, standardise(signals.scores["reward"]), 0)
    return shift(tokens, 1, 0.0), tokens


def _with_values(signals: Signals, states: Tensor, tokens: Tensor) -> Signals:
    """Return signals in which every head says the same."""
    assert signals.values is not None
    folds = signals.values.shape[2]
    values, token_values = (each.unsqueeze(2).expand(-1, -1, folds) for each in (states, tokens))
    return replace(signals, values=values, token_values=token_values)


def _changed(signals: Signals, where: Tensor) -> Signals:
    """Return signals in which some heads say something else of some documents."""
    assert signals.values is not None
    # By different sums, as credit is the difference of the two.
    token_values = None if signals.token_values is None else signals.token_values + 3 * where
    return replace(signals, values=signals.values + where, token_values=token_values)


def _hot(build: Build) -> ValueAlgorithm:
    algorithm = build()
    assert isinstance(algorithm, ValueAlgorithm)
    vars(algorithm)["temperature"] = 1e9  # beyond what a recipe may ask for
    return algorithm


def _off_one(weights: Tensor, signals: Signals) -> float:
    return float((weights - 1)[signals.valid].abs().max())
