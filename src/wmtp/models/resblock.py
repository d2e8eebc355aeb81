"""Heads of residual blocks on the trunk's final hidden state, as Medusa has them."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F  # noqa: N812 - the name that everyone knows it by
from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import override

from wmtp.models.copies import fresh_copy
from wmtp.models.heads import MTPConfig


class ResBlock(nn.Module):
    """x + SiLU(W x + b), which is x while W and b are zero.

    Args:
        like: Has the width, device and dtype: a matrix `[..., dim]`.
        bias: Whether there is a b.
    """

    def __init__(self, like: Tensor, *, bias: bool) -> None:
        super().__init__()
        width = like.shape[-1]
        self.linear = nn.Linear(width, width, bias=bias, device=like.device, dtype=like.dtype)
        self.reset_to_identity()

    def reset_to_identity(self) -> None:
        """Become x -> x. It learns from there: the derivative of SiLU at 0 is 1/2."""
        for parameter in self.linear.parameters():
            nn.init.zeros_(parameter)

    @override
    def forward(self, hidden: Float[Tensor, "*rows dim"]) -> Float[Tensor, "*rows dim"]:
        return hidden + F.silu(self.linear(hidden))


class ResBlockHead(nn.Module):
    """A head of residual blocks on the trunk's final hidden state, then an unembedding.

    Source: Cai et al. 2024 (Medusa, arXiv 2401.10774), section 2.1.1, p_k = softmax(W2 (SiLU(W1 h) + h)), with W1 = 0
        and W2 = the model's own unembedding at first. The paper has one block; here there are `num_blocks` in a row, as
        in its code. Head k of ours predicts token t + k, which is the paper's head k - 1, as we count the next-token
        head; and the unembedding may be the trunk's own, as vLLM's `original_lm_head`. How heads are weighted, and that
        the trunk learns too, is the training algorithm's business: the paper freezes the trunk (Medusa-1) or lets the
        heads learn first (Medusa-2), and weighs its head k by 0.8^k.

    Args:
        like: The trunk's unembedding.
        std: Of a new unembedding's values.
        config: How many blocks there are, and what they have.
    """

    def __init__(self, like: nn.Module, std: float, config: MTPConfig) -> None:
        super().__init__()
        weight: Any = like.weight
        self.blocks = nn.ModuleList(ResBlock(weight, bias=config.block_bias) for _ in range(config.num_blocks))
        self.unembedding = None if config.shared_unembedding else fresh_copy(like, std)

    def copy_from(self, unembedding: nn.Module) -> None:
        """Become equal to the trunk's next-token head."""
        for block in self.blocks:
            block.reset_to_identity()  # type: ignore[operator]  # a ModuleList does not know what it holds
        if self.unembedding is not None:
            self.unembedding.load_state_dict(unembedding.state_dict())

    @override
    def forward(self, hidden: Float[Tensor, "*rows dim"]) -> Float[Tensor, "*rows dim"]:
        for block in self.blocks:
            hidden = block(hidden)
        return hidden
