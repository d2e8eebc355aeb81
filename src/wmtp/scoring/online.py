"""Losses by a reference model while training, for the batch at hand."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from wmtp.data.example import Batch
from wmtp.errors import DataError
from wmtp.models.adapter import check_packing
from wmtp.models.causal import CausalModel
from wmtp.models.targets import IGNORE
from wmtp.scoring.nll import batch_losses


class OnlineLosses:
    """-log P(x_j | x_<j) of every token of a batch by a frozen model, as scoring before training would give it.

    Args:
        model: From `causal_model`, where batches are.
        where: Its address, for messages.
    """

    def __init__(self, model: CausalModel, where: str) -> None:
        self._model, self._where = model, where
        self._is_proven = False

    def __call__(self, batch: Batch) -> Float[Tensor, "batch seq"]:
        """Return losses in nats, fp32; 0 at the first token of a document and on padding.

        Args:
            batch: As `RowDataset.collate` returns it, on the model's device.

        Raises:
            DataError: If a loss is not finite.
            TrainingError: If rows are packed and the model does not keep their documents apart.
        """
        is_packed = "document_ids" in batch
        if is_packed and not self._is_proven:
            check_packing(self._model)
            self._is_proven = True
        losses = batch_losses(self._model, batch)
        if is_packed:
            losses = losses * _belongs_to_a_document(batch)
        if not losses.isfinite().all():
            raise DataError(
                f"{self._where}: a loss that it gives to a token of a batch is not finite",
                hint="check its weights with 'wmtp validate --deep', or load it in float32: devices.dtype",
            )
        return losses


def _belongs_to_a_document(batch: Batch) -> Bool[Tensor, "batch seq"]:
    """Tell tokens from padding, which is the one document of a packed row with nothing to learn."""
    documents = batch["document_ids"]
    learned = torch.zeros(len(documents), int(documents.max()) + 1, device=documents.device)
    learned = learned.scatter_add(1, documents, (batch["labels"] != IGNORE).float())
    return learned.gather(1, documents) > 0
