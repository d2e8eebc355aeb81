"""Files on this machine that are written to an object store."""

from __future__ import annotations

import os
from pathlib import Path

from wmtp.errors import StorageError


def size_of(path: Path) -> int:
    """Return the size of a file in bytes.

    Raises:
        StorageError: If it cannot be read; obstore would not say which side failed.
    """
    try:
        with path.open("rb") as file:
            return file.seek(0, os.SEEK_END)
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror}", hint="check the path and its permissions") from error
