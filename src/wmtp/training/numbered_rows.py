"""Rows that carry their number into the batch, so that a batch that breaks a run can be named by its documents."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch.utils.data import Dataset

from wmtp.data.example import Batch, Row
from wmtp.data.rows import RowDataset

ROW = "row"


class NumberedRows(Dataset[tuple[int, Row]]):
    """The rows of a data set, each with its place in it; batches have these under `row`.

    Args:
        rows: The data set.
        collate: Makes a batch of its rows.
    """

    def __init__(self, rows: RowDataset, collate: Callable[[Sequence[Row]], Batch]) -> None:
        self._rows, self._collate = rows, collate

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> tuple[int, Row]:
        return index, self._rows[index]

    def collate(self, items: Sequence[tuple[int, Row]]) -> Batch:
        """Return the tensors of a batch, with the number of each row."""
        return self._collate([row for _, row in items]) | {ROW: torch.tensor([number for number, _ in items])}


def places_of(rows: Sequence[Row] | RowDataset, numbers: Iterable[int]) -> list[str]:
    """Return where the documents of some rows come from: file, and line for JSON; nothing where nobody knows."""
    found = (example.where for number in numbers for example in rows[number])
    return [where for where in dict.fromkeys(found) if where]
