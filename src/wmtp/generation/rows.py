"""One prompt's new tokens and text, until something ends them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from wmtp.errors import GenerationError
from wmtp.generation.bounds import Bounds
from wmtp.generation.choosing import Greedy, Rule, Sampling
from wmtp.generation.decoder import Decoder
from wmtp.generation.decoding import decode
from wmtp.generation.options import GenerationOptions
from wmtp.generation.prompts import EncodedPrompt
from wmtp.generation.result import Counts, Finish, GeneratedRow
from wmtp.generation.text import TextStream


@dataclass(frozen=True)
class RowMaker:
    """What rows have in common.

    Attributes:
        tokenizer: The model's; None: rows have no text.
        options: How text is to be generated.
        bounds: What ends the model's texts.
        seed: What random numbers begin with.
        device: Where they are drawn.
    """

    tokenizer: Any | None
    options: GenerationOptions
    bounds: Bounds
    seed: int
    device: torch.device

    def __post_init__(self) -> None:
        if self.options.stops and self.tokenizer is None:
            problem = "stop is given, and the model has no tokenizer"
            raise GenerationError(problem, hint="leave stop out, or give the model's tokenizer")

    def row(
        self, number: int, prompt: EncodedPrompt, decoder: Decoder, counts: Counts, *, is_shown: bool = True
    ) -> GeneratedRow:
        """Decode one prompt.

        Args:
            number: Its place among the prompts, from 0.
            prompt: The prompt.
            decoder: How it is decoded.
            counts: What is done is added to it.
            is_shown: Whether to call `on_text`.
        """
        started = time.perf_counter()
        room = self.bounds.room(prompt, self.options.max_new_tokens)
        state = decoder.new_state(decoder.num_drafts)
        decoding = decode(state, prompt.tokens, self._rule(number), decoder.num_drafts, room, counts)
        stream = None if self.tokenizer is None else TextStream(self.tokenizer, prompt.tokens, self.options.stops)
        tokens: list[int] = []
        finish: Finish = "length" if room == self.options.max_new_tokens else "context"
        for token, ended in self._taken(decoding, stream, number if is_shown else None):
            tokens.append(token)
            finish = ended or finish
        text = None if stream is None else stream.text
        return GeneratedRow(
            prompt.text, prompt.tokens, tuple(tokens), text, finish, seconds=time.perf_counter() - started
        )

    def _taken(
        self, decoding: Iterator[int], stream: TextStream | None, shown_as: int | None
    ) -> Iterator[tuple[int, Finish | None]]:
        """Yield tokens up to the one that ends the row, each with why it does."""
        ends = frozenset() if self.options.ignore_eos else self.bounds.end_tokens
        for token in decoding:
            self._show(shown_as, "" if stream is None else stream.add(token))
            is_stopped = stream is not None and stream.is_stopped
            ended: Finish | None = "eos" if token in ends else "stop" if is_stopped else None
            yield token, ended
            if ended:
                break
        self._show(shown_as, "" if stream is None else stream.end())

    def _show(self, number: int | None, text: str) -> None:
        if number is not None and text and self.options.on_text is not None:
            self.options.on_text(number, text)

    def _rule(self, number: int) -> Rule:
        if self.options.is_greedy:
            return Greedy()
        generator = torch.Generator(device=self.device)
        # By row: a row's tokens do not depend on how many those before it took.
        generator.manual_seed((self.seed + number) % 2**63)
        return Sampling(self.options.temperature, self.options.top_p, generator)
