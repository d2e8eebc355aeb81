"""From tokens to text as they come: whole characters only, and nothing that may be the beginning of a stop string."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_NO_CHARACTER = "\N{REPLACEMENT CHARACTER}"
_PROMPT_TOKENS = 6


class TextStream:
    """Text of new tokens.

    Some tokenizers write a token otherwise at the begin of a text (without its space), and a character may be spread
    over tokens. So text is the difference of two decodings that begin a little before, and waits for whole characters.

    Args:
        tokenizer: The model's (a `PreTrainedTokenizerBase`).
        prompt: The tokens before.
        stop: Strings at which the text ends, without them. They are found across the borders of tokens.

    Attributes:
        text: What is certain to belong to the text.
        is_stopped: Whether a stop string was found. `text` ends before the first.
    """

    def __init__(self, tokenizer: Any, prompt: Sequence[int], stop: Sequence[str]) -> None:
        self._tokenizer, self._stop = tokenizer, [each for each in stop if each]
        self._tokens = list(prompt[-_PROMPT_TOKENS:])
        self._before, self._done = 0, len(self._tokens)  # decoding begins, and what is text already ends, at these
        self.text, self._held = "", ""
        self.is_stopped = False

    def add(self, token: int) -> str:
        """Take a token; returns what is added to `text`."""
        self._tokens.append(token)
        return self._release(self._held + self._decoded(), is_end=False)

    def end(self) -> str:
        """Take that no token follows; returns what is added to `text`."""
        rest = self._difference() if self._done < len(self._tokens) else ""
        return self._release(self._held + rest, is_end=True)

    def _decoded(self) -> str:
        new = self._difference()
        if new.endswith(_NO_CHARACTER):
            return ""
        self._before, self._done = self._done, len(self._tokens)
        return new

    def _difference(self) -> str:
        old, whole = (self._text_of(self._tokens[self._before : end]) for end in (self._done, len(self._tokens)))
        return whole[len(old) :]

    def _text_of(self, tokens: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def _release(self, waiting: str, *, is_end: bool) -> str:
        if self.is_stopped:
            return ""
        found = [place for place in map(waiting.find, self._stop) if place >= 0]
        self.is_stopped = bool(found)
        certain = min(found) if found else len(waiting) - (0 if is_end else self._possible_begin(waiting))
        self._held = waiting[certain:]
        self.text += waiting[:certain]
        return waiting[:certain]

    def _possible_begin(self, waiting: str) -> int:
        """Return how many of the last characters may be the beginning of a stop string."""
        longest = max((len(stop) for stop in self._stop), default=1) - 1
        lengths = range(min(longest, len(waiting)), 0, -1)
        return next((n for n in lengths if any(stop.startswith(waiting[-n:]) for stop in self._stop)), 0)
