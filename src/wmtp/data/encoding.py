"""From texts to tokens, some documents at a time; it travels to other processes, and imports no torch there."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from wmtp.data.chat import ChatFault, encode_chat
from wmtp.data.document import Document
from wmtp.data.token_store import Array, record_type, token_digest
from wmtp.errors import DataError


@dataclass(frozen=True, eq=False)
class Encoded:
    """Tokens of some documents.

    Attributes:
        tokens: One document after another, int32.
        records: What is known of each; sources, files and lines are still to be filled in.
        learned: For each token whether it is learned; None where that follows from the length of prompts.
        kept: Places of the documents among those that were given: one that is at fault has no tokens.
        faults: What is wrong with others.
    """

    tokens: Array
    records: Array
    learned: Array | None
    kept: list[int]
    faults: list[DataError] = field(default_factory=list)


@dataclass(frozen=True)
class Encoder:
    """Makes tokens of documents.

    Attributes:
        tokenizer: The model's tokenizer (a `PreTrainedTokenizerBase`).
        scores: Names of the numbers that documents have.
        masks: Whether to say of each token if it is learned, as chats need it.
    """

    tokenizer: Any
    scores: tuple[str, ...] = ()
    masks: bool = False

    def begin_tokens(self) -> list[int]:
        """Return what a text begins with."""
        # A tokenizer that begins texts with a token (llama's do) gets it here, once, and before the prompt.
        alone, begin = self.tokenizer("")["input_ids"], self.tokenizer.bos_token_id
        return [begin] if begin is not None and begin in alone[:1] else []

    def require_end(self) -> int:
        """Return the token that ends a text.

        Raises:
            DataError: If there is none.
        """
        end: int | None = self.tokenizer.eos_token_id
        if end is None:
            raise DataError(
                "the model's tokenizer has no end-of-sequence token, and every document ends with one",
                hint="set eos_token in the checkpoint's tokenizer_config.json",
            )
        return end

    def texts(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the tokens of texts, with nothing before or behind them."""
        if not texts:
            return []
        # verbose=False: texts longer than the model's context are split later, so a warning would mislead.
        found: list[list[int]] = self.tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
        return found

    def pieces(self, pieces: Sequence[str]) -> list[Array]:
        """Return the tokens of pieces of one text, which was cut where no token spans the cut."""
        return [np.array(ids, "<i4") for ids in self.texts(pieces)]

    def documents(self, documents: Sequence[Document]) -> Encoded:
        """Return the tokens of documents."""
        chats = [document for document in documents if document.messages is not None]
        return self._chats(documents) if chats else self._texts(documents)

    def _texts(self, documents: Sequence[Document]) -> Encoded:
        end, begin = self.require_end(), self.begin_tokens()
        wholes = self.texts([document.whole_text for document in documents])
        prompts = iter(self.texts([document.prompt for document in documents if document.prompt]))
        tokens, records = list[Array](), self.new_records(len(documents))
        for place, (document, whole) in enumerate(zip(documents, wholes, strict=True)):
            # A tokenizer may merge the end of a prompt with what follows: such a token belongs to the completion.
            prompt = len(begin) + shared_length(next(prompts), whole) if document.prompt else 0
            ids = np.array([*begin, *whole, *([] if whole[-1:] == [end] else [end])], "<i4")
            tokens.append(ids)
            self.note(records, place, document, ids, (prompt, max(0, len(ids) - max(1, prompt))))
        joined = np.concatenate(tokens) if tokens else np.zeros(0, "<i4")
        learned = np.ones(len(joined), "u1") if self.masks else None
        return Encoded(joined, records, learned, list(range(len(documents))))

    def _chats(self, documents: Sequence[Document]) -> Encoded:
        tokens, masks, kept, faults = list[Array](), list[Array](), list[int](), list[DataError]()
        records = self.new_records(len(documents))
        for place, document in enumerate(documents):
            try:
                ids, learned = encode_chat(self.tokenizer, document.messages or [])
            except ChatFault as fault:
                faults.append(DataError(f"{document.where}: {fault.problem}", hint=fault.hint))
                continue
            self.note(records, len(kept), document, ids, (0, int(learned[1:].sum())))
            tokens.append(ids)
            masks.append(learned)
            kept.append(place)
        empty = [np.zeros(0, "<i4")]
        records["chat"] = 1
        return Encoded(
            np.concatenate(tokens or empty), records[: len(kept)],
            np.concatenate(masks or empty).astype("u1"), kept, faults,
        )  # fmt: skip

    def new_records(self, count: int) -> Array:
        """Return records of documents, with nothing in them."""
        return np.zeros(count, record_type(self.scores))

    def note(self, records: Array, place: int, document: Document, ids: Array, counts: tuple[int, int]) -> None:
        """Write down what is known of a document; `counts` are the tokens of its prompt, and those learned."""
        record = records[place : place + 1]
        record["length"], (record["prompt"], record["targets"]) = len(ids), counts
        record["digest"] = token_digest(ids)
        record["text"] = hashlib.sha256(document.whole_text.encode()).digest()
        for name in self.scores:
            record[f"score:{name}"] = document.scores[name]


def shared_length(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how many tokens two texts have in common from their start."""
    pairs = enumerate(zip(one, other, strict=False))  # as far as the shorter one goes
    return next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))
