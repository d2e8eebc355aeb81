"""critic-wmtp: tokens count by how much they raise the reward that a value head expects."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from pydantic import Field
from typing_extensions import override

from wmtp.algorithms.base import BASE, Role, Score, ValueAlgorithm
from wmtp.errors import TrainingError
from wmtp.faults import StrictModel
from wmtp.untrusted import show

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from wmtp.algorithms.critic_advantage import Response, RewardStandardiser
    from wmtp.algorithms.running import RunningSums
    from wmtp.algorithms.signals import Signals, ValueStates

# Of rewards in the unit of a restored value head: more of them beyond its range, and they are other rewards.
MOST_CLIPPED = 0.25
# At the end of a document, where a value head knows the whole of it. Below it weights would be noise.
LEAST_EXPLAINED = 0.05


class CriticSection(StrictModel):
    """`critic` in recipe.yaml: how a sequence's reward becomes weights of its tokens."""

    gamma: float = Field(1.0, gt=0, le=1, description="Discount of the reward for each token before the end.")
    lambda_value: float = Field(1.0, ge=0, le=1, description="Lambda of the value target; 1: the reward itself.")
    lambda_advantage: float = Field(
        0.0, ge=0, le=1, description="Lambda of the advantage; 0: the one-step error, which localises credit best."
    )
    normalize: Literal["batch", "horizon"] = Field(
        "batch", description="batch: mean weight 1 over the batch. horizon: a softmax over the heads of each position."
    )
    scope: Literal["batch", "ema"] = Field(
        "batch", description="Where the normaliser comes from; ema: a running one, whatever the micro-batch size."
    )
    temperature: float = Field(
        1.0, gt=0, le=100, description="Of the exponential, in standard deviations; higher: more equal weights."
    )
    value_coefficient: float = Field(0.1, gt=0, le=100, description="Factor of the value loss beside the token loss.")
    detach_trunk: bool = Field(True, description="Keep the value loss from training the trunk.")
    stage1_steps: int = Field(200, ge=0, description="Optimizer steps in which only the value head is trained.")
    value_learning_rate: float = Field(
        1e-3, gt=0, le=1, description="Learning rate of the value head; in stage 2 the peak of the common schedule."
    )
    reward_column: str | None = Field(
        None, min_length=1, description="Column of the data that holds rewards; null: the reward model gives them."
    )
    reward_index: int | None = Field(
        None, ge=0, description="Which label of the reward model is the reward; null: it has one label only."
    )


