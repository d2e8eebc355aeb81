"""The tokens of one document, and what rows and batches are made of."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from wmtp.models.targets import IGNORE


@dataclass(frozen=True, eq=False)
class Example:
    """The tokens of one document, or of one piece of a long one.

    Attributes:
        input_ids: Its tokens, as int32 to halve what they take in memory.
        num_prompt_tokens: How many of them, from the start, are read but not learned.
        scores: Figures by name, fp32: one for each token, or 0-dim where it is one for all of them.
        document: Of a piece of a long document what tells that document from others; empty where this is the whole.
        learned: Of a chat, which of its tokens are learned; None where all behind the prompt are.
        where: File, and line or row, of its document, for messages; empty where that is not known.
    """

    input_ids: Int[Tensor, "tokens"]
    num_prompt_tokens: int = 0
    scores: Mapping[str, Float[Tensor, "..."]] = field(default_factory=dict)
    document: str = ""
    learned: Bool[Tensor, "tokens"] | None = None
    where: str = ""

    def __len__(self) -> int:
        return self.input_ids.numel()

    @property
    def labels(self) -> Int[Tensor, "tokens"]:
        """What is learned, unshifted: the tokens, with -100 over all that is only read."""
        labels = self.input_ids.to(torch.long, copy=True)
        labels[: self.num_prompt_tokens] = IGNORE
        return labels if self.learned is None else labels.masked_fill(~self.learned, IGNORE)

    @property
    def num_targets(self) -> int:
        """Tokens that the next-token head can learn; the first of a document has nothing before it."""
        if self.learned is not None:
            return int(self.learned[1:].sum())
        return max(0, len(self) - max(1, self.num_prompt_tokens))


Row = tuple[Example, ...]
Batch = dict[str, Tensor]


def document_digest(input_ids: Int[Tensor, "tokens"]) -> str:
    """Return what tells a document's tokens from others, as 16 hex digits."""
    return hashlib.sha256(input_ids.int().numpy().tobytes()).hexdigest()[:16]
