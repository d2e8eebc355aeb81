"""Several value heads over the same documents: each gives credit to those that it was not fitted on.

A head that has seen a document's reward remembers it, and what it then says of the document's tokens is no estimate. So
documents are divided into folds, and head f is fitted on the documents of all other folds.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def of_own_fold(
    values: Float[Tensor, "batch seq folds"], folds: Int[Tensor, "batch seq"]
) -> Float[Tensor, "batch seq"]:
    """Return, at each token, what the head of its document's fold says: one that was not fitted on the document."""
    return values.gather(2, folds.unsqueeze(2)).squeeze(2)


def fitted_here(folds: Int[Tensor, "batch seq"], num_folds: int) -> Bool[Tensor, "batch seq folds"]:
    """Return which heads are fitted on each token: those of all other folds, or the only one there is."""
    numbers = torch.arange(num_folds, device=folds.device)
    return (folds.unsqueeze(2) != numbers) | (num_folds == 1)
