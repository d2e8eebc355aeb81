"""How much work something is, told without a clock's seconds: as a multiple of other work in the same process."""

from __future__ import annotations

import time
from collections.abc import Callable


def times_as_long(act: Callable[[], object], reference: Callable[[], object]) -> float:
    """How many times the processor time of the reference something takes; the longer of two runs of the reference."""
    return _processor_time(act) / max(_processor_time(reference), _processor_time(reference), 1e-3)


def _processor_time(act: Callable[[], object]) -> float:
    before = time.process_time()
    act()
    return time.process_time() - before
