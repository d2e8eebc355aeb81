"""critic: from a document's reward and value heads to what each token was worth.

Rewards, values and advantages belong to documents of packed rows. Values are of states, `V[t]`: what is expected after
tokens 0..t; or of tokens, `Q[j]`: what is expected once token j is chosen after tokens 0..j-1. Advantages and gates are
of tokens: `A[j]` is what token j changed. The response of a document is from its first learned token P to its last T.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from wmtp.algorithms.grouping import counts, documents, num_before
from wmtp.errors import CheckpointError
from wmtp.models.targets import shift

# In standard deviations: a single outlier must not become the whole batch.
REWARD_CLIP = 5.0
LOWEST_GATE, HIGHEST_GATE = 0.1, 5.0


@dataclass(frozen=True)
class Response:
    """Where the learned part of each document is.

    Attributes:
        inside: Tokens from the first learned one of a document to its last, and any between.
        last: The last learned token of each document.
        place: Of a learned token among those of its document: from 0, the first, to 1, the last or only one.
    """

    inside: Bool[Tensor, "batch seq"]
    last: Bool[Tensor, "batch seq"]
    place: Float[Tensor, "batch seq"]

    @classmethod
    def of(cls, learned: Bool[Tensor, "batch seq"], document_ids: Int[Tensor, "batch seq"]) -> Response:
        """Find it from the learned tokens of rows."""
        numbers = documents(document_ids)
        num_learned, before = counts(learned, numbers), num_before(learned, numbers)
        inside = (learned | (before > 0)) & (before < num_learned)
        last = learned & (before == num_learned - 1)
        return cls(inside, last, torch.where(last, 1, before / (num_learned - 1).clamp(min=1)).clamp(max=1))


def advantages(
    values: Float[Tensor, "batch seq"],
    rewards: Float[Tensor, "batch seq"],
    response: Response,
    *,
    gamma: float,
    lambda_: float,
) -> Float[Tensor, "batch seq"]:
    """Return the generalised advantage of each token of a response; 0 elsewhere.

    `d[j] = gamma * V[j] - V[j-1]` before the last token T, `d[T] = R - V[T-1]`, and
    `A[j] = d[j] + gamma * lambda * A[j+1]`, backwards within a document.

    Args:
        values: Of each state; those outside responses are not read, but for the state just before one.
        rewards: The document's reward R, at each of its learned tokens.
        response: Where responses are.
        gamma: Discount for each token, above 0, at most 1.
        lambda_: From 0, the one-step error, to 1, all that came after.

    Source: Schulman et al. 2016 (arXiv 1506.02438), equation 16. The one reward arrives at the last learned token, and
        nothing is expected after it. Tokens that are not learned between learned ones are steps like any other.
    """
    after = torch.where(response.last, rewards, gamma * values)
    errors = torch.where(response.inside, after - shift(values, -1, 0.0), 0)
    if lambda_ == 0:
        return errors
    return _discounted(errors, gamma * lambda_ * (response.inside & ~response.last))


def _discounted(errors: Float[Tensor, "batch seq"], factors: Float[Tensor, "batch seq"]) -> Float[Tensor, "batch seq"]:
    """Return A with `A[j] = errors[j] + factors[j] * A[j+1]`, in log2(seq) rounds instead of seq steps."""
    # After a round with distance d, errors[j] is the sum over the next 2d tokens, and factors[j] reaches 2d further.
    distance = 1
    while distance < errors.shape[1]:
        errors = errors + factors * shift(errors, distance, 0.0)
        factors = factors * shift(factors, distance, 0.0)
        distance *= 2
    return errors


def value_targets(
    values: Float[Tensor, "batch seq"],
    rewards: Float[Tensor, "batch seq"],
    response: Response,
    *,
    gamma: float,
    lambda_: float,
) -> Float[Tensor, "batch seq"]:
    """Return what the value of each state before a token of a response should be: `G[t] = A[t+1] + V[t]`; else 0.

    With gamma and lambda 1 that is the reward itself. Arguments as of `advantages`.

    Source: Schulman et al. 2016 (arXiv 1506.02438), section 5; they fit the discounted sum of rewards, lambda 1.
    """
    target = shift(advantages(values, rewards, response, gamma=gamma, lambda_=lambda_), 1, 0.0) + values
    return torch.where(shift(response.inside, 1, fill=False), target, 0)


def token_credit(
    token_values: Float[Tensor, "batch seq"],
    values: Float[Tensor, "batch seq"],
    learned: Bool[Tensor, "batch seq"],
) -> Float[Tensor, "batch seq"]:
    """Return `A[j] = Q[j] - V[j-1]` at learned tokens, what choosing token j changed; 0 elsewhere.

    Both are fitted to the reward itself, so that over the tokens that may follow a state the mean is 0, and a state
    that forgets what earlier tokens decided takes nothing away from them.

    Args:
        token_values: Q of each token.
        values: V of each state.
        learned: Which tokens head 1 has to predict.

    Source: Snell et al. 2022, "Offline RL for Natural Language Generation with Implicit Language Q Learning"
        (arXiv 2206.11871), section 4: Q and V on the states of a language model, and weights from Q - V. They back Q up
        from later values and fit V to an expectile of it; here both are fitted to the document's reward by squared
        error.
    """
    return torch.where(learned, token_values - shift(values, -1, 0.0), 0)


def exponential_gate(advantage: Float[Tensor, "batch seq"], temperature: float) -> Float[Tensor, "batch seq"]:
    """Return `exp(A / temperature)` within [0.1, 5]; 1 where the advantage is 0.

    Advantages are in standard deviations of the reward. In their own, where nothing decides anything noise would be
    weighed like credit.

    Source: Peng et al. 2019 (arXiv 1910.00177), equation 9 and section 4 (weights are clipped); they bound above
        alone. Here a token that lowers the reward is still learned a little.
    """
    return (advantage / temperature).exp().clamp(LOWEST_GATE, HIGHEST_GATE)


class RewardStandardiser:
    """Rewards in standard deviations from their mean, at most 5 away.

    Fitted once over the rewards of all training documents, and the same from then on: it is the unit that a value head
    has learned. Before that, rewards pass as they are.
    """

    def __init__(self) -> None:
        # Number of documents, mean, deviation.
        self.figures = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)

    @property
    def is_fitted(self) -> bool:
        """Whether it has seen rewards, here or in the run that it was restored from."""
        return bool(self.figures[0] > 0)

    def fit(self, rewards: Float[Tensor, "documents"]) -> None:
        """Take mean and (population) deviation from the rewards of documents, of which at least two differ."""
        exact = rewards.cpu().double()
        self.figures = torch.stack([torch.tensor(float(len(exact))).double(), exact.mean(), exact.std(correction=0)])

    def share_clipped(self, rewards: Float[Tensor, "documents"]) -> float:
        """Return how many of the rewards lie beyond what is told apart, as a share."""
        _, mean, deviation = map(float, self.figures)
        return float((((rewards.double() - mean) / deviation).abs() > REWARD_CLIP).double().mean())

    def restore(self, figures: Float[Tensor, "3"]) -> None:
        """Take over the figures of another one.

        Raises:
            CheckpointError: If they are none that rewards can have.
        """
        count, mean, deviation = map(float, figures)
        if not (count >= 2 and deviation > 0 and math.isfinite(mean)):
            raise CheckpointError(
                f"reward_figures are {count:g} documents, mean {mean:g}, deviation {deviation:g}",
                hint="take the state again from the checkpoint that the run has published",
            )
        self.figures = figures.detach().to(self.figures, copy=True)

    def __call__(self, rewards: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Return rewards in standard deviations from the mean, fp32."""
        _, mean, deviation = map(float, self.figures)
        return ((rewards.float() - mean) / deviation).clamp(-REWARD_CLIP, REWARD_CLIP)


def is_constant(rewards: Float[Tensor, "documents"]) -> bool:
    """Return whether rewards differ by no more than fp32 rounding, so that nothing can be learned from them."""
    if len(rewards) == 0:
        return True
    exact = rewards.double()
    return bool(exact.max() - exact.min() <= 1e-6 * exact.abs().max())
