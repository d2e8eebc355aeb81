"""How long a failing request is tried again."""

from __future__ import annotations

import logging
import os
import random
import time
from datetime import timedelta
from typing import Any

from wmtp.errors import SettingsError
from wmtp.untrusted import show

_log = logging.getLogger(__name__)
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_SILENCE_SECONDS = 20.0
_VARIABLE = "WMTP_TRANSFER_TIMEOUT"


def transfer_timeout() -> float:
    """Return for how many seconds requests are tried again without progress: `WMTP_TRANSFER_TIMEOUT`, or 120.

    Raises:
        SettingsError: If the variable is not a number of seconds above 0 and up to a day.
    """
    text = os.environ.get(_VARIABLE, "120")
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 0 < seconds <= 86_400:
        raise SettingsError(
            f"the environment variable {_VARIABLE} is {show(text)}, which is not a number of seconds from 0 to 86,400",
            hint=f"set it to such a number, or unset it for 120: export {_VARIABLE}=120",
        )
    return seconds


def longest_silence() -> float:
    """Return for how many seconds a server may send nothing before its connection counts as dead."""
    return min(_LONGEST_SILENCE_SECONDS, transfer_timeout() / 4)


def retry_config() -> dict[str, Any]:
    """Return the same patience in the words of obstore, for uploads, whose parts only obstore can send again."""
    seconds = transfer_timeout()
    backoff = {
        "init_backoff": timedelta(seconds=min(_FIRST_PAUSE_SECONDS, seconds / 20)),
        "max_backoff": timedelta(seconds=seconds / 20),
        "base": 2,
    }
    return {"max_retries": 1000, "retry_timeout": timedelta(seconds=seconds), "backoff": backoff}


class Patience:
    """Growing, jittered pauses between attempts, until the time without progress is spent.

    Args:
        where: What is asked for, as the log names it.
    """

    def __init__(self, where: str) -> None:
        self._where, self._timeout = where, transfer_timeout()
        self.progressed()

    def progressed(self) -> None:
        """Start over: an attempt got somewhere."""
        self._since, self._attempts = time.monotonic(), 0

    def wait(self, cause: str) -> bool:
        """Sleep before the next attempt; False, at once, when the time is spent."""
        left = self._since + self._timeout - time.monotonic()
        if left <= 0:
            return False
        # Jitter, so that eight processes that were told to slow down do not come back together.
        longest = min(self._timeout / 20, _FIRST_PAUSE_SECONDS * 2 ** min(self._attempts, 20))
        pause = min(left, longest * random.uniform(0.5, 1))  # noqa: S311
        self._attempts += 1
        _log.info("%s: %s; trying again", self._where, cause)
        time.sleep(pause)
        return True

    @property
    def spent(self) -> str:
        """How long it was tried, in words."""
        return f"after {self._timeout:g} seconds without progress"
