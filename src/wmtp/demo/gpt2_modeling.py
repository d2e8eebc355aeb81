"""A GPT-2 with four prediction heads, as a research group might have written it.

`wmtp demo` copies this file into a checkpoint as its modeling.py. It needs nothing of wmtp.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2Model


class GPTMTPForCausalLM(nn.Module):
    """A GPT-2 trunk; head k predicts token t + k from a small block of its own and an unembedding of its own."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.config = config
        self.num_heads = config.n_future_tokens
        self.transformer = GPT2Model(config)
        self.blocks = nn.ModuleList(nn.Linear(config.n_embd, config.n_embd) for _ in range(self.num_heads))
        self.unembeddings = nn.ModuleList(
            nn.Linear(config.n_embd, config.vocab_size, bias=False) for _ in range(self.num_heads)
        )

    def forward_heads(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, position_ids: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the trunk's hidden state `[B,S,D]` and what each head's unembedding is applied to, `[B,S,H,D]`."""
        hidden = self.transformer(
            input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids, use_cache=False
        ).last_hidden_state
        heads = [hidden + nn.functional.silu(block(hidden)) for block in self.blocks]
        return hidden, torch.stack(heads, dim=2)

    def unembedding(self, k: int) -> tuple[Tensor, None]:
        """Return the matrix `[V,D]` of head `k` (1..H); there is no bias."""
        matrix = self.unembeddings[k - 1]
        assert isinstance(matrix, nn.Linear)
        return matrix.weight, None

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, position_ids: Tensor | None = None
    ) -> Tensor:
        """Return logits `[B,S,H,V]`."""
        _, heads = self.forward_heads(input_ids, attention_mask, position_ids)
        return torch.stack([unembed(heads[:, :, k]) for k, unembed in enumerate(self.unembeddings)], dim=2)
