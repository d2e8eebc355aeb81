"""Documents divided into folds, so that what is learned of a document's reward can be learned from others alone."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from wmtp.data.rows import RowDataset
from wmtp.errors import DataError
from wmtp.wording import counted

FOLD = "fold"


def with_folds(rows: RowDataset, number: int) -> RowDataset:
    """Return the same rows with the score `fold` beside each document: 0 to `number` - 1.

    It follows from a document's tokens alone: pieces of one document and equal documents are in the same fold, and each
    document is in the same one in a later run, whatever stands beside it.

    Args:
        rows: Documents.
        number: How many folds.

    Raises:
        DataError: If a fold would be empty.
    """
    folds = folds_of(rows, number)
    if (found := len(folds.unique())) < number:
        raise DataError(
            f"data.train: {counted(len(np.unique(rows.table.digests)), 'different document')} in it, too few for"
            f" critic.folds: {number}, as {number - found} of these would be empty",
            hint="give more documents; with critic.folds: 1 heads remember rewards rather than explain them",
        )
    return rows.with_figures(FOLD, folds, per_token=False)


def folds_of(rows: RowDataset, number: int) -> Float[Tensor, "documents"]:
    """Return the fold of each document, as `with_folds` says it; some may be empty."""
    return torch.from_numpy((rows.table.digests % np.uint64(number)).astype("<f4"))
