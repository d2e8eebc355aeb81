"""baseline-mtp: every token and every head counts the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

from typing_extensions import override

from wmtp.algorithms.base import BASE, Algorithm

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from wmtp.algorithms.signals import Signals


class BaselineMTP(Algorithm):
    """Plain multi-token prediction: w = 1. How an optimizer step is cut into micro-batches changes nothing.

    Source: Gloeckle et al. 2024, "Better & Faster Large Language Models via Multi-token Prediction"
        (arXiv 2404.19737), equation 2. They sum the losses of heads; ours is the mean over pairs of position and head,
        which is that divided by about H, so a learning rate carries over between horizons.
    """

    name = "baseline-mtp"
    training_algorithm = "baseline"
    roles = (BASE,)
    weighs_evenly = True

    @override
    def weights(self, signals: Signals) -> Float[Tensor, "batch seq future"]:
        import torch

        return torch.ones_like(signals.ce, dtype=torch.float32, requires_grad=False)

    @override
    def rule(self) -> str:
        return "Every token weighs 1, whichever head predicts it: none is emphasised."
