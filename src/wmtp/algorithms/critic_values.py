"""critic: what value heads say of a batch, and what follows from it for weights, for their loss and for the gate."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from wmtp.algorithms.critic_advantage import Response, advantages, token_credit, value_targets
from wmtp.algorithms.explained import ValueStates
from wmtp.algorithms.folds import fitted_here, of_own_fold
from wmtp.algorithms.signals import Signals
from wmtp.models.targets import shift


@dataclass(frozen=True)
class CriticValues:
    """Values of a batch beside the rewards of its documents; all fp32.

    Attributes:
        signals: The batch.
        values: V of each state, by each fold's head.
        token_values: Q of each token, by each fold's head; None with credit return.
        folds: The fold of each token's document.
        rewards: The document's standardised reward, at each of its tokens.
        response: Where the learned parts of documents are.
    """

    signals: Signals
    values: Float[Tensor, "batch seq folds"]
    token_values: Float[Tensor, "batch seq folds"] | None
    folds: Int[Tensor, "batch seq"]
    rewards: Float[Tensor, "batch seq"]
    response: Response

    @classmethod
    def of(cls, signals: Signals, rewards: Float[Tensor, "batch seq"], *, of_tokens: bool) -> CriticValues:
        """Take what signals say, with rewards that are standardised; of tokens only where these are to count."""
        assert signals.values is not None
        if signals.folds is None and signals.values.shape[2] > 1:
            raise ValueError("value heads in several folds, and rows that do not say which fold a document is in")
        folds = torch.zeros_like(signals.document_ids) if signals.folds is None else signals.folds
        tokens = signals.token_values.float() if of_tokens and signals.token_values is not None else None
        response = Response.of(signals.learned, signals.document_ids)
        return cls(signals, signals.values.float(), tokens, folds, rewards, response)

    def advantage(self, *, gamma: float, lambda_: float) -> Float[Tensor, "batch seq"]:
        """Return the advantage of each learned token, by heads that were not fitted on its document; detached.

        Args:
            gamma: As of `advantages`; without a meaning for values of tokens.
            lambda_: The same.
        """
        values = of_own_fold(self.values.detach(), self.folds)
        if self.token_values is not None:
            return token_credit(of_own_fold(self.token_values.detach(), self.folds), values, self.signals.learned)
        return advantages(values, self.rewards, self.response, gamma=gamma, lambda_=lambda_)

    def said(self, *, gamma: float, lambda_: float) -> dict[str, Float[Tensor, "batch seq"]]:
        """Return, named in words, the advantage of each learned token, the values it is made of, and the reward.

        Args:
            gamma: As of `advantage`.
            lambda_: The same.
        """
        before = shift(of_own_fold(self.values.detach(), self.folds), -1, 0.0)
        found = {"advantage A (deviations)": self.advantage(gamma=gamma, lambda_=lambda_)}
        if self.token_values is not None:
            found["Q, value of the token (deviations)"] = of_own_fold(self.token_values.detach(), self.folds)
        found["V, value before the token (deviations)"] = before
        return found | {"R, reward of the text (deviations)": self.rewards}

    def loss(self, *, gamma: float, lambda_: float) -> Float[Tensor, ""]:
        """Return the sum of squared errors of all heads over the tokens that they are fitted on.

        Args:
            gamma: Of the targets of V, as of `value_targets`.
            lambda_: The same.
        """
        fitted = fitted_here(self.folds, self.values.shape[2])
        before = self.signals.valid[..., :1]  # head 1 has a token to predict at t: t is the state before it
        targets = [
            value_targets(values, self.rewards, self.response, gamma=gamma, lambda_=lambda_)
            for values in self.values.detach().unbind(2)
        ]
        loss = torch.where(before & fitted, self.values - torch.stack(targets, dim=2), 0).square().sum()
        if self.token_values is not None:
            errors = self.token_values - self.rewards.unsqueeze(2)
            loss = loss + torch.where(self.signals.learned.unsqueeze(2) & fitted, errors, 0).square().sum()
        return loss

    def states(self) -> ValueStates:
        """Return what heads that were not fitted on it say of each learned token: Q, or V of the state before."""
        said = shift(self.values, -1, 0.0) if self.token_values is None else self.token_values
        chosen = self.signals.learned
        values = of_own_fold(said.detach(), self.folds)[chosen]
        return ValueStates(values, self.rewards[chosen], self.response.place[chosen])
