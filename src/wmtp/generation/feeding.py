"""Which tokens a pass has to read: those that are new, and those that no cache holds."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from wmtp.models.caches import StepCache

# A pass over some tokens more costs hardly more, but drafting at the price of ever longer passes would.
_MOST_WAITING = 24


class Feed:
    """The tokens of one row, on their way into the caches.

    Where tokens turn out wrong that a recurrent state has read, the state before them is put back; those of them that
    were right wait, and the next pass reads them again before its own. Without caches every token waits for ever: each
    pass reads the whole row.

    Args:
        device: Where the model is.
        caches: Those that the trunk and its heads fill, each pass alike; none: nothing is kept.
    """

    def __init__(self, device: torch.device, caches: Sequence[StepCache]) -> None:
        self._device, self._caches = device, caches
        self._waiting: list[int] = []
        self._num_before = 0

    @property
    def is_behind(self) -> bool:
        """Whether so many tokens wait that the next pass should be one without drafts, after which none does."""
        return bool(self._caches) and len(self._waiting) > _MOST_WAITING

    def take(self, tokens: Sequence[int]) -> Int[Tensor, "1 read"]:
        """Return what has to be read so that these tokens, which follow all others, are read too: they are the last."""
        self._num_before = len(self._waiting)
        self._waiting += tokens
        if len(tokens) > 1:  # one token alone is never wrong
            for cache in self._caches:
                cache.mark()
        return torch.tensor([self._waiting], device=self._device)

    def keep(self, num_right: int) -> None:
        """Forget those of the tokens just read that were wrong.

        Args:
            num_right: How many of those that `take` was given were right, from the first.
        """
        num_read, num_kept = len(self._waiting), self._num_before + num_right
        del self._waiting[num_kept:]
        if not self._caches:
            return
        if num_kept < num_read and not all(cache.can_crop for cache in self._caches):
            for cache in self._caches:
                cache.restore(num_read)
            return
        for cache in self._caches:
            cache.crop(num_read - num_kept)
        self._waiting.clear()
