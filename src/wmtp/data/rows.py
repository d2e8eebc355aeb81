"""From documents to tokens, from tokens to rows, from rows to the tensors of a batch."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from wmtp.data.collation import packed_row, padded_row, stacked
from wmtp.data.documents import Document
from wmtp.data.example import Batch, Example, Row, document_digest
from wmtp.errors import DataError

if TYPE_CHECKING:
    from wmtp.settings.data import DataSource

# More open rows pack a little tighter and take longer to search; beyond some dozens nothing is gained.
_MAX_OPEN_ROWS = 32

logger = logging.getLogger("wmtp")


@dataclass(frozen=True)
class RowDataset:
    """A data set of rows, in the order of its documents; shuffling is the sampler's work.

    Attributes:
        rows: Each row's documents.
        packed_length: Tokens of every row where documents are packed; None where a row is one document and a batch
            is as long as its longest.
    """

    rows: Sequence[Row]
    packed_length: int | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Row:
        return self.rows[index]

    @property
    def num_tokens(self) -> int:
        """Tokens in all rows, without padding."""
        return sum(len(example) for row in self.rows for example in row)

    @property
    def num_targets(self) -> int:
        """Tokens that the next-token head learns in one pass over the rows."""
        return sum(example.num_targets for row in self.rows for example in row)

    def largest_token(self) -> int:
        """Return the highest token id, which the model's vocabulary must reach."""
        return max(int(example.input_ids.max()) for row in self.rows for example in row)

    @property
    def examples(self) -> Iterator[Example]:
        """Every document, row by row."""
        return (example for row in self.rows for example in row)

    def longest_example(self) -> int:
        """Return the tokens of the longest document, which a model's positions must reach."""
        return max(len(example) for example in self.examples)

    def with_scores(self, name: str, values: Sequence[Float[Tensor, "..."]]) -> RowDataset:
        """Return the same rows with one more score.

        Args:
            name: What batches call it.
            values: For each of `examples`, in that order, a figure for each token, or one for all of them (0-dim).

        Raises:
            ValueError: If they do not fit the examples.
        """
        scored = []
        for example, value in zip(self.examples, values, strict=True):
            if value.shape not in ((), (len(example),)):
                raise ValueError(f"{name}: figures of shape {tuple(value.shape)} for {len(example)} tokens")
            scored.append(replace(example, scores={**example.scores, name: value}))
        rest = iter(scored)
        return replace(self, rows=[tuple(next(rest) for _ in row) for row in self.rows])

    def document_scores(self) -> dict[str, Float[Tensor, "documents"]]:
        """Return the scores that are one figure a document, by name, in the order of `examples`."""
        names = next(self.examples).scores
        columns = {name: [example.scores[name] for example in self.examples] for name in names}
        return {name: torch.stack(column) for name, column in columns.items() if column[0].dim() == 0}

    def fingerprint(self) -> str:
        """Return `sha256:<hex>` over what is learned: tokens, prompts, document and row boundaries; no scores."""
        digest = hashlib.sha256()
        for row in self.rows:
            digest.update(b"row")
            for example in row:
                digest.update(f"{len(example)},{example.num_prompt_tokens};".encode())
                digest.update(example.input_ids.numpy().tobytes())
        return f"sha256:{digest.hexdigest()}"

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
    """Tokenize documents and arrange them in rows of `source.max_length` tokens.

    A longer text is split into pieces that each stand by themselves; a longer completion is cut, and loses its
    end-of-sequence token with its end.

    Args:
        documents: What to learn.
        tokenizer: The model's tokenizer (a `PreTrainedTokenizerBase`).
        source: How long rows are, and whether documents share them.
        name: What the data is called in messages: `data.train`.

    Raises:
        DataError: If the tokenizer has no end-of-sequence token, or no document has anything to learn.
    """
    max_length = source.max_length
    tokenized = _tokenize(documents, tokenizer)
    pieces = [piece for example in tokenized for piece in _fit(example, max_length)]
    examples = [piece for piece in pieces if piece.num_targets]
    if not examples:
        raise DataError(
            f"{name}: none of {len(documents)} documents leaves a token to learn within max_length {max_length}",
            hint=f"raise {name}.max_length, or shorten the prompts",
        )
    packed = _pack(examples, max_length) if source.packing else [(example,) for example in examples]
    rows = RowDataset(packed, max_length if source.packing else None)
    logger.info(
        "%s: %d documents, %d tokens (%d to learn) in %d rows; %d longer than %d tokens, %d pieces left out",
        name, len(documents), rows.num_tokens, rows.num_targets, len(rows),
        sum(len(example) > max_length for example in tokenized), max_length, len(pieces) - len(examples),
    )  # fmt: skip
    return rows


