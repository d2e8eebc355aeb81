"""In how many bits the weights of models stand that only score."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from wmtp.faults import StrictModel

Bits = Literal["int8", "nf4"]
# The package that puts weights into them.
PACKAGES = {"int8": "torchao", "nf4": "bitsandbytes"}


class Quantize(StrictModel):
    """Fewer bits for the linear layers of frozen models, by the role that they serve in."""

    ref: Bits | None = Field(
        None, description="Reference: int8 (torchao) or nf4 (bitsandbytes); null: as it is loaded."
    )
    rm: Bits | None = Field(None, description="The same for the reward model.")

    def of(self, role: str | None) -> Bits | None:
        """Return the bits of a role; None where a model is used as it is loaded."""
        found: Bits | None = getattr(self, role, None) if role in ("ref", "rm") else None
        return found
