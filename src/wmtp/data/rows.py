"""From documents to tokens, from tokens to rows, from rows to the tensors of a batch."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from wmtp.data.collation import packed_row, padded_row, stacked
from wmtp.data.document import Document
from wmtp.data.encoding import Encoder
from wmtp.data.example import Batch, Example, Row
from wmtp.data.example_table import figures_of, table_of
from wmtp.data.fault_list import FaultList
from wmtp.data.layout import fit, joined, pack
from wmtp.data.row_table import Figures, RowTable
from wmtp.data.store_writer import StoreWriter
from wmtp.data.token_store import Array, TokenStore
from wmtp.data.tokenizing import tokenize
from wmtp.errors import DataError

if TYPE_CHECKING:
    from wmtp.settings.data import DataSource
from wmtp.wording import counted

logger = logging.getLogger("wmtp")


@dataclass(frozen=True)
class RowDataset:
    """A data set of rows, in the order of its documents; shuffling is the sampler's work.

    Attributes:
        rows: Each row's documents. Rows that are given as tuples of examples are kept as a table of their tokens.
        packed_length: Tokens of every row where documents are packed; None where a row is one document and a batch
            is as long as its longest.
    """

    rows: Sequence[Row]
    packed_length: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.rows, RowTable):
            object.__setattr__(self, "rows", table_of(self.rows))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Row:
        return self.rows[index]

    @property
    def table(self) -> RowTable:
        """The rows, as they are kept."""
        assert isinstance(self.rows, RowTable)
        return self.rows

    @property
    def num_tokens(self) -> int:
        """Tokens in all rows, without padding."""
        return int(self.table.layout.lengths.sum())

    @property
    def num_targets(self) -> int:
        """Tokens that the next-token head learns in one pass over the rows."""
        return int(self.table.layout.targets.sum())

    def largest_token(self) -> int:
        """Return the highest token id, which the model's vocabulary must reach."""
        return self.table.largest_token()

    @property
    def examples(self) -> Iterator[Example]:
        """Every document, row by row."""
        return self.table.examples

    @property
    def lengths(self) -> Array:
        """The tokens of each of `examples`."""
        return self.table.layout.lengths

    def longest_example(self) -> int:
        """Return the tokens of the longest document, which a model's positions must reach."""
        return int(self.lengths.max())

    def with_scores(self, name: str, values: Sequence[Float[Tensor, "..."]]) -> RowDataset:
        """Return the same rows with one more score.

        Args:
            name: What batches call it.
            values: For each of `examples`, in that order, a figure for each token, or one for all of them (0-dim).

        Raises:
            ValueError: If they do not fit the examples.
        """
        return replace(self, rows=self.table.with_score(name, figures_of(name, self.examples, values)))

    def with_figures(self, name: str, values: Float[Tensor, "figures"], *, per_token: bool) -> RowDataset:
        """Return the same rows with one more score, whose figures follow one another.

        Args:
            name: What batches call it.
            values: One for each of `examples`, in that order, or one for each of their tokens.
            per_token: Which of the two.

        Raises:
            ValueError: If there are more or fewer.
        """
        expected = self.num_tokens if per_token else len(self.lengths)
        if values.shape != (expected,):
            raise ValueError(f"{name}: figures of shape {tuple(values.shape)}, expected {expected}")
        return replace(self, rows=self.table.with_score(name, Figures(values.float().numpy(), per_token)))

    def take(self, rows: Sequence[int] | Array) -> RowDataset:
        """Return some of the rows, in the order in which they are named; one may be named more than once."""
        return replace(self, rows=self.table.take(np.asarray(rows, dtype=np.int64)))

    def document_scores(self) -> dict[str, Float[Tensor, "documents"]]:
        """Return the scores that are one figure a document, by name, in the order of `examples`."""
        found = self.table.scores.items()
        return {name: torch.tensor(figures.values) for name, figures in found if not figures.per_token}

    def fingerprint(self) -> str:
        """Return `sha256:<hex>` over what is learned: tokens, prompts, document and row boundaries; no scores."""
        return self.table.fingerprint()

    def collate(self, rows: Sequence[Row]) -> Batch:
        """Return the tensors of a batch, as the model's forward takes them.

        Packed: `input_ids`, `labels`, `position_ids` that restart with each document, and `document_ids` that tell
        documents apart; the rest of a row is one more document, of padding. Otherwise: `input_ids`, `labels` and
        `attention_mask`, padded on the right. Labels are -100 on prompts and padding. Each score stands beside the
        tokens under its name, fp32, 0 on padding.
        """
        if self.packed_length is not None:
            return stacked([packed_row(row, self.packed_length) for row in rows])
        longest = max(len(row[0]) for row in rows)
        return stacked([padded_row(row[0], longest) for row in rows])


def build_rows(documents: Sequence[Document], tokenizer: Any, source: DataSource, *, name: str) -> RowDataset:
    """Tokenize documents and arrange them in rows of `source.max_length` tokens; all of it stays in memory.

    A longer text is split into pieces that each stand by themselves; a longer completion or chat is cut, and loses its
    end-of-sequence token with its end.

    Args:
        documents: What to learn.
        tokenizer: The model's tokenizer (a `PreTrainedTokenizerBase`).
        source: How long rows are, and whether documents share them.
        name: What the data is called in messages: `data.train`.

    Raises:
        DataError: If the tokenizer has no end-of-sequence token, or no document has anything to learn.
    """
    scores, masks = tuple(documents[0].scores) if documents else (), any(d.messages is not None for d in documents)
    writer, faults = StoreWriter(None, [], scores, masks=masks), FaultList(name)
    tokenize(((0, document) for document in documents), Encoder(tokenizer, scores, masks), writer, faults)
    faults.raise_any()
    store = writer.finish()
    return arrange(store, np.arange(len(store)), source, name=name)


def arrange(store: TokenStore, documents: Array, source: DataSource, *, name: str) -> RowDataset:
    """Arrange documents in rows of `source.max_length` tokens; those of one source share no row with others.

    Args:
        store: All documents.
        documents: Places of those that are wanted.
        source: How long rows are, and whether documents share them.
        name: What the data is called in messages: `data.train`.

    Raises:
        DataError: If no document has anything to learn.
    """
    length, records = source.max_length, store.records[documents]
    fitted = [fit(store, documents[records["source"] == number], length) for number in np.unique(records["source"])]
    kept = [layout.rows(np.flatnonzero(layout.targets > 0)) for layout in fitted]
    if not any(layout.num_rows for layout in kept):
        raise DataError(
            f"{name}: none of {len(documents)} documents leaves a token to learn within max_length {length}",
            hint=f"raise {name}.max_length, or shorten the prompts",
        )
    layout = joined([pack(each, length) if source.packing else each for each in kept if each.num_rows])
    scores = {of: Figures(values[layout.documents], per_token=False) for of, values in store.scores.items()}
    rows = RowDataset(RowTable(store, layout, scores), length if source.packing else None)
    logger.info(
        "%s: %s, %s (%s to learn) in %s; %s longer than %d tokens, %s left out",
        name, counted(len(documents), "document"), counted(rows.num_tokens, "token"), f"{rows.num_targets:,}",
        counted(len(rows), "row"), f"{(records['length'] > length).sum():,}", length,
        counted(sum(each.num_rows for each in fitted) - len(rows.lengths), "piece"),
    )  # fmt: skip
    return rows
