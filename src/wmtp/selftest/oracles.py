"""Oracles of weights: what must come out of an algorithm whatever the model and the data are.

An oracle is a function of a `Subject` that yields a `Finding` for each thing that it compares. Each says what the
specification of the algorithms promises, computed in another way than the algorithm computes it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from wmtp.algorithms.base import Algorithm
from wmtp.algorithms.rho1_section import Rho1Section
from wmtp.algorithms.rho1_wmtp import Rho1WMTP
from wmtp.algorithms.signals import Signals
from wmtp.data.example import Batch
from wmtp.selftest.subject import MODES, Step, Subject, value_outputs
from wmtp.training.trainer import WMTPTrainer

# fp32 sums in another order: of weights around 1, of losses in nats, of gradients as a share of the largest.
WEIGHT_TOLERANCE, LOSS_TOLERANCE, GRADIENT_TOLERANCE = 1e-4, 1e-4, 1e-4
# Exactly seven tenths: as a float it is a little less, and ten times a little less must not be rounded up to eight.
_KEEP_RATIO = Fraction(7, 10)
_REFERENCE_MODES = ("rho1 weighted, batch", "rho1 weighted, sequence", "rho1 horizon")
CRITIC_MODES = ("critic token, batch", "critic token, horizon", "critic return, batch")


@dataclass(frozen=True)
class Finding:
    """What an oracle found.

    Attributes:
        oracle: What must hold.
        compared: Between what.
        difference: How far that is from holding; None where there was nothing to compare.
        tolerance: The largest difference that rounding may make.
        note: Why there was nothing to compare, or what was found instead of a difference.
    """

    oracle: str
    compared: str
    difference: float | None = None
    tolerance: float = 0.0
    note: str = ""

    @property
    def outcome(self) -> str:
        """`ok`, `FAIL`, or `-` where there was nothing to compare."""
        if self.difference is None:
            return "-"
        return "ok" if self.difference <= self.tolerance else "FAIL"  # NaN is no success

    def to_dict(self) -> dict[str, Any]:
        """Return the same facts for a program; a difference that is not finite as text."""
        is_number = self.difference is None or math.isfinite(self.difference)
        return {**vars(self), "difference": self.difference if is_number else str(self.difference)} | {
            "outcome": self.outcome
        }


def in_each_mode(
    oracle: str, names: Sequence[str]
) -> Callable[[Callable[[Subject, str], Iterator[Finding]]], Callable[[Subject], Iterator[Finding]]]:
    """Make an oracle of what is to hold in a mode: it is asked of each, or a note says what the model lacks."""

    def of_all(compare: Callable[[Subject, str], Iterator[Finding]]) -> Callable[[Subject], Iterator[Finding]]:
        @wraps(compare)
        def ask(subject: Subject) -> Iterator[Finding]:
            for name in names:
                if lacking := subject.lacks(MODES[name]):
                    yield Finding(oracle, name, note=lacking)
                else:
                    yield from compare(subject, name)

        return ask

    return of_all


def equal_weights_make_algorithms_identical(subject: Subject) -> Iterator[Finding]:
    """Where no token is better than another, every algorithm has the loss and the gradient of baseline-mtp."""
    oracle = "equal weights are baseline-mtp"
    baseline = subject.step(subject.trainer(MODES["baseline-mtp"]), [subject.batch()])
    for name in (*_REFERENCE_MODES, *CRITIC_MODES):
        if lacking := subject.lacks(MODES[name]):
            yield Finding(oracle, name, note=lacking)
            continue
        trainer = subject.experienced_trainer(MODES[name])
        with _value_heads_at_zero(subject):
            found = subject.step(trainer, [_of_equal_tokens(subject, trainer)])
        yield Finding(oracle, f"{name}: loss", abs(found.loss - baseline.loss), LOSS_TOLERANCE)
        yield Finding(oracle, f"{name}: gradient", gradient_difference(found, baseline), GRADIENT_TOLERANCE)


def reference_that_is_the_policy_weighs_all_alike(subject: Subject) -> Iterator[Finding]:
    """A reference with the model's own losses gives every token the same weight, or keeps exactly the share."""
    oracle = "reference = policy"
    for name in _REFERENCE_MODES:
        signals, weights = _weighed_against_itself(subject, MODES[name]())
        off = (weights - 1)[signals.valid].abs().max()
        yield Finding(oracle, f"{name}: weights are 1", float(off), WEIGHT_TOLERANCE)
    for scope in ("batch", "sequence"):
        section = Rho1Section.model_validate({"scope": scope, "keep_ratio": float(_KEEP_RATIO)})
        signals, weights = _weighed_against_itself(subject, Rho1WMTP(section))
        kept = (weights[..., 0] > 0).sum(1)
        learned = signals.valid[..., 0].sum(1)
        if scope == "batch":
            kept, learned = kept.sum(0, keepdim=True), learned.sum(0, keepdim=True)
        expected = [math.ceil(_KEEP_RATIO * num_learned) for num_learned in learned.tolist()]
        off_by = max(abs(found - share) for found, share in zip(kept.tolist(), expected, strict=True))
        yield Finding(oracle, f"rho1 token_skip, {scope}: keeps ceil({float(_KEEP_RATIO)} n)", float(off_by))


