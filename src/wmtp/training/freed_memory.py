"""Memory that one training step frees and the next one needs."""

from __future__ import annotations

import ctypes
import os

# Of glibc's malloc.h. What is set by hand, in the environment, stands.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
_SET_BY_HAND = (
    "MALLOC_TRIM_THRESHOLD_",
    "MALLOC_MMAP_THRESHOLD_",
    "MALLOC_MMAP_MAX_",
    "MALLOC_TOP_PAD_",
    "GLIBC_TUNABLES",
)
_NEVER, _MOST_BYTES = -1, 2**31 - 1


def keep_freed_memory() -> bool:
    """Keep what is freed for this process, in place of giving it back to the system; returns whether that was done.

    glibc gives each block above 32 MB back at once, and the gradient of an unembedding is one. Each step then asks
    for it anew, page by page. Blocks up to 2 GB are kept until the process ends; the most that was in use stays the
    same but for gaps between blocks. Other allocators are left alone. docs/decisions/0026 has figures.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None or any(name in os.environ for name in _SET_BY_HAND):
        return False
    # Older versions take no threshold above 32 MB; they can do without mapped blocks altogether.
    stays = mallopt(_MMAP_THRESHOLD, _MOST_BYTES) or mallopt(_MMAP_MAX, 0)
    return bool(stays and mallopt(_TRIM_THRESHOLD, _NEVER))
