"""baseline-mtp: every token and every head counts the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

from typing_extensions import override

from wmtp.algorithms.base import BASE, Algorithm

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from torch import Tensor


class BaselineMTP(Algorithm):
    """Plain multi-token prediction.

    Source: Gloeckle et al. 2024, "Better & Faster Large Language Models via Multi-token Prediction"
        (arXiv 2404.19737), equation 2. They sum the losses of heads; ours is the mean over pairs of position and head,
        which is that divided by about H, so a learning rate carries over between horizons.
    """

    name = "baseline-mtp"
    training_algorithm = "baseline"
    roles = (BASE,)

    @override
    def weights(
        self, ce: Float[Tensor, "batch seq future"], valid: Bool[Tensor, "batch seq future"]
    ) -> Float[Tensor, "batch seq future"]:
        import torch

        return torch.ones_like(ce, dtype=torch.float32, requires_grad=False)
