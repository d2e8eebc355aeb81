"""What of a batch a model's forward takes, and where its rows end; whatever else a batch has is a score."""

from __future__ import annotations

from wmtp.data.example import Batch
from wmtp.models.targets import Rows

_MODEL_INPUTS = ("input_ids", "labels", "attention_mask", "position_ids", "document_ids")


def model_inputs(batch: Batch) -> Batch:
    """Return what of a batch a model's forward takes."""
    return {name: batch[name] for name in _MODEL_INPUTS if name in batch}


def bounds(batch: Batch) -> Rows:
    """Return where the documents of a batch's rows begin and end."""
    return Rows.of(batch.get("attention_mask"), batch.get("position_ids"), batch.get("document_ids"))
