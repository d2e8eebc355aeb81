"""One row of tokens as a model decodes it: read on, drafted from, taken back."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from wmtp.generation.choosing import Draft
from wmtp.generation.feeding import Feed
from wmtp.models.caches import Memory, StepCache
from wmtp.models.foreign import ForeignModel
from wmtp.models.mtp import MTPForCausalLM

Choose = Callable[[Tensor], Draft]


class DecodingState(Protocol):
    """What a model knows of the tokens so far. A round is: `draft`, `read` the drafts, `keep` the right ones."""

    def read(self, tokens: Sequence[int], num_wanted: int) -> Float[Tensor, "wanted vocab"]:
        """Read tokens that follow those so far.

        Returns:
            Logits of the next-token head at the last `num_wanted` of them.
        """
        ...

    def keep(self, num_right: int) -> None:
        """Forget those of the tokens just read that were wrong: all but the first `num_right`."""
        ...

    def draft(self, token: int, num_drafts: int, choose: Choose) -> list[Draft]:
        """Return what the other heads propose.

        Args:
            token: The next token, which was chosen and is not yet read.
            num_drafts: How many tokens after it are wanted at most, 0 or more.
            choose: Takes one of a head's logits `[vocab]`.
        """
        ...


class PlainState:
    """A causal LM without heads.

    Args:
        model: Of transformers.
        memory: Its cache; None: every pass reads the whole row.
    """

    def __init__(self, model: PreTrainedModel, memory: StepCache | None) -> None:
        self._model, self._memory = model, memory
        self._feed = Feed(model.device, [] if memory is None else [memory])
        self._can_spare = "logits_to_keep" in inspect.signature(model.forward).parameters

    def read(self, tokens: Sequence[int], num_wanted: int) -> Float[Tensor, "wanted vocab"]:
        """Read tokens; see `DecodingState`."""
        given = {"use_cache": False} if self._memory is None else self._memory.arguments(self._model)
        # Of a long prompt, logits are most of the memory.
        spared = {"logits_to_keep": num_wanted} if self._can_spare else {}
        answered: Any = self._model(input_ids=self._feed.take(tokens), **given, **spared)
        logits: Tensor = answered.logits
        return logits[0, -num_wanted:]

    def keep(self, num_right: int) -> None:
        """Forget the rest; see `DecodingState`."""
        self._feed.keep(num_right)

    def draft(self, token: int, num_drafts: int, choose: Choose) -> list[Draft]:  # noqa: ARG002  as all states have it
        """Propose nothing."""
        return []


class ParallelState:
    """A model with parallel heads, each of which drafts from the state at the last token that was read.

    Args:
        model: With heads of any type.
        memory: Its caches; None: every pass reads the whole row.
        num_drafts: Drafted at most.
    """

    def __init__(self, model: MTPForCausalLM, memory: Memory | None, num_drafts: int) -> None:
        self._model, self._memory, self._num_heads = model, memory, num_drafts + 1
        caches = [] if memory is None else [memory.trunk, *memory.heads.values()]
        self._feed = Feed(next(model.parameters()).device, caches)
        self._num_new = 0
        self._rows: list[Tensor] = []

    def read(self, tokens: Sequence[int], num_wanted: int) -> Float[Tensor, "wanted vocab"]:
        """Read tokens; see `DecodingState`."""
        self._num_new = len(tokens)
        self._rows = self._model.read_on(self._feed.take(tokens), self._memory, self._num_heads)
        return self._model.logits(1, self._rows[0][0, -num_wanted:])

    def keep(self, num_right: int) -> None:
        """Forget the rest; see `DecodingState`."""
        last = num_right - self._num_new - 1
        self._rows = [each[:, last] for each in self._rows]
        self._feed.keep(num_right)

    def draft(self, token: int, num_drafts: int, choose: Choose) -> list[Draft]:  # noqa: ARG002  heads do not see it
        """Let heads 2 and on propose a token each."""
        heads = range(2, 2 if self._feed.is_behind else 2 + num_drafts)
        return [choose(self._model.logits(k, self._rows[k - 1][0])) for k in heads]


class ForeignState:
    """A class of its own, which has no cache that is known here: every pass reads the whole row.

    Args:
        model: As `models.adapter.trainable` wraps it.
        device: Where it is.
    """

    def __init__(self, model: ForeignModel, device: torch.device) -> None:
        self._model, self._feed = model, Feed(device, [])
        self._num_new = 0
        self._logits = torch.empty(0)

    def read(self, tokens: Sequence[int], num_wanted: int) -> Float[Tensor, "wanted vocab"]:
        """Read tokens; see `DecodingState`."""
        self._num_new = len(tokens)
        logits: Tensor = self._model(self._feed.take(tokens)).logits
        self._logits = logits[0, -len(tokens) :]  # new future vocab
        return self._logits[-num_wanted:, 0]

    def keep(self, num_right: int) -> None:
        """Forget the rest; see `DecodingState`."""
        self._logits = self._logits[num_right - self._num_new - 1]  # future vocab
        self._feed.keep(num_right)

    def draft(self, token: int, num_drafts: int, choose: Choose) -> list[Draft]:  # noqa: ARG002  heads do not see it
        """Let heads 2 and on propose a token each."""
        return [choose(logits) for logits in self._logits[1 : 1 + num_drafts]]
