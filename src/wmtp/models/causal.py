"""Any loaded model behind one interface, frozen: a plain causal LM as an MTP model with one head."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from wmtp.errors import CheckpointError
from wmtp.models.adapter import trainable
from wmtp.models.foreign import ForeignModel
from wmtp.models.mtp import MTPForCausalLM

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
