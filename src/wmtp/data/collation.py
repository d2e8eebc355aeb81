"""From documents to the tensors of one row, and from rows to those of a batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from wmtp.data.example import Example
from wmtp.models.targets import IGNORE

# Padding is told by labels and masks, never by its id, so any id that every vocabulary has will do.
_FILLER = 0


def packed_row(row: Sequence[Example], length: int) -> dict[str, Tensor]:
    """Return the tensors of documents that share a row of `length` tokens; see `RowDataset.collate`."""
    lengths = [len(example) for example in row]
    padding = length - sum(lengths)
    if padding:
        lengths.append(padding)
    return {
        "input_ids": torch.cat([*(e.input_ids.long() for e in row), torch.full((padding,), _FILLER)]),
        "labels": torch.cat([*(e.labels for e in row), torch.full((padding,), IGNORE)]),
        "position_ids": torch.cat([torch.arange(n) for n in lengths]),
        "document_ids": torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths)),
        **_scores(row, padding),
    }


def padded_row(example: Example, length: int) -> dict[str, Tensor]:
    """Return the tensors of one document in a row of `length` tokens; see `RowDataset.collate`."""
    padding = length - len(example)
    return {
        "input_ids": torch.cat([example.input_ids.long(), torch.full((padding,), _FILLER)]),
        "labels": torch.cat([example.labels, torch.full((padding,), IGNORE)]),
        "attention_mask": (torch.arange(length) < len(example)).long(),
        **_scores([example], padding),
    }


def stacked(rows: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return the tensors of a batch from those of its rows."""
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


def _scores(row: Sequence[Example], padding: int) -> dict[str, Float[Tensor, "seq"]]:
    return {
        name: torch.cat([*(e.scores[name].float().expand(len(e)) for e in row), torch.zeros(padding)])
        for name in row[0].scores
    }
