"""rho1-wmtp: tokens count by how much worse the model is at them than a reference model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from typing_extensions import override

from wmtp.algorithms.base import BASE, Algorithm, Role, Score
from wmtp.algorithms.rho1_section import Rho1Section
from wmtp.algorithms.rules import rho1_rule

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

    from wmtp.algorithms.running import RunningSums
    from wmtp.algorithms.signals import Signals


class Rho1WMTP(Algorithm):
    """Selective language modelling over several heads.

    A token's score is the signed excess loss of head 1 over a reference; it serves every head that predicts the token.

    - `token_skip` keeps the share `keep_ratio` of tokens, those of the highest scores, with mean weight 1 over all.
    - `weighted` has a soft threshold there instead, `sigmoid((s - q) / temperature)`, again with mean weight 1.
    - `horizon` is a softmax over the heads of each position, `w[t, k]` from `s[t + k] / temperature` with mean 1.

    How an optimizer step is cut into micro-batches, and over processes, changes nothing in `horizon` and with scope
    `sequence` (each document chooses by itself, and its own weights have mean 1) or `ema` (threshold and mean weight
    are those of past steps). With scope `batch` it does: the micro-batch is what tokens are chosen from.

    With scope `ema` every token weighs 1 in the first optimizer step, which has no threshold, and in the next, which
    has no mean weight; fewer than `keep_ratio` may be kept while scores fall, and more while they rise.

    Source: Lin et al. 2024, "Rho-1: Not All Tokens Are What You Need" (arXiv 2404.07965), equations 3 to 5. They select
        next tokens, hard, within a batch; the other modes and scopes, and the further heads, are ours.
    """

    name = "rho1-wmtp"
    training_algorithm = "rho1"
    roles = (BASE, Role("ref", "reference_model", "scores tokens"))
    section = Rho1Section
    section_name = "rho1"

    def __init__(self, section: Rho1Section | None = None) -> None:
        super().__init__(section)
        self.rho1 = section or Rho1Section()
        self.least_heads = 2 if self.rho1.selection_mode == "horizon" else 1
        self.scores = (Score("ref_nll", "nll", role="ref", online=self.rho1.online),)

    @override
    def weights(self, signals: Signals) -> Float[Tensor, "batch seq future"]:
        import torch

        from wmtp.algorithms.rho1_selection import excess_loss

        scores = excess_loss(signals)
        if self.rho1.selection_mode == "horizon":
            weights = self._by_heads(scores, signals)
        elif self.rho1.scope == "ema":
            weights = self._by_running_threshold(scores, signals)
        else:
            weights = self._by_share(scores, signals)
        # Only now: running figures are gathered in the warm-up too.
        return weights if signals.step >= self.rho1.warmup_steps else torch.ones_like(weights)

    @override
    def explain(self, signals: Signals) -> Mapping[str, Float[Tensor, "batch seq"]]:
        from wmtp.algorithms.rho1_selection import excess_loss

        scores = excess_loss(signals)
        threshold = self._threshold(scores, signals)
        return {"excess loss of head 1 (nats)": scores} | ({} if threshold is None else {"cut-off (nats)": threshold})

    @override
    def rule(self) -> str:
        return rho1_rule(self.rho1)

    def _threshold(self, scores: Float[Tensor, "batch seq"], signals: Signals) -> Float[Tensor, "batch seq"] | None:
        """Return the score above which a token counts; None where there is none: in the warm-up, between heads."""
        from wmtp.algorithms.rho1_selection import cut_off, running_threshold, top_share

        if self.rho1.selection_mode == "horizon" or signals.step < self.rho1.warmup_steps:
            return None
        if self.rho1.scope != "ema":
            groups = self._groups(signals)
            kept = top_share(scores, signals.learned, self.rho1.keep_ratio, groups)
            return cut_off(scores, signals.learned, kept, groups)
        past = self._histogram.kept
        return running_threshold(past, self.rho1.keep_ratio).to(scores).expand_as(scores) if past.any() else None

    def _groups(self, signals: Signals) -> Int[Tensor, "batch seq"]:
        """Return a number for each token; among those with the same one the share is taken."""
        import torch

        from wmtp.algorithms.grouping import documents

        ids = signals.document_ids
        return documents(ids) if self.rho1.scope == "sequence" else torch.zeros_like(ids)

    def _by_heads(self, scores: Float[Tensor, "batch seq"], signals: Signals) -> Float[Tensor, "batch seq future"]:
        from wmtp.algorithms.weighting import head_softmax

        return head_softmax(scores / self.rho1.temperature, signals.valid, signals.prior)

    def _by_share(self, scores: Float[Tensor, "batch seq"], signals: Signals) -> Float[Tensor, "batch seq future"]:
        from wmtp.algorithms.rho1_selection import soft_gate, top_share
        from wmtp.algorithms.weighting import normalised, spread

        groups = self._groups(signals)
        kept = top_share(scores, signals.learned, self.rho1.keep_ratio, groups)
        soft = self.rho1.selection_mode == "weighted"
        gate = soft_gate(scores, signals.learned, kept, groups, self.rho1.temperature) if soft else kept.float()
        weights = spread(gate, signals.valid)
        return normalised(weights, signals.valid, signals.prior, groups if self.rho1.scope == "sequence" else None)

    def _by_running_threshold(
        self, scores: Float[Tensor, "batch seq"], signals: Signals
    ) -> Float[Tensor, "batch seq future"]:
        import torch

        from wmtp.algorithms.rho1_selection import running_threshold, score_histogram, threshold_gate
        from wmtp.algorithms.running import by_running_mean
        from wmtp.algorithms.weighting import spread

        past = self._histogram.kept
        self._histogram.add(score_histogram(scores, signals.learned))
        if not bool(past.any()):
            return torch.ones_like(signals.ce, dtype=torch.float32)
        threshold = running_threshold(past, self.rho1.keep_ratio).to(scores)
        temperature = self.rho1.temperature if self.rho1.selection_mode == "weighted" else None
        weights = spread(threshold_gate(scores, signals.learned, threshold, temperature), signals.valid)
        return by_running_mean(weights, signals.valid, signals.prior, self._mean_weight)

    @override
    def end_step(self, total: Callable[[Tensor], Tensor]) -> None:
        self._histogram.end_step(total)
        self._mean_weight.end_step(total)

    @override
    def state(self) -> dict[str, Tensor]:
        return {"score_histogram": self._histogram.kept, "mean_weight": self._mean_weight.kept}

    @override
    def restore(self, state: Mapping[str, Tensor]) -> None:
        super().restore(state)
        self._histogram.restore(state["score_histogram"])
        self._mean_weight.restore(state["mean_weight"])

    # Made when first needed: a run is planned without torch.
    @cached_property
    def _histogram(self) -> RunningSums:
        from wmtp.algorithms.rho1_selection import NUM_BINS
        from wmtp.algorithms.running import RunningSums

        return RunningSums(NUM_BINS)

    @cached_property
    def _mean_weight(self) -> RunningSums:
        from wmtp.algorithms.running import RunningSums

        return RunningSums(2)
