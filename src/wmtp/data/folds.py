"""Documents divided into folds, so that what is learned of a document's reward can be learned from others alone."""

from __future__ import annotations

from collections import Counter

import torch

from wmtp.data.example import document_digest
from wmtp.data.rows import RowDataset
from wmtp.errors import DataError

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
    digests = [example.document or document_digest(example.input_ids) for example in rows.examples]
    folds = [int(digest, 16) % number for digest in digests]
    if len(counts := Counter(folds)) < number:
        raise DataError(
            f"data.train: its {len(set(digests))} different documents are too few for critic.folds: {number}, as"
            f" {number - len(counts)} of these would be empty",
            hint="give more documents; with critic.folds: 1 heads remember rewards rather than explain them",
        )
    return rows.with_scores(FOLD, [torch.tensor(float(fold)) for fold in folds])
