"""The table of rows that are in memory already, as examples."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from wmtp.data.example import Example, Row
from wmtp.data.layout import Layout
from wmtp.data.row_table import Figures, RowTable
from wmtp.data.token_store import Array, TokenStore, record_type, token_digest


def table_of(rows: Sequence[Row]) -> RowTable:
    """Return the table of rows that are in memory already; each of their examples becomes a document."""
    examples = list(chain.from_iterable(rows))
    tokens = [example.input_ids.numpy().astype("<i4") for example in examples]
    records = np.zeros(len(examples), record_type(()))
    lengths = np.array([len(each) for each in tokens], dtype=np.int64)
    parts = np.array([bool(example.document) for example in examples], dtype=bool)
    records["length"], records["file"] = lengths, -1
    records["targets"] = [example.num_targets for example in examples]
    records["chat"] = [example.learned is not None for example in examples]
    records["digest"] = [
        int(example.document, 16) if example.document else token_digest(each)
        for example, each in zip(examples, tokens, strict=True)
    ]
    layout = Layout(
        starts=np.cumsum(lengths) - lengths,
        lengths=lengths,
        prompts=np.array([example.num_prompt_tokens for example in examples], dtype=np.int64),
        targets=records["targets"],
        documents=np.arange(len(examples)),
        parts=parts,
        bounds=np.concatenate([[0], np.cumsum([len(row) for row in rows], dtype=np.int64)]),
    )
    masks = [_mask(example) for example in examples] if records["chat"].any() else None
    joined = np.concatenate(tokens or [np.zeros(0, "<i4")])
    store = TokenStore(joined, records, None if masks is None else np.concatenate(masks))
    names = examples[0].scores if examples else {}
    scores = {name: figures_of(name, examples, [example.scores[name] for example in examples]) for name in names}
    return RowTable(store, layout, scores)


def figures_of(name: str, examples: Iterable[Example], values: Iterable[Tensor]) -> Figures:
    """Return a score as a table keeps it.

    Args:
        name: What it is called.
        examples: All of a table's.
        values: For each a figure for each token, or one for all of them (0-dim).

    Raises:
        ValueError: If they do not fit the examples.
    """
    found = []
    for example, value in zip(examples, values, strict=True):
        if value.shape not in ((), (len(example),)):
            raise ValueError(f"{name}: figures of shape {tuple(value.shape)} for {len(example)} tokens")
        found.append((len(example), value.float()))
    if all(value.dim() == 0 for _, value in found):
        return Figures(np.array([float(value) for _, value in found], dtype="<f4"), per_token=False)
    return Figures(torch.cat([value.expand(length) for length, value in found]).numpy(), per_token=True)


def _mask(example: Example) -> Array:
    learned = torch.ones(len(example)) if example.learned is None else example.learned
    return learned.numpy().astype("u1")
