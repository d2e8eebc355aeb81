"""One document of training data, as it was read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as attribute
from typing import Any


@dataclass(frozen=True)
class Document:
    """One piece of text that stands by itself: attention and prediction never cross its ends.

    Attributes:
        text: What is learned.
        prompt: What comes before it and is only read; empty for plain text.
        where: File, and line or row, for messages.
        scores: Numbers that the data has of it, by the name of the score.
        messages: Of a chat, in the place of a text: what is said, turn by turn; None where this is no chat.
    """

    text: str
    prompt: str = ""
    where: str = ""
    scores: Mapping[str, float] = attribute(default_factory=dict, hash=False)
    messages: Sequence[Mapping[str, Any]] | None = attribute(default=None, hash=False)

    @property
    def whole_text(self) -> str:
        """The document as the model sees it, without its end-of-sequence token; of a chat its messages as JSON."""
        if self.messages is not None:
            return json.dumps(self.messages, sort_keys=True)
        return self.prompt + self.text
