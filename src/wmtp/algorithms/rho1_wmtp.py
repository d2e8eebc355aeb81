"""rho1-wmtp: tokens count by how much worse the model is at them than a reference model."""

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


class Rho1Section(StrictModel):
    """`rho1` in recipe.yaml: how excess loss over the reference becomes a weight."""

    selection_mode: Literal["token_skip", "weighted", "horizon"] = Field(
        "token_skip",
        description="token_skip: the highest excess losses count, the rest do not. weighted: a soft threshold there. "
        "horizon: a softmax over the heads of each position, which drops no position.",
    )
    keep_ratio: float = Field(0.7, gt=0, le=1, description="Share of the valid tokens that are kept.")
    scope: Literal["batch", "sequence", "ema"] = Field(
        "batch",
        description="Among which tokens the share is taken; ema: a running threshold, whatever the micro-batch size.",
    )
    temperature: float = Field(
        0.5, gt=0, le=100, description="Softness of weighted and horizon in nats; towards 0 weighted is token_skip."
    )
    warmup_steps: int = Field(0, ge=0, description="Optimizer steps at the start in which every token is kept.")
    online: bool = Field(
        False, description="Run the reference model while training, instead of reading losses computed before."
    )


class Rho1WMTP(Algorithm):
    """Selective language modelling over several heads.

    Source: Lin et al. 2024, "Rho-1: Not All Tokens Are What You Need" (arXiv 2404.07965), equation 3. They select
        next tokens; here a token's score, from head 1, serves every head that predicts the token.
    """

    name = "rho1-wmtp"
    training_algorithm = "rho1"
    roles = (BASE, Role("ref", "reference_model", "scores tokens"))
    section = Rho1Section
    section_name = "rho1"
    trainable = "rho1-wmtp can be planned and resolved, but this version of wmtp does not train it yet"

    @override
    def weights(
        self, ce: Float[Tensor, "batch seq future"], valid: Bool[Tensor, "batch seq future"]
    ) -> Float[Tensor, "batch seq future"]:
        raise TrainingError(self.trainable, hint="set train.algo: baseline-mtp in the recipe")
