"""The section `mtp` of a recipe: how many heads are trained, and what becomes of the trunk under them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from wmtp.faults import StrictModel

Trunk = Literal["trained", "detached", "frozen"]


class MTP(StrictModel):
    """Multi-token prediction."""

    horizon: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Heads to train, counting the next-token head; null: all that the base model has."
    )
    trunk: Trunk = Field(
        "trained",
        description="trained: by the losses of all heads. detached: by the next-token loss alone. frozen: not at all.",
    )