class CriticWMTP(ValueAlgorithm):
    """Advantage-weighted regression over several heads, with a value head on the trunk.

    A token's advantage, in running or batch deviations, becomes a gate that serves every head that predicts the token.
    `normalize: batch` is `exp(A / temperature)` within [0.1, 5], then divided by the mean weight; `horizon` is a
    softmax of A / temperature over the heads of each position.

    How an optimizer step is cut into micro-batches, and over processes, changes nothing in `horizon` and with scope
    `ema`: deviation and mean weight are those of past steps. With `normalize: batch` and scope `batch` both are the
    micro-batch's. The value loss and the unit of rewards never depend on it.

    Until there are running figures every token weighs 1: in the first optimizer step, which has no deviation, and with
    scope `ema` in the next, which has no mean weight.

    Source: Peng et al. 2019, "Advantage-Weighted Regression" (arXiv 1910.00177), and Schulman et al. 2016,
        "High-Dimensional Continuous Control Using Generalized Advantage Estimation" (arXiv 1506.02438), equation 16.
        They weigh actions of a policy by returns that it earned; here tokens of given documents are weighed, lambda is
        0 for credit, and advantages are divided by their deviation.
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
        self.fit_steps = self.critic.stage1_steps
        self.value_learning_rate = self.critic.value_learning_rate
        self.detach_trunk = self.critic.detach_trunk

    @override
    def begin(self, scores: Mapping[str, Float[Tensor, "documents"]]) -> None:
        from wmtp.algorithms.critic_advantage import is_constant

        rewards = scores["reward"]
        if is_constant(rewards):
            raise self._constant(rewards.tolist())
        if not self._standardise.is_fitted:
            self._standardise.fit(rewards)
        elif self._standardise.share_clipped(rewards) > MOST_CLIPPED:
            raise self._other_unit(rewards)

    def _other_unit(self, rewards: Float[Tensor, "documents"]) -> TrainingError:
        # A restored value head has learned rewards in the unit that came with it.
        _, mean, deviation = self._standardise.figures.tolist()
        return TrainingError(
            f"critic-wmtp: rewards are {rewards.min():g} to {rewards.max():g}, and the value head of the base model has"
            f" learned rewards around {mean:g} with a deviation of {deviation:g}",
            hint="use the rewards that it was fitted to, or a base model without algorithm_state.safetensors",
        )

    def _constant(self, rewards: list[float]) -> TrainingError:
        column = self.critic.reward_column
        source = f"the column {show(column)} of data.train" if column else "the reward model"
        same = f"the same reward, {rewards[0]:g}, to all" if rewards else "no reward to any"
        return TrainingError(
            f"critic-wmtp: {source} gives {same} of the {len(rewards)} training documents",
            hint="nothing can be learned from it: train on documents with good and bad rewards"
            + (", or name another critic.reward_column" if column else ", or set critic.reward_index to another label"),
        )

    @override
    def weights(self, signals: Signals) -> Float[Tensor, "batch seq future"]:
        import torch

        from wmtp.algorithms.critic_advantage import in_deviations, squares

        advantage = self._advantage(signals)
        sums = squares(advantage, signals.learned)
        mean_square: Tensor | None = sums[0] / sums[1].clamp(min=1)
        if self.critic.normalize == "horizon" or self.critic.scope == "ema":
            mean_square = self._squares.mean()
            self._squares.add(sums)
        if mean_square is None:
            return torch.ones_like(signals.ce, dtype=torch.float32)
        return self._weigh(in_deviations(advantage, mean_square.to(advantage)), signals)

    def _weigh(self, deviations: Float[Tensor, "batch seq"], signals: Signals) -> Float[Tensor, "batch seq future"]:
        from wmtp.algorithms.critic_advantage import exponential_gate
        from wmtp.algorithms.running import by_running_mean
        from wmtp.algorithms.weighting import head_softmax, normalised, spread

        if self.critic.normalize == "horizon":
            return head_softmax(deviations / self.critic.temperature, signals.valid, signals.prior)
        weights = spread(exponential_gate(deviations, self.critic.temperature), signals.valid)
        if self.critic.scope == "ema":
            return by_running_mean(weights, signals.valid, signals.prior, self._mean_weight)
        return normalised(weights, signals.valid, signals.prior)

    def _advantage(self, signals: Signals) -> Float[Tensor, "batch seq"]:
        from wmtp.algorithms.critic_advantage import advantages

        values, rewards, response = self._read(signals)
        lambda_ = self.critic.lambda_advantage
        return advantages(values.detach(), rewards, response, gamma=self.critic.gamma, lambda_=lambda_)

    def _read(self, signals: Signals) -> tuple[Tensor, Tensor, Response]:
        from wmtp.algorithms.critic_advantage import Response

        assert signals.values is not None
        rewards = self._standardise(signals.scores["reward"])
        return signals.values.float(), rewards, Response.of(signals.learned, signals.document_ids)

    @override
    def value_loss(self, signals: Signals) -> Float[Tensor, ""]:
        """Return `value_coefficient * sum((V[t] - G[t])^2)` over states before learned tokens; G has no gradient."""
        import torch

        from wmtp.algorithms.critic_advantage import value_targets

        values, rewards, response = self._read(signals)
        lambda_ = self.critic.lambda_value
        targets = value_targets(values.detach(), rewards, response, gamma=self.critic.gamma, lambda_=lambda_)
        errors = torch.where(signals.valid[..., 0], values - targets, 0)
        return self.critic.value_coefficient * errors.square().sum()

    @override
    def value_states(self, signals: Signals) -> ValueStates:
        from wmtp.algorithms.critic_advantage import states

        return states(signals, self._standardise, "reward")

    @override
    def require_fit(self, explained: Sequence[float]) -> None:
        if math.isfinite(explained[-1]) and explained[-1] >= LEAST_EXPLAINED:
            return
        curve = " ".join(f"{share:.3f}" for share in explained)
        raise TrainingError(
            f"critic-wmtp: the value head explains {explained[-1]:.3f} of the variance of rewards at the end of "
            f"documents, and at least {LEAST_EXPLAINED} is needed: weights would be noise",
            hint="raise critic.stage1_steps or critic.value_learning_rate, or give more documents; "
            "a reward that the text does not tell cannot be used",
            faults=[f"explained variance from begin to end of documents: {curve}"],
        )

    @override
    def end_step(self, total: Callable[[Tensor], Tensor]) -> None:
        self._squares.end_step(total)
        self._mean_weight.end_step(total)

    @override
    def state(self) -> dict[str, Tensor]:
        return {
            "reward_figures": self._standardise.figures,
            "advantage_squares": self._squares.kept,
            "mean_weight": self._mean_weight.kept,
        }

    @override
    def restore(self, state: Mapping[str, Tensor]) -> None:
        super().restore(state)
        self._standardise.restore(state["reward_figures"])
        self._squares.restore(state["advantage_squares"])
        self._mean_weight.restore(state["mean_weight"])

    # Made when first needed: a run is planned without torch.
    @cached_property
    def _standardise(self) -> RewardStandardiser:
        from wmtp.algorithms.critic_advantage import RewardStandardiser

        return RewardStandardiser()

    @cached_property
    def _squares(self) -> RunningSums:
        from wmtp.algorithms.running import RunningSums

        return RunningSums(2)

    @cached_property
    def _mean_weight(self) -> RunningSums:
        from wmtp.algorithms.running import RunningSums

        return RunningSums(2)
