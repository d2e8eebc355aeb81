"""Reading several files that belong together in one version, where somebody may write to them meanwhile."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from wmtp.errors import ArrivalError, ChangedError

_logger = logging.getLogger(__name__)
_Answer = TypeVar("_Answer")


def retried_if_changed(act: Callable[[], _Answer]) -> _Answer:
    """Do something that reads several files, once more from the start if one changes meanwhile or arrives damaged.

    So all that is read is of one version of each file; a second time in a row is an error.
    """
    try:
        return act()
    except (ArrivalError, ChangedError) as error:
        _logger.warning("%s: starting once more", error.problem)
        return act()
