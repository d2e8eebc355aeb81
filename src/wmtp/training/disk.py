"""Disks that take no more: said in bytes, before anything is written where that can be known."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ParamSpec

from safetensors import SafetensorError

from wmtp.errors import IntegrityError, StorageError
from wmtp.storage.cached.kept import free_bytes
from wmtp.untrusted import show

logger = logging.getLogger("wmtp")

_FULL = (errno.ENOSPC, errno.EDQUOT)
_HINT = "make room there; what was saved before is whole, and the same command with --resume goes on from it"
P = ParamSpec("P")


@contextmanager
def writing(final: Path, num_bytes: int) -> Iterator[None]:
    """Write about so many bytes to a new directory `final`; a disk that does not take them is an error in numbers.

    Raises:
        StorageError: Before anything is written if there is no room; or when the disk refuses.
    """
    disk = next(path for path in final.absolute().parents if path.exists())
    free = free_bytes(disk)
    if free < num_bytes:
        raise StorageError(
            f"{final}: {num_bytes:,} bytes are needed to save it, and {free:,} bytes are free", hint=_HINT
        )
    try:
        yield
    except (OSError, SafetensorError) as error:
        if isinstance(error, StorageError):
            raise
        free = free_bytes(disk)
        raise StorageError(
            f"{final}: {_reason(error)}; {num_bytes:,} bytes are needed to save it, and {free:,} bytes are free now",
            hint=_HINT if _is_full(error) else "check the directory and its disk; what was saved before is whole",
        ) from error


def going_on_after_errors(save: Callable[P, None]) -> Callable[P, None]:
    """Return `save` such that what keeps it from saving is a warning."""

    def tried(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            save(*args, **kwargs)
        except (StorageError, IntegrityError) as error:
            logger.warning("%s; training goes on without it (train.on_save_error: continue)", error.problem)

    return tried


def _is_full(error: Exception) -> bool:
    # safetensors passes on what the system said as text alone.
    return getattr(error, "errno", None) in _FULL or any(os.strerror(number) in str(error) for number in _FULL)


def _reason(error: Exception) -> str:
    number = next((number for number in _FULL if os.strerror(number) in str(error)), None)
    if number is not None:
        return os.strerror(number)
    return str(getattr(error, "strerror", None) or show(str(error)))
