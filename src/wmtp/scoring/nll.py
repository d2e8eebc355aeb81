"""-log P(x_j | x_<j) of every token, by a causal LM or the first head of an MTP model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from wmtp.models.causal import CausalModel
from wmtp.models.targets import shift


def token_losses(
    model: CausalModel, texts: Sequence[Int[Tensor, "tokens"]], device: torch.device
) -> list[Float[Tensor, "tokens"]]:
    """Return the loss of each token of some texts in nats, fp32 on the CPU; 0 at the first, before which is nothing."""
    longest = max(len(text) for text in texts)
    lengths = torch.tensor([len(text) for text in texts]).unsqueeze(1)
    # Padding is told by the mask alone; its id is one that every vocabulary has.
    ids = torch.stack([nn.functional.pad(text.long(), (0, longest - len(text))) for text in texts]).to(device)
    mask = (torch.arange(longest) < lengths).long().to(device)
    losses = batch_losses(model, {"input_ids": ids, "attention_mask": mask}).cpu()
    return [row[: len(text)].clone() for row, text in zip(losses, texts, strict=True)]


@torch.no_grad()
def batch_losses(model: CausalModel, batch: dict[str, Tensor]) -> Float[Tensor, "batch seq"]:
    """Return the loss of each token of a batch, prompts included, fp32; 0 at the first of a document and on padding.

    Args:
        model: From `wmtp.models.causal.causal_model`.
        batch: `input_ids` with what tells its documents apart, as `RowDataset.collate` returns it.
    """
    bounds = {name: batch[name] for name in ("attention_mask", "position_ids", "document_ids") if name in batch}
    output = model(batch["input_ids"], **bounds, labels=batch["input_ids"])
    return shift(cast("Tensor", output.ce)[..., 0], -1, fill=0.0)
