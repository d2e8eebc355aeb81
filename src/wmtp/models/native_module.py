"""One native prediction module: what it is made of, and what it computes."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the name that everyone knows it by
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel
from typing_extensions import override

from wmtp.metadata.heads import Owner, SequentialConventions
from wmtp.models.calls import Call
from wmtp.models.copies import fresh_copy


class NativeModule(nn.Module):
    """A decoder layer that reads a hidden state and the embedding of the token after it.

    The names of its parts are those of transformers' `MtpLayer`: `enorm` and `hnorm` on the two inputs, `eh_proj` from
    both to one, `mtp_block`, `post_norm`. Which of the norms exist, and whether it has an `embed_tokens` or
    `unembedding`, its conventions say.

    Args:
        trunk: The causal LM that the module belongs to.
        block: The layer of the trunk that its own is like.
        norm: The trunk's final norm, which its norms are like.
        conventions: How native modules of this checkpoint compute.
        std: Standard deviation of matrices that nothing fills.

    Source: DeepSeek-V3 (arXiv 2412.19437), section 2.2, equations 21 to 23: RMSNorm of both inputs, projection, block,
        shared embedding and output head. Differences of other families are data: `SequentialConventions`.
    """

    def __init__(
        self,
        trunk: PreTrainedModel,
        block: nn.Module,
        norm: nn.Module,
        conventions: SequentialConventions,
        std: float,
    ) -> None:
        super().__init__()
        self.conventions = conventions
        embedding: Any = trunk.get_input_embeddings()
        dim = embedding.weight.shape[1]
        if conventions.input_norms:
            self.enorm, self.hnorm = fresh_copy(norm, std), fresh_copy(norm, std)
        self.eh_proj = nn.Linear(2 * dim, dim, bias=False, device=embedding.weight.device, dtype=embedding.weight.dtype)
        nn.init.normal_(self.eh_proj.weight, std=std)
        self.mtp_block = fresh_copy(block, std)
        self.post_norm = fresh_copy(norm, std) if conventions.final_norm == "own" else None
        self.embed_tokens = _held(conventions.embedding, embedding, std)
        self.unembedding = _held(conventions.unembedding, trunk.get_output_embeddings(), std)

    @override
    def forward(
        self, embedding: Float[Tensor, "batch seq dim"], hidden: Float[Tensor, "batch seq dim"], call: Call
    ) -> Float[Tensor, "batch seq dim"]:
        """Return the output of the module's decoder layer, before any norm.

        Args:
            embedding: Of the token after the one whose hidden state it stands beside.
            hidden: Of the trunk, or what the module before this one passed on.
            call: What the trunk's layer of the same kind was called with: masks, rotary embeddings, positions.
        """
        if self.conventions.input_norms:
            embedding, hidden = self.enorm(embedding), self.hnorm(hidden)
        inputs = [embedding, hidden]
        if self.conventions.concatenation == "hidden_embedding":
            inputs.reverse()
        args, kwargs = call
        output = self.mtp_block(self.eh_proj(torch.cat(inputs, dim=-1)), *args[1:], **kwargs)
        return output[0] if isinstance(output, (tuple, list)) else output


def _held(owner: Owner, of_trunk: nn.Module, std: float) -> nn.Module | None:
    if owner == "copied":
        return of_trunk  # the very same module: its values have two names, and stay equal
    return fresh_copy(of_trunk, std) if owner == "own" else None


def embedded(module: nn.Module, ids: Int[Tensor, "batch seq"], *, bare: bool) -> Float[Tensor, "batch seq dim"]:
    """Return the embeddings of tokens; `bare`: the rows of the matrix, without what else the module does to them."""
    if not bare:
        vectors: Tensor = module(ids)
        return vectors
    weight: Any = module.weight
    return F.embedding(ids, weight)
