"""critic-wmtp: tokens count by how much they raise the reward that a value head expects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field
from typing_extensions import override

from wmtp.algorithms.base import BASE, Algorithm, Role
from wmtp.errors import TrainingError
from wmtp.faults import StrictModel

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from torch import Tensor


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
    value_coefficient: float = Field(0.1, ge=0, le=100, description="Factor of the value loss beside the token loss.")
    detach_trunk: bool = Field(True, description="Keep the value loss from training the trunk.")
    stage1_steps: int = Field(200, ge=0, description="Optimizer steps in which only the value head is trained.")
    reward_column: str | None = Field(
        None, min_length=1, description="Column of the data that holds rewards; null: the reward model gives them."
    )
    reward_index: int | None = Field(
        None, ge=0, description="Which label of the reward model is the reward; null: it has one label only."
    )


class CriticWMTP(Algorithm):
    """Advantage-weighted regression over several heads, with a value head on the trunk.

    Source: Peng et al. 2019, "Advantage-Weighted Regression" (arXiv 1910.00177), and Schulman et al. 2016,
        "High-Dimensional Continuous Control Using Generalized Advantage Estimation" (arXiv 1506.02438), equation 16.
        They weigh actions; here a token's weight serves every head that predicts the token.
    """

    name = "critic-wmtp"
    training_algorithm = "critic"
    roles = (BASE, Role("rm", "reward_model", "scores sequences"))
    section = CriticSection
    section_name = "critic"
    trainable = "critic-wmtp can be planned and resolved, but this version of wmtp does not train it yet"

    @override
    def weights(
        self, ce: Float[Tensor, "batch seq future"], valid: Bool[Tensor, "batch seq future"]
    ) -> Float[Tensor, "batch seq future"]:
        raise TrainingError(self.trainable, hint="set train.algo: baseline-mtp in the recipe")
