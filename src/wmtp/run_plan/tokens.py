"""How many tokens a text has: a sample is cut by the base model's own tokenizer, the rest follows from its length."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wmtp.checkpoint.contents import Checkpoint
from wmtp.checkpoint.tokenizer import TOKENIZER_FILE, checked_tokenizer
from wmtp.data.document import Document
from wmtp.trust.guards import construction_errors

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Of English and of code with vocabularies of 32,000 to 150,000 tokens; where no tokenizer can be asked.
BYTES_OF_A_TOKEN = 4
_SAMPLED_FILES = 256
_SAMPLED_CHARACTERS = 1 << 18
_LEAST_CHARACTERS = 1 << 10  # of a file


@dataclass(frozen=True)
class TokenRate:
    """How many tokens texts have.

    Attributes:
        bytes_of_a_token: Bytes of text for each.
        of_a_document: Tokens of every document beside its text: its end, and where the tokenizer sets one its begin.
        sampled_bytes: On how much text this was measured; 0: it is assumed.
    """

    bytes_of_a_token: float = BYTES_OF_A_TOKEN
    of_a_document: int = 1
    sampled_bytes: int = 0

    def tokens(self, documents: float, text_bytes: float) -> int:
        """Return about how many tokens so many documents with so much text have."""
        return math.ceil(documents * self.of_a_document + text_bytes / self.bytes_of_a_token)


class TokenCounter:
    """The tokenizer of a checkpoint, as its tokenizer.json has it.

    Args:
        tokenizer: Of the `tokenizers` library; None: there is none that can be asked without transformers.
    """

    def __init__(self, tokenizer: Tokenizer | None) -> None:
        self._tokenizer = tokenizer

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> TokenCounter:
        """Return the counter of a checkpoint; raises CheckpointError or TrustError where its tokenizer is refused."""
        files = checked_tokenizer(checkpoint.store, checkpoint.config)
        if TOKENIZER_FILE not in files:
            return cls(None)
        from tokenizers import Tokenizer

        with construction_errors(checkpoint.store.where(TOKENIZER_FILE), "the tokenizer"):
            tokenizer = Tokenizer.from_str(files[TOKENIZER_FILE].decode())
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return cls(tokenizer)

    def rate(self, texts: Sequence[str]) -> TokenRate:
        """Return how many tokens texts like these have."""
        num_bytes = sum(len(text.encode()) for text in texts)
        if self._tokenizer is None or not num_bytes:
            return TokenRate()
        begin = 1 if self._tokenizer.encode("").ids else 0
        encoded = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        tokens = sum(len(each.ids) for each in encoded)
        return TokenRate(num_bytes / max(1, tokens), 1 + begin, num_bytes)


def sampled_characters(num_files: int, number: int) -> int:
    """Return how many characters of file `number`, counted from 0, belong to the sample of so many files."""
    step = math.ceil(num_files / _SAMPLED_FILES)
    if number % step:
        return 0
    return max(_LEAST_CHARACTERS, _SAMPLED_CHARACTERS // math.ceil(num_files / step))


def beginning(texts: Sequence[str], characters: int) -> list[str]:
    """Return the first texts, so many characters of them in all; the last one may be cut."""
    found = []
    for text in texts:
        if characters <= 0:
            break
        found.append(text[:characters])
        characters -= len(text)
    return found


def said(document: Document) -> str:
    """Return the text that a document puts before the model; of a chat without the marks of a template."""
    if document.messages is None:
        return document.whole_text
    turns = ((message.get("role"), message.get("content")) for message in document.messages)
    return "".join(f"{role}\n{content}\n" for role, content in turns if isinstance(content, str))
