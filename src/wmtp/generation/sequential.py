"""A row of tokens as a model with native modules decodes it: module 1 drafts a token, module 2 reads it, and so on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from wmtp.generation.choosing import Draft
from wmtp.generation.feeding import Feed
from wmtp.generation.states import Choose
from wmtp.models.caches import Memory
from wmtp.models.native import NativeMTPForCausalLM


class SequentialState:
    """A model with native modules.

    Row j of module d reads the trunk's state at position j, or what module d - 1 made of it, and token j + d. Rows
    whose tokens were drafts may have to be run again: of each module as many are kept as of the last one, which reads
    furthest ahead.

    Args:
        model: With native modules.
        memory: Caches of the trunk and of each module; None: every pass reads the whole row.
        num_drafts: Drafted at most: as many modules run.

    Source: DeepSeek-V3 (arXiv 2412.19437), section 5.4.3, which drafts with one module; further ones as in its section
        2.2, where each predicts one token more.
    """

    def __init__(self, model: NativeMTPForCausalLM, memory: Memory | None, num_drafts: int) -> None:
        self._model, self._memory, self._num_modules = model, memory, num_drafts
        self._device = next(model.parameters()).device
        self._feed = Feed(self._device, [] if memory is None else [memory.trunk])
        self._tokens: list[int] = []
        self._num_new = 0
        self._num_rows = 0  # in the caches of the modules
        self._num_accepted = 0  # of the drafts that these rows have read
        self._first = 0  # the row that self._passed begins with
        self._passed = torch.empty(0)  # 1 rows dim

    def read(self, tokens: Sequence[int], num_wanted: int) -> Float[Tensor, "wanted vocab"]:
        """Read tokens; see `DecodingState`."""
        self._num_new = len(tokens)
        self._tokens += tokens
        hidden, passed = self._model.read_trunk(self._feed.take(tokens), self._memory)
        new = passed[:, -len(tokens) :]
        self._passed = torch.cat([self._passed, new], dim=1) if self._passed.numel() else new
        return self._model.logits(1, hidden[0, -num_wanted:])

    def keep(self, num_right: int) -> None:
        """Forget the rest; see `DecodingState`."""
        num_wrong = self._num_new - num_right
        self._num_accepted = num_right - 1
        self._passed = self._passed[:, : self._passed.shape[1] - num_wrong]
        del self._tokens[len(self._tokens) - num_wrong :]
        self._feed.keep(num_right)

    def draft(self, token: int, num_drafts: int, choose: Choose) -> list[Draft]:
        """Let the modules propose a token each, one after the other."""
        num_drafts = 0 if self._feed.is_behind else min(num_drafts, self._num_modules)
        if not num_drafts:
            return []
        start = self._take_back()
        passed, known = self._passed[:, start - self._first :], [*self._tokens, token]
        drafts: list[Draft] = []
        for k in range(2, 2 + self._num_modules):
            ids = torch.tensor([known[start + k - 1 :]], device=self._device)
            cache = None if self._memory is None else self._memory.heads[k]
            output, passed = self._model.run_rows(k, ids, passed, start, cache)
            drafts.append(choose(self._model.logits(k, output[0, -1])))
            known.append(drafts[-1].token)
        self._num_rows = len(self._tokens)
        return drafts[:num_drafts]

    def _take_back(self) -> int:
        """Forget rows that may have read wrong tokens, of all modules alike; returns the first row to run."""
        if self._memory is None:
            return 0
        # The last module has read as many drafts as stand before its own: in the last row, and fewer in those before.
        num_read = self._num_modules - 1
        start = self._num_rows if self._num_accepted >= num_read else max(0, self._num_rows - num_read)
        for cache in self._memory.heads.values():
            cache.crop(self._num_rows - start)
        self._passed = self._passed[:, start - self._first :]
        self._first = start
        return start
