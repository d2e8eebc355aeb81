"""How text is to be generated."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from wmtp.errors import GenerationError
from wmtp.untrusted import show


class GenerationKeywords(TypedDict, total=False):
    """The keyword arguments of `wmtp.generate`; `GenerationOptions` says what they mean."""

    max_new_tokens: int
    temperature: float
    top_p: float
    seed: int | None
    stop: str | Sequence[str]
    drafts: int | None
    chat: bool
    compare: bool
    kv_cache: bool
    ignore_eos: bool
    on_text: Callable[[int, str], None] | None


@dataclass(frozen=True, kw_only=True)
class GenerationOptions:
    """How text is to be generated.

    Attributes:
        max_new_tokens: For each prompt at most.
        temperature: Logits are divided by it, and tokens drawn; 0: the most probable token.
        top_p: With a temperature: only the most probable tokens are drawn, as few as have this probability together.
        seed: With a temperature: what random numbers begin with, for each prompt anew. None: one that is drawn.
        stop: The text ends before any of these.
        drafts: Tokens drafted a round at most. None: as many as there are heads for. 0: plain decoding.
        chat: A prompt that is text is what a user says, and rendered by the chat template.
        compare: Decode every prompt plainly too, in turn, and say how long either took.
        kv_cache: False: every pass reads the whole row again.
        ignore_eos: Go on after a token that ends a text.
        on_text: Called with the number of the prompt, from 0, and further text of it as soon as that is certain.
    """

    max_new_tokens: int = 128
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: str | Sequence[str] = ()
    drafts: int | None = None
    chat: bool = False
    compare: bool = False
    kv_cache: bool = True
    ignore_eos: bool = False
    on_text: Callable[[int, str], None] | None = None

    def __post_init__(self) -> None:
        self._require_int("max_new_tokens", self.max_new_tokens, least=1)
        if self.drafts is not None:
            self._require_int("drafts", self.drafts, least=0)
        if self.seed is not None:
            self._require_int("seed", self.seed, least=0)
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            _refuse("temperature", self.temperature, "a number of at least 0", "0 takes the most probable token")
        if not 0 < self.top_p <= 1:
            _refuse("top_p", self.top_p, "a number above 0, up to 1", "1 leaves all tokens in")
        if self.top_p < 1 and self.is_greedy:
            problem = f"top_p is {self.top_p}, and without a temperature no token is drawn"
            raise GenerationError(problem, hint="set a temperature as well, or leave top_p out")
        if not all(self.stops):
            raise GenerationError("a stop string is empty", hint="leave it out")

    @property
    def is_greedy(self) -> bool:
        """Whether the most probable token is taken."""
        return self.temperature == 0

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    @staticmethod
    def _require_int(name: str, value: Any, *, least: int) -> None:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value < 2**63:
            _refuse(name, value, f"a whole number of at least {least}", "give one")


def _refuse(name: str, value: Any, expected: str, hint: str) -> None:
    raise GenerationError(f"{name} is {show(value)}, expected {expected}", hint=hint)
