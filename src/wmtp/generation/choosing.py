"""How a token is chosen, and how drafts are held to what the model itself would choose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Draft:
    """A token that a head proposes.

    Attributes:
        token: The token.
        probabilities: The distribution that it was drawn from; None where it is the most probable one.
    """

    token: int
    probabilities: Float[Tensor, " vocab"] | None = None


class Rule(Protocol):
    """A way to choose tokens."""

    def choose(self, logits: Float[Tensor, " vocab"]) -> Draft:
        """Return one token."""
        ...

    def verify(self, drafts: Sequence[Draft], logits: Float[Tensor, "places vocab"]) -> tuple[int, int]:
        """Return how many drafts are accepted, from the first, and the token that follows them.

        Args:
            drafts: Any number, none included.
            logits: The model's own, for the place of each draft and for that after the last.
        """
        ...


class Greedy:
    """The most probable token; a draft is accepted where it is that one."""

    def choose(self, logits: Float[Tensor, " vocab"]) -> Draft:
        """Return the most probable token."""
        return Draft(int(logits.argmax()))

    def verify(self, drafts: Sequence[Draft], logits: Float[Tensor, "places vocab"]) -> tuple[int, int]:
        """Accept drafts up to the first that the model would not have chosen; its own choice follows."""
        best = logits.argmax(dim=-1).tolist()
        # The last place stands behind all drafts.
        right = [draft.token == own for draft, own in zip(drafts, best, strict=False)]
        accepted = right.index(False) if False in right else len(right)
        return accepted, best[accepted]


class Sampling:
    """A token drawn at random; drafts are accepted so that what comes out is drawn as the model alone would draw it.

    Source: Leviathan et al. 2023 (arXiv 2211.17192), algorithm 1, and Chen et al. 2023 (arXiv 2302.01318), algorithm 2:
        draft x, drawn from q, is accepted with probability min(1, p(x) / q(x)), and the first that is not is replaced
        by a token drawn from max(0, p - q), made to sum to 1. p is the model's distribution, q the head's, both after
        temperature and top-p. The papers draft with a second model; here q is a head of the same model, which need not
        see the drafts before its own: the rule asks only that a draft was drawn from its q.

    Args:
        temperature: Above 0; logits are divided by it.
        top_p: In (0, 1]: only the most probable tokens are drawn, as few as have this probability together.
        generator: Draws all random numbers; on the device of the logits.
    """

    def __init__(self, temperature: float, top_p: float, generator: torch.Generator) -> None:
        self.temperature, self.top_p, self.generator = temperature, top_p, generator

    def probabilities(self, logits: Float[Tensor, "*any vocab"]) -> Float[Tensor, "*any vocab"]:
        """Return the distribution that tokens are drawn from, in fp32."""
        found = torch.softmax(logits.float() / self.temperature, dim=-1)
        if self.top_p >= 1:
            return found
        ordered, places = found.sort(dim=-1, descending=True, stable=True)
        before = ordered.cumsum(dim=-1) - ordered  # of all that are more probable: 0 for the first, which always stays
        kept = torch.zeros_like(found).scatter(-1, places, ordered * (before < self.top_p))
        return kept / kept.sum(dim=-1, keepdim=True)

    def choose(self, logits: Float[Tensor, " vocab"]) -> Draft:
        """Return a token with the distribution that it was drawn from."""
        probabilities = self.probabilities(logits)
        return Draft(self._drawn(probabilities), probabilities)

    def verify(self, drafts: Sequence[Draft], logits: Float[Tensor, "places vocab"]) -> tuple[int, int]:
        """Accept each draft with probability min(1, p/q), up to the first that is not; a token drawn anew follows."""
        own = self.probabilities(logits)
        for place, draft in enumerate(drafts):
            p, q = own[place], draft.probabilities
            assert q is not None
            if not self._accepts(float(p[draft.token]), float(q[draft.token])):
                return place, self._drawn(residual(p, q))
        return len(drafts), self._drawn(own[len(drafts)])

    def _accepts(self, p: float, q: float) -> bool:
        return self._uniform() * q < p

    def _uniform(self) -> float:
        return float(torch.rand((), generator=self.generator, device=self.generator.device))

    def _drawn(self, probabilities: Float[Tensor, " vocab"]) -> int:
        return int(torch.multinomial(probabilities, 1, generator=self.generator))


def residual(p: Float[Tensor, " vocab"], q: Float[Tensor, " vocab"]) -> Float[Tensor, " vocab"]:
    """Return what a token is drawn from in place of a draft that was not accepted: max(0, p - q), summing to 1."""
    left = (p - q).clamp(min=0)
    total = left.sum()
    return left / total if float(total) > 0 else p  # equal but for rounding: then a rejection is rounding, too
