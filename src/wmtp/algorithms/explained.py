"""How much of the reward value heads know: explained variance, by relative position in a document."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class ValueStates:
    """What value heads say of learned tokens or of the states before them, and what came true.

    Attributes:
        values: What is expected at each.
        returns: What the document's standardised reward was.
        positions: Where in the learned part of its document each is, from 0 (its first token) to 1 (its last or only
            one).
    """

    values: Float[Tensor, "states"]
    returns: Float[Tensor, "states"]
    positions: Float[Tensor, "states"]

    @classmethod
    def joined(cls, parts: list[ValueStates]) -> ValueStates:
        """Return the states of several batches as one."""
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in ("values", "returns", "positions")))


def explained_variance(states: ValueStates, parts: int = 10) -> list[float]:
    """Return `1 - Var(R - V) / Var(R)` in each of so many equal parts of responses, from begin to end.

    1: values say all about the reward; 0: no more than a constant; below 0: less. NaN where a part has no state, or
    rewards that do not differ.
    """
    part = (states.positions * parts).long().clamp(0, parts - 1)
    found = []
    for number in range(parts):
        chosen = part == number
        returns, values = states.returns[chosen].cpu().double(), states.values[chosen].cpu().double()
        spread = float(returns.var(correction=0)) if len(returns) else 0.0
        left = float((returns - values).var(correction=0)) if len(returns) else 0.0
        found.append(1 - left / spread if spread > 0 else math.nan)
    return found
