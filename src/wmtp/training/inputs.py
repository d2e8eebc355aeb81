"""What of a batch a model takes, where its rows end, and what an algorithm sees of it; the rest are scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from wmtp.algorithms.signals import Signals
from wmtp.data.example import Batch
from wmtp.data.folds import FOLD
from wmtp.models.output import MTPOutput
from wmtp.models.targets import Rows

_MODEL_INPUTS = ("input_ids", "labels", "attention_mask", "position_ids", "document_ids")


def model_inputs(batch: Batch) -> Batch:
    """Return what of a batch a model's forward takes."""
    return {name: batch[name] for name in _MODEL_INPUTS if name in batch}


def bounds(batch: Batch) -> Rows:
    """Return where the documents of a batch's rows begin and end."""
    return Rows.of(batch.get("attention_mask"), batch.get("position_ids"), batch.get("document_ids"))


def signals_of(
    batch: Batch, output: MTPOutput, prior: Float[Tensor, "future"], scores: Mapping[str, Tensor], *, step: int
) -> Signals:
    """Return what an algorithm sees of a batch.

    Args:
        batch: As `RowDataset.collate` returns it, on the model's device.
        output: The model's answer to it, with at least as many heads as `prior` has factors; others are left out.
        prior: One factor a head.
        scores: What the algorithm reads beside the tokens, by name.
        step: Optimizer steps done.
    """
    ce, valid = cast("Tensor", output.ce), cast("Tensor", output.valid)
    documents = bounds(batch).document_ids
    return Signals(
        ce=ce[..., : len(prior)].detach().float(),
        valid=valid[..., : len(prior)],
        prior=prior,
        document_ids=torch.zeros_like(batch["input_ids"]) if documents is None else documents,
        scores=scores,
        values=output.state_values,
        token_values=output.token_values,
        folds=batch[FOLD].long() if FOLD in batch else None,
        step=step,
    )