def constant_added_to_reference_changes_nothing(subject: Subject) -> Iterator[Finding]:
    """Only differences between tokens count: all reference losses may be off by the same."""
    for name in ("rho1 token_skip, batch", "rho1 token_skip, sequence", *_REFERENCE_MODES):
        trainer = subject.trainer(MODES[name])
        signals = trainer.signals(subject.batch())
        # A power of two within the range of losses: adding it rounds least.
        moved = replace(signals, scores={"ref_nll": signals.scores["ref_nll"] + 4.0})
        before, after = (trainer.algorithm.weights(each)[signals.valid] for each in (signals, moved))
        yield Finding("constant added to the reference", name, float((before - after).abs().max()), WEIGHT_TOLERANCE)


def mean_weight_is_one(subject: Subject) -> Iterator[Finding]:
    """Weights shift attention between tokens and leave the size of the loss alone; ema modes promise it on average."""
    for name in (name for name in MODES if "ema" not in name):
        if lacking := subject.lacks(MODES[name]):
            yield Finding("mean weight is 1", name, note=lacking)
            continue
        trainer = subject.experienced_trainer(MODES[name])
        signals = trainer.signals(subject.batch())
        counted = (trainer.head_prior * signals.valid).double()
        mean = (counted * trainer.algorithm.weights(signals)).sum() / counted.sum()
        yield Finding("mean weight is 1", name, abs(float(mean) - 1), WEIGHT_TOLERANCE)


def gradient_difference(found: Step, expected: Step) -> float:
    """Return how far gradients are from expected ones, as a share of the largest expected one."""
    largest = max(float(gradient.abs().max()) for gradient in expected.gradients)
    pairs = zip(found.gradients, expected.gradients, strict=True)
    furthest = torch.stack([(one - other).abs().max() for one, other in pairs]).max()  # NaN stays NaN
    return float(furthest) / largest if largest > 0 else math.inf


def _of_equal_tokens(subject: Subject, trainer: WMTPTrainer) -> Batch:
    """Return the documents with the model itself as reference, and the mean reward, which value heads at 0 expect."""
    batch = subject.batch()
    mean = subject.rows.document_scores()["reward"].mean()
    return {
        **batch,
        "ref_nll": trainer.signals(batch).token_ce,
        "reward": torch.full_like(batch["reward"], float(mean)),
    }


@contextmanager
def _value_heads_at_zero(subject: Subject) -> Iterator[None]:
    outputs = [] if subject.valued is None else value_outputs(subject.valued)
    parameters = [parameter for output in outputs for parameter in output.parameters()]
    kept = [parameter.detach().clone() for parameter in parameters]
    with torch.no_grad():
        for parameter in parameters:
            parameter.zero_()
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, value in zip(parameters, kept, strict=True):
                parameter.copy_(value)


def _weighed_against_itself(subject: Subject, algorithm: Algorithm) -> tuple[Signals, Tensor]:
    signals = subject.trainer(lambda: algorithm).signals(subject.batch())
    signals = replace(signals, scores={"ref_nll": signals.token_ce})
    return signals, algorithm.weights(signals)