def _tokenize(documents: Sequence[Document], tokenizer: Any) -> list[Example]:
    eos = tokenizer.eos_token_id
    if eos is None:
        raise DataError(
            "the model's tokenizer has no end-of-sequence token, and every document ends with one",
            hint="set eos_token in the checkpoint's tokenizer_config.json",
        )
    begin = _begin_tokens(tokenizer)
    wholes = _encode([document.whole_text for document in documents], tokenizer)
    prompts = _encode([document.prompt for document in documents], tokenizer)
    examples = []
    for document, whole, prompt in zip(documents, wholes, prompts, strict=True):
        # A tokenizer may merge the end of a prompt with what follows: such a token belongs to the completion.
        num_prompt_tokens = _shared_length(prompt, whole)
        end = [] if whole[-1:] == [eos] else [eos]
        input_ids = torch.tensor([*begin, *whole, *end], dtype=torch.int32)
        scores = {name: torch.tensor(score, dtype=torch.float32) for name, score in document.scores.items()}
        prompt_end = len(begin) + num_prompt_tokens if prompt else 0
        examples.append(Example(input_ids, prompt_end, scores, where=document.where))
    return examples


def _shared_length(one: list[int], other: list[int]) -> int:
    pairs = enumerate(zip(one, other, strict=False))  # as far as the shorter one goes
    return next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))


def _begin_tokens(tokenizer: Any) -> list[int]:
    # A tokenizer that begins texts with a token (llama's do) gets it here, once, and before the prompt.
    alone = tokenizer("")["input_ids"]
    return (
        [tokenizer.bos_token_id] if tokenizer.bos_token_id is not None and tokenizer.bos_token_id in alone[:1] else []
    )


def _encode(texts: list[str], tokenizer: Any) -> list[list[int]]:
    # verbose=False: texts longer than the model's context are split below, so a warning would mislead.
    return tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]


def _fit(example: Example, max_length: int) -> Iterable[Example]:
    # What the data says of a document it says of each of its pieces.
    if len(example) <= max_length:
        return [example]
    document = document_digest(example.input_ids)
    if example.num_prompt_tokens:
        cut = example.input_ids[:max_length]
        num_prompt_tokens = min(example.num_prompt_tokens, max_length)
        return [replace(example, input_ids=cut, num_prompt_tokens=num_prompt_tokens, document=document)]
    return [replace(example, input_ids=piece, document=document) for piece in example.input_ids.split(max_length)]


def _pack(examples: Sequence[Example], length: int) -> list[Row]:
    """Put each document into the first open row that has room; the fullest row is closed when too many are open."""
    rows: list[list[Example]] = []
    room: dict[int, int] = {}  # of the open rows
    for example in examples:
        place = next((row for row, free in room.items() if free >= len(example)), None)
        if place is None:
            place = len(rows)
            rows.append([])
            room[place] = length
        rows[place].append(example)
        room[place] -= len(example)
        if room[place] == 0 or len(room) > _MAX_OPEN_ROWS:
            del room[min(room, key=lambda row: room[row])]
    return [tuple(row) for row in rows]
