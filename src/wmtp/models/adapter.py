"""One way to train any model: what training calls is a module that answers labels with an `MTPOutput`."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedModel

from wmtp.errors import TrainingError
from wmtp.models.foreign import ForeignModel, HeadsModel, LogitsModel
from wmtp.models.losses import Backend
from wmtp.models.mtp import MTPForCausalLM
from wmtp.models.packing import packing_refusal
from wmtp.models.plain import plain_model

_PROBE_TOKENS = 8


def trainable(model: nn.Module, *, backend: Backend = "auto") -> MTPForCausalLM | ForeignModel:
    """Return a module whose forward answers labels with an `MTPOutput`.

    Args:
        model: Our own class, which is returned as it is, or any module that the adapter can call.
        backend: `loss.backend` of the recipe.
    """
    wrapped: MTPForCausalLM | ForeignModel
    if isinstance(model, (MTPForCausalLM, ForeignModel)):
        wrapped = model
    elif callable(getattr(model, "forward_heads", None)) and callable(getattr(model, "unembedding", None)):
        wrapped = HeadsModel(model, cast("Any", model).forward_heads)
    elif isinstance(model, PreTrainedModel):
        wrapped = plain_model(model)
    else:
        wrapped = LogitsModel(model, model.forward)
    wrapped.loss_backend = backend
    return wrapped


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the model that `trainable` was given."""
    return model.module if isinstance(model, ForeignModel) else model


@torch.no_grad()
def check_packing(model: nn.Module) -> None:
    """Prove that documents packed into one row do not see each other; costs two forward passes of eight tokens.

    Not every architecture derives its attention from position ids, and nothing else would tell.

    Raises:
        TrainingError: If another first document changes the logits of the second.
    """
    device = next(model.parameters()).device
    tokens = torch.arange(_PROBE_TOKENS, device=device).unsqueeze(0)
    half = _PROBE_TOKENS // 2
    documents = (tokens >= half).long()
    other = tokens * documents  # the first document is all zeros, the second unchanged
    was_training = model.training
    model.eval()  # dropout would differ between the two
    first, second = (model(ids, document_ids=documents).logits[:, half:].float() for ids in (tokens, other))
    model.train(was_training)
    if not bool(first.isfinite().all() and second.isfinite().all()):
        raise TrainingError(
            f"{type(unwrapped(model)).__name__}: its logits for eight tokens are not finite",
            hint="look for NaN or Inf among its weights: 'wmtp validate --deep'",
        )
    if not torch.allclose(first, second, rtol=1e-3, atol=1e-3 * float(first.abs().max())):
        raise packing_refusal(type(unwrapped(model)).__name__, "it takes no bounds from position_ids")
