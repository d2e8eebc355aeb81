"""What a recipe may say of critic-wmtp."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, Self

from pydantic import Field, model_validator

from wmtp.faults import Fault, FieldFaults, StrictModel


class CriticSection(StrictModel):
    """`critic` in recipe.yaml: how a sequence's reward becomes weights of its tokens."""

    credit: Literal["token", "return"] = Field(
        "token",
        description="token: Q(state, token) - V(state), what each choice changed. return: reward - V(state), what came"
        " of the document.",
    )
    gamma: float = Field(1.0, gt=0, le=1, description="credit return: discount of the reward for each token before it.")
    lambda_value: float = Field(
        1.0, ge=0, le=1, description="credit return: lambda of the value target; 1: the reward itself."
    )
    lambda_advantage: float = Field(
        1.0, ge=0, le=1, description="credit return: lambda of the advantage; 1: reward - V; below it credit decays."
    )
    normalize: Literal["batch", "horizon"] = Field(
        "batch", description="batch: mean weight 1 over the batch. horizon: a softmax over the heads of each position."
    )
    scope: Literal["batch", "ema"] = Field(
        "batch", description="Where the mean weight comes from; ema: a running one, whatever the micro-batch size."
    )
    temperature: float | None = Field(
        None,
        gt=0,
        le=100,
        description="Of the exponential, in standard deviations of the reward; higher: more equal weights; null: 0.25"
        " for credit token, 1 for credit return.",
    )
    folds: int = Field(
        2,
        ge=1,
        le=10,
        description="Parts of the documents; heads give credit to the part that they were not fitted on.",
    )
    value_coefficient: float = Field(0.1, gt=0, le=100, description="Factor of the value loss beside the token loss.")
    detach_trunk: bool = Field(True, description="Keep the value loss from training the trunk.")
    stage1_steps: int = Field(200, ge=0, description="Optimizer steps in which only the value heads are trained.")
    value_learning_rate: float = Field(
        1e-3, gt=0, le=1, description="Learning rate of the value heads; in stage 2 the peak of the common schedule."
    )
    reward_column: str | None = Field(
        None, min_length=1, description="Column of the data that holds rewards; null: the reward model gives them."
    )
    reward_index: int | None = Field(
        None, ge=0, description="Which label of the reward model is the reward; null: it has one label only."
    )

    @model_validator(mode="after")
    def _fits_its_credit(self) -> Self:
        if faults := list(self._misfits()):
            raise FieldFaults(*faults)
        return self

    def _misfits(self) -> Iterator[Fault]:
        if self.credit == "return" and self.normalize == "horizon":
            problem = "is horizon, and credit return gives all heads of a position nearly the same advantage"
            yield Fault(("normalize",), problem, "write normalize: batch, or credit: token")
        for name in ("gamma", "lambda_value", "lambda_advantage"):
            if self.credit == "token" and getattr(self, name) != 1:
                problem = f"is {getattr(self, name):g}, and credit token fits its heads to the reward itself"
                yield Fault((name,), problem, f"leave {name} out, or write credit: return")
