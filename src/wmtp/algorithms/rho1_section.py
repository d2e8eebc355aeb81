"""What a recipe may say of rho1-wmtp."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from wmtp.faults import StrictModel


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
