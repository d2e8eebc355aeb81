"""Writing a small file of our own so that it is either whole or not there, and waiting for the disk."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

from wmtp.errors import StorageError


def replace_file(path: Path, data: bytes) -> None:
    """Write a file, replacing what stands there only once everything is on the disk.

    Raises:
        StorageError: If the directory cannot be written; the file is then as it was.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror}", hint="check the directory and its permissions") from error
    finally:
        temporary.unlink(missing_ok=True)


def fsync(path: Path) -> None:
    """Wait until a file, or the entries of a directory, are on the disk."""
    # Of a directory this makes its entries durable; Linux and macOS both allow it on a read-only descriptor.
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
