"""Arms of the two benchmarks with rewards, as data: which documents are trained on, and what weighs their tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from jaxtyping import Float
from quality_sums import REWARD, RIGHT
from torch import Tensor
from typing_extensions import override

from wmtp.algorithms.base import BASE, Algorithm, Score
from wmtp.algorithms.baseline_mtp import BaselineMTP
from wmtp.algorithms.critic_advantage import RewardStandardiser
from wmtp.algorithms.critic_section import CriticSection
from wmtp.algorithms.critic_wmtp import CriticWMTP
from wmtp.algorithms.signals import Signals
from wmtp.algorithms.weighting import normalised, spread
from wmtp.errors import TrainingError

Setting = str | float


@dataclass(frozen=True)
class Arm:
    """One way to train on from the pretrained model; without any of these, equal weights of all documents.

    Attributes:
        name: As tables write it.
        critic: critic-wmtp with these settings, which may be none.
        temperature: Documents weighed by `exp(reward / temperature)`, without heads.
        knows_answers: Equal weights of all tokens but wrong answers, which have none.
        least_reward: Of documents that are trained on.
        shuffled: Rewards are permuted between documents first, so that nothing should come of them.
    """

    name: str
    critic: Mapping[str, Setting] | None = None
    temperature: float | None = None
    knows_answers: bool = False
    least_reward: float | None = None
    shuffled: bool = False

    def with_shuffled_rewards(self) -> Arm:
        """Return its control."""
        return replace(self, name=f"{self.name}, shuffled", shuffled=True)

    def algorithm(self) -> Algorithm:
        """Return what weighs tokens."""
        if self.critic is not None:
            return Ungated(self.section)
        if self.temperature is not None:
            return DocumentWeights(self.temperature)
        return WithoutWrongAnswers() if self.knows_answers else BaselineMTP()

    @property
    def section(self) -> CriticSection:
        """The settings of its critic-wmtp, checked as those of a recipe."""
        return CriticSection.model_validate({"reward_column": REWARD, **(self.critic or {})})

    def gate(self, explained: Sequence[float]) -> str:
        """Return what critic-wmtp answers to a fit of its value heads: nothing, or why it would not go on."""
        try:
            if explained:
                CriticWMTP(self.section).require_fit(explained)
        except TrainingError as refusal:
            return refusal.problem
        return ""


class Ungated(CriticWMTP):
    """critic-wmtp that goes on whatever its value heads have learned, to see what comes of it."""

    @override
    def require_fit(self, explained: Sequence[float]) -> None:
        """Refuse nothing."""


class DocumentWeights(Algorithm):
    """Reward-weighted regression: all tokens of a document weigh `exp(R / temperature)`, and the mean weight is 1.

    The reward R is in standard deviations from its mean, as critic-wmtp has it. The mean is that over all training
    documents: that of a batch would depend on which documents happen to meet in it.

    Source: Peters and Schaal 2007, "Reinforcement learning by reward-weighted regression for operational space
        control"; here once, for given documents.
    """

    name = "document-weights"
    training_algorithm = "critic"
    roles = (BASE,)
    scores = (Score(REWARD, "column", column=REWARD),)

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self._temperature = temperature
        self._standardise = RewardStandardiser()
        self._mean = 1.0

    @override
    def begin(self, scores: Mapping[str, Float[Tensor, "documents"]]) -> None:
        self._standardise.fit(scores[REWARD])
        self._mean = float(self._powers(scores[REWARD]).double().mean())

    @override
    def weights(self, signals: Signals) -> Float[Tensor, "batch seq future"]:
        return spread(self._powers(signals.scores[REWARD]) / self._mean, signals.valid)

    def _powers(self, rewards: Tensor) -> Tensor:
        return (self._standardise(rewards) / self._temperature).exp()


class WithoutWrongAnswers(Algorithm):
    """What somebody who knows the right answers would do: wrong ones weigh nothing, all else the same."""

    name = "without-wrong-answers"
    training_algorithm = "baseline"
    roles = (BASE,)
    scores = (Score(RIGHT, "column", column=RIGHT),)

    @override
    def weights(self, signals: Signals) -> Float[Tensor, "batch seq future"]:
        kept = (signals.scores[RIGHT] >= 0).float()
        return normalised(spread(kept, signals.valid), signals.valid, signals.prior)
