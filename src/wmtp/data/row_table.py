"""Rows that are put together when they are asked for, of tokens that lie in a file or in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import overload

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from wmtp.data.example import Example, Row
from wmtp.data.layout import Layout
from wmtp.data.token_store import Array, TokenStore

_PASS_TOKENS = 1 << 22


@dataclass(frozen=True, eq=False)
class Figures:
    """One score of all pieces of a table.

    Attributes:
        values: In the order of the pieces, fp32: one for each, or one for each of their tokens.
        per_token: Which of the two.
    """

    values: Array
    per_token: bool


@dataclass(frozen=True)
class Known:
    """What would need a pass over all tokens to find out.

    Attributes:
        fingerprint: Over what is learned.
        largest_token: The highest token id.
    """

    fingerprint: str
    largest_token: int


@dataclass(frozen=True, eq=False)
class RowTable(Sequence[Row]):
    """Rows of pieces of documents.

    Attributes:
        store: The documents.
        layout: Which pieces the rows have.
        scores: What is known of pieces or of their tokens, by name.
        known: What a pass over all tokens has found out before; None: nothing.
    """

    store: TokenStore
    layout: Layout
    scores: Mapping[str, Figures] = field(default_factory=dict)
    known: Known | None = None
    _token_bounds: list[Array] = field(default_factory=list, repr=False)  # once they have been needed

    @override
    def __len__(self) -> int:
        return self.layout.num_rows

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    @override
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        row = range(len(self))[index]
        first, end = self.layout.bounds[row : row + 2].tolist()
        return tuple(self.example(piece) for piece in range(first, end))

    @property
    def num_examples(self) -> int:
        """How many pieces there are in all rows."""
        return len(self.layout.lengths)

    @property
    def examples(self) -> Iterator[Example]:
        """Every piece, row by row."""
        return (self.example(piece) for piece in range(self.num_examples))

    def tokens(self, piece: int) -> Tensor:
        """Return the tokens of one piece, int32."""
        start = int(self.layout.starts[piece])
        return torch.from_numpy(self.store.tokens[start : start + int(self.layout.lengths[piece])].copy())

    @property
    def digests(self) -> Array:
        """What tells the document of each piece from others: 64 bits over its tokens, cut or not."""
        return self.store.records["digest"][self.layout.documents]

    def example(self, piece: int) -> Example:
        """Return one piece, by its place in the layout."""
        layout = self.layout
        start, document = int(layout.starts[piece]), int(layout.documents[piece])
        end = start + int(layout.lengths[piece])
        record, learned = self.store.records[document], None
        if record["chat"] and self.store.learned is not None:
            learned = torch.from_numpy(self.store.learned[start:end].astype(bool))
        return Example(
            self.tokens(piece),
            int(layout.prompts[piece]),
            {name: self._score(name, piece) for name in self.scores},
            f"{int(record['digest']):016x}" if layout.parts[piece] else "",
            learned,
            self.store.where(document),
        )

    @property
    def texts(self) -> Sequence[Tensor]:
        """The tokens of each piece, read when they are asked for."""
        return _Texts(self)

    def take(self, rows: Array) -> RowTable:
        """Return some of the rows, in the order in which they are named; one may be named more than once."""
        pieces = self.layout.pieces_of(rows)
        return RowTable(self.store, self.layout.rows(rows), {name: self._picked(name, pieces) for name in self.scores})

    def with_score(self, name: str, figures: Figures) -> RowTable:
        """Return the same rows with one more score."""
        return replace(self, scores={**self.scores, name: figures})

    def largest_token(self) -> int:
        """Return the highest token id, which the model's vocabulary must reach."""
        if self.known is not None:
            return self.known.largest_token
        order = np.argsort(self.layout.starts, kind="stable")
        starts, lengths = self.layout.starts[order], self.layout.lengths[order]
        begins = np.flatnonzero(np.concatenate([[True], starts[1:] != starts[:-1] + lengths[:-1]]))
        ends = np.concatenate([begins[1:], [len(starts)]]) - 1
        runs = zip(starts[begins].tolist(), (starts[ends] + lengths[ends]).tolist(), strict=True)
        passes = (
            (first, min(end, first + _PASS_TOKENS)) for start, end in runs for first in range(start, end, _PASS_TOKENS)
        )
        return max(int(self.store.tokens[first:end].max()) for first, end in passes)

    def fingerprint(self) -> str:
        """Return `sha256:<hex>` over what is learned: tokens, prompts, document and row boundaries; no scores."""
        if self.known is not None:
            return self.known.fingerprint
        digest, layout = hashlib.sha256(), self.layout
        begins_row = np.zeros(self.num_examples + 1, dtype=bool)
        begins_row[layout.bounds[:-1]] = True
        chats = self.store.records["chat"][layout.documents] > 0
        numbers = zip(layout.starts.tolist(), layout.lengths.tolist(), layout.prompts.tolist(), strict=True)
        for piece, (start, length, prompt) in enumerate(numbers):
            if begins_row[piece]:
                digest.update(b"row")
            digest.update(f"{length},{prompt};".encode())
            digest.update(self.store.tokens[start : start + length].tobytes())
            if chats[piece] and self.store.learned is not None:
                digest.update(b"learned" + self.store.learned[start : start + length].tobytes())
        return f"sha256:{digest.hexdigest()}"

    def _score(self, name: str, piece: int) -> Tensor:
        figures = self.scores[name]
        if not figures.per_token:
            return torch.tensor(float(figures.values[piece]))
        first, end = self.token_bounds[piece : piece + 2].tolist()
        return torch.from_numpy(figures.values[first:end])

    @property
    def token_bounds(self) -> Array:
        """Where each piece begins among the figures of a score that has one for each token."""
        if not self._token_bounds:
            self._token_bounds.append(self.layout.token_bounds)
        return self._token_bounds[0]

    def _picked(self, name: str, pieces: Array) -> Figures:
        figures = self.scores[name]
        if not figures.per_token:
            return Figures(figures.values[pieces], per_token=False)
        bounds = self.token_bounds
        found = [figures.values[bounds[piece] : bounds[piece + 1]] for piece in pieces.tolist()]
        return Figures(np.concatenate(found or [np.zeros(0, "<f4")]), per_token=True)


class _Texts(Sequence[Tensor]):
    def __init__(self, table: RowTable) -> None:
        self._table = table

    @override
    def __len__(self) -> int:
        return self._table.num_examples

    @overload
    def __getitem__(self, index: int) -> Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> list[Tensor]: ...
    @override
    def __getitem__(self, index: int | slice) -> Tensor | list[Tensor]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        return self._table.tokens(range(len(self))[index])
