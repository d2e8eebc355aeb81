"""Where a text ends: tokens that end one, and how many a model has positions for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from wmtp.checkpoint.contents import Checkpoint
from wmtp.data.corpus import position_limit
from wmtp.errors import CheckpointError, GenerationError
from wmtp.generation.prompts import EncodedPrompt
from wmtp.untrusted import MAX_JSON_BYTES, parse_json_object

_SETTINGS_FILE = "generation_config.json"


@dataclass(frozen=True)
class Bounds:
    """What ends the texts of a model.

    Attributes:
        end_tokens: After any of these nothing follows.
        num_positions: Of prompt and new tokens together; None where nothing says how many there are.
    """

    end_tokens: frozenset[int]
    num_positions: int | None

    @classmethod
    def of(cls, model: nn.Module, tokenizer: Any | None, checkpoint: Checkpoint | None) -> Bounds:
        """Return the bounds of a model.

        Args:
            model: The model; its configuration counts, or where it has none of transformers' that of the checkpoint.
            tokenizer: Its tokenizer, whose end-of-text token counts too.
            checkpoint: Where it was loaded from; what it says in generation_config.json counts too.
        """
        own: Any = getattr(getattr(model, "trunk", model), "config", None)
        text: Any = own.get_text_config(decoder=True) if hasattr(own, "get_text_config") else None
        stored = {} if checkpoint is None else checkpoint.config
        places = [own, text, tokenizer, stored, {} if checkpoint is None else _settings(checkpoint)]
        ends = frozenset(token for place in places for token in _ends(place))
        return cls(ends, position_limit(stored if text is None else text.to_dict()))

    def check(self, prompts: Sequence[EncodedPrompt]) -> None:
        """Raise GenerationError if a prompt leaves no position for a token after it."""
        for number, prompt in enumerate(prompts, 1):
            if self.num_positions is not None and len(prompt.tokens) >= self.num_positions:
                problem = (
                    f"prompt {number} has {len(prompt.tokens):,} tokens, and the model {self.num_positions:,} positions"
                )
                raise GenerationError(
                    problem, hint=f"give at most {self.num_positions - 1:,} tokens, so that one can follow"
                )

    def room(self, prompt: EncodedPrompt, max_new_tokens: int) -> int:
        """Return how many tokens can follow a prompt."""
        return (
            max_new_tokens
            if self.num_positions is None
            else min(max_new_tokens, self.num_positions - len(prompt.tokens))
        )


def _settings(checkpoint: Checkpoint) -> dict[str, Any]:
    if not checkpoint.store.has(_SETTINGS_FILE):
        return {}
    data = checkpoint.store.read_bytes(_SETTINGS_FILE, max_bytes=MAX_JSON_BYTES)
    return parse_json_object(data, where=checkpoint.store.where(_SETTINGS_FILE), error=CheckpointError)


def _ends(place: Any) -> Iterator[int]:
    found = place.get("eos_token_id") if isinstance(place, dict) else getattr(place, "eos_token_id", None)
    for token in found if isinstance(found, list) else [found]:
        if isinstance(token, int) and not isinstance(token, bool):
            yield token
