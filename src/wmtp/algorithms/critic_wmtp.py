"""critic-wmtp: tokens count by how much choosing them raises the reward that value heads expect."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from typing_extensions import override

from wmtp.algorithms.base import BASE, Role, Score, ValueAlgorithm
from wmtp.algorithms.critic_section import CriticSection
from wmtp.algorithms.rules import critic_rule
from wmtp.errors import TrainingError

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from wmtp.algorithms.critic_advantage import RewardStandardiser
    from wmtp.algorithms.critic_values import CriticValues
    from wmtp.algorithms.explained import ValueStates
    from wmtp.algorithms.running import RunningSums
    from wmtp.algorithms.signals import Signals

# Of rewards in the unit of restored value heads: more of them beyond its range, and they are other rewards.
MOST_CLIPPED = 0.25
# In the tenth of documents where the values of tokens say most. Below it weights would be noise: shuffled rewards reach
# 0.001. No more can be asked: of eight decisions each is an eighth of the variance, at one token in five.
LEAST_EXPLAINED = 0.01
_TEMPERATURES = {"token": 0.25, "return": 1.0}


class CriticWMTP(ValueAlgorithm):
    """Advantage-weighted regression over several heads, with value heads on the trunk.

    A token's advantage, in standard deviations of the reward, becomes a gate that serves every head that predicts the
    token. `normalize: batch` is `exp(A / temperature)` within [0.1, 5], then divided by the mean weight; `horizon` is a
    softmax of A / temperature over the heads of each position. `credit: token` is `A[j] = Q[j] - V[j-1]`, with both
    fitted to the reward; `credit: return` is `A[j] = R - V[j-1]`, or with lambda below 1 the generalised advantage.

    How an optimizer step is cut into micro-batches, and over processes, changes nothing in `horizon` and with scope
    `ema`, where the mean weight is that of past steps; until there is one, in the first step, every token weighs 1.
    With `normalize: batch` and scope `batch` the mean is the micro-batch's. The value loss never depends on it.

    Source: Peng et al. 2019, "Advantage-Weighted Regression" (arXiv 1910.00177), for weights from advantages; Snell et
        al. 2022 (arXiv 2206.11871) for Q and V on a language model; Schulman et al. 2016 (arXiv 1506.02438), equation
        16, for `credit: return`. They weigh what a policy did; here tokens of given documents are weighed, heads are
        fitted to the reward of whole documents, and give credit only to documents that they were not fitted on.
    """

    name = "critic-wmtp"
    training_algorithm = "critic"
    roles: tuple[Role, ...] = (BASE, Role("rm", "reward_model", "scores sequences"))
    section = CriticSection
    section_name = "critic"

    def __init__(self, section: CriticSection | None = None) -> None:
        super().__init__(section)
        self.critic = section or CriticSection()
        column, label = self.critic.reward_column, self.critic.reward_index
        if column is not None:
            self.roles = (BASE,)
            self.scores = (Score("reward", "column", column=column),)
        else:
            self.scores = (Score("reward", "reward", role="rm", label=label),)
        self.least_heads = 2 if self.critic.normalize == "horizon" else 1
        self.temperature = self.critic.temperature or _TEMPERATURES[self.critic.credit]
        self.fit_steps = self.critic.stage1_steps
        self.value_learning_rate = self.critic.value_learning_rate
        self.detach_trunk = self.critic.detach_trunk
        self.folds = self.critic.folds
        self.values_tokens = self.critic.credit == "token"

    @override
    def begin(self, scores: Mapping[str, Float[Tensor, "documents"]]) -> None:
        from wmtp.algorithms.critic_advantage import is_constant
        from wmtp.algorithms.critic_refusals import constant_rewards, rewards_of_other_unit

        rewards = scores["reward"]
        if is_constant(rewards):
            raise constant_rewards(rewards.tolist(), self.critic.reward_column)
        if not self._standardise.is_fitted:
            self._standardise.fit(rewards)
        elif self._standardise.share_clipped(rewards) > MOST_CLIPPED:
            # Restored value heads have learned rewards in the unit that came with them.
            _, mean, deviation = self._standardise.figures.tolist()
            raise rewards_of_other_unit(float(rewards.min()), float(rewards.max()), mean=mean, deviation=deviation)

    @override
    def weights(self, signals: Signals) -> Float[Tensor, "batch seq future"]:
        from wmtp.algorithms.critic_advantage import exponential_gate
        from wmtp.algorithms.running import by_running_mean
        from wmtp.algorithms.weighting import head_softmax, normalised, spread

        lambda_ = self.critic.lambda_advantage
        advantage = self._values(signals).advantage(gamma=self.critic.gamma, lambda_=lambda_)
        if self.critic.normalize == "horizon":
            return head_softmax(advantage / self.temperature, signals.valid, signals.prior)
        weights = spread(exponential_gate(advantage, self.temperature), signals.valid)
        if self.critic.scope == "ema":
            return by_running_mean(weights, signals.valid, signals.prior, self._mean_weight)
        return normalised(weights, signals.valid, signals.prior)

    @override
    def explain(self, signals: Signals) -> Mapping[str, Float[Tensor, "batch seq"]]:
        return self._values(signals).said(gamma=self.critic.gamma, lambda_=self.critic.lambda_advantage)

    @override
    def rule(self) -> str:
        return critic_rule(self.critic, self.temperature)

    def _values(self, signals: Signals) -> CriticValues:
        from wmtp.algorithms.critic_values import CriticValues

        rewards = self._standardise(signals.scores["reward"])
        return CriticValues.of(signals, rewards, of_tokens=self.values_tokens)

    @override
    def value_loss(self, signals: Signals) -> Float[Tensor, ""]:
        """Return `value_coefficient * sum((V[t] - G[t])^2 + (Q[t+1] - R)^2)` over states before learned tokens.

        G, the value target, has no gradient; it is R with credit token, which alone has Q. Each fold's heads count only
        documents of other folds.
        """
        lambda_ = self.critic.lambda_value
        return self.critic.value_coefficient * self._values(signals).loss(gamma=self.critic.gamma, lambda_=lambda_)

    @override
    def value_states(self, signals: Signals) -> ValueStates:
        return self._values(signals).states()

    @override
    def require_fit(self, explained: Sequence[float]) -> None:
        """Refuse credit from Q that explains nothing anywhere; the V of credit return is a baseline and may do so."""
        best = max((share for share in explained if math.isfinite(share)), default=math.nan)
        if self.critic.credit == "return" or best >= LEAST_EXPLAINED:
            return
        curve = " ".join(f"{share:.3f}" for share in explained)
        raise TrainingError(
            f"critic-wmtp: the values of tokens explain at most {best:.3f} of the variance of rewards of documents that"
            f" they were not fitted on, and at least {LEAST_EXPLAINED} is needed: weights would be noise",
            hint="raise critic.stage1_steps or critic.value_learning_rate, or give more documents; "
            "a reward that the text does not tell cannot be used",
            faults=[f"explained variance from begin to end of documents: {curve}"],
        )

    @override
    def end_step(self, total: Callable[[Tensor], Tensor]) -> None:
        self._mean_weight.end_step(total)

    @override
    def state(self) -> dict[str, Tensor]:
        return {"reward_figures": self._standardise.figures, "mean_weight": self._mean_weight.kept}

    @override
    def restore(self, state: Mapping[str, Tensor]) -> None:
        super().restore(state)
        self._standardise.restore(state["reward_figures"])
        self._mean_weight.restore(state["mean_weight"])

    # Made when first needed: a run is planned without torch.
    @cached_property
    def _standardise(self) -> RewardStandardiser:
        from wmtp.algorithms.critic_advantage import RewardStandardiser

        return RewardStandardiser()

    @cached_property
    def _mean_weight(self) -> RunningSums:
        from wmtp.algorithms.running import RunningSums

        return RunningSums(2)
