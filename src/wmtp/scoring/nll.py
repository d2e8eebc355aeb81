"""-log P(x_j | x_<j) of every token, by a causal LM or the first head of an MTP model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from wmtp.errors import CheckpointError
from wmtp.models.adapter import ForeignModel, trainable
from wmtp.models.mtp import MTPForCausalLM
from wmtp.models.targets import shift

CausalModel = MTPForCausalLM | ForeignModel

_PROBE_TOKENS = 8


def causal_model(model: nn.Module) -> CausalModel:
    """Return a loaded model, frozen, behind the interface that gives losses of tokens without logits of a whole batch.

    A plain causal LM becomes the trunk of a model with one head, where that is shown to give the same logits. One for
    which it does not is called as it is, and its logits exist for one batch at a time.
    """
    model.eval().requires_grad_(False)
    if isinstance(model, PreTrainedModel):
        return _around(model) or trainable(model)
    return trainable(model)


def vocabulary_size(model: CausalModel) -> int:
    """Return how many tokens the model itself predicts."""
    return int(_logits(model, 1).shape[-1])


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
        model: From `causal_model`.
        batch: `input_ids` with what tells its documents apart, as `RowDataset.collate` returns it.
    """
    bounds = {name: batch[name] for name in ("attention_mask", "position_ids", "document_ids") if name in batch}
    output = model(batch["input_ids"], **bounds, labels=batch["input_ids"])
    return shift(cast("Tensor", output.ce)[..., 0], -1, fill=0.0)


def _around(model: PreTrainedModel) -> MTPForCausalLM | None:
    """Return the model as a trunk with one head; None when that does not answer the same."""
    expected = _logits(trainable(model), _PROBE_TOKENS)
    try:
        wrapped = MTPForCausalLM.around(model, heads=1, head_type="linear")
    except CheckpointError:
        return None
    return wrapped if torch.allclose(_logits(wrapped, _PROBE_TOKENS), expected, rtol=1e-3, atol=1e-3) else None


@torch.no_grad()
def _logits(model: CausalModel, num_tokens: int) -> Tensor:
    device = next(model.parameters()).device
    return cast("Tensor", model(torch.arange(num_tokens, device=device).unsqueeze(0)).logits).float()
