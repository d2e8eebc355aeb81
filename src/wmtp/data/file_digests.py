"""SHA-256 of data files, remembered while size and time of a file stay what they were."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from wmtp.errors import DataError
from wmtp.faults import StrictModel
from wmtp.manifest import digest_path
from wmtp.storage.replace import replace_file

# A file that was written to so recently may be written to again without its time changing.
_SETTLED_SECONDS = 2.0


class _Seen(StrictModel):
    size: int
    time: int
    place: int
    sha256: str


class _Record(StrictModel):
    files: dict[str, _Seen]


def file_digests(paths: Sequence[Path], record: Path) -> list[str]:
    """Return the SHA-256 of each file, in 64 hex digits.

    Args:
        paths: The files.
        record: A file that remembers what was found.

    Raises:
        DataError: If a file cannot be read.
        StorageError: If the record cannot be written.
    """
    known, found = _read(record), dict[str, _Seen]()
    for path in paths:
        absolute = str(path.absolute())
        found[absolute] = _seen(path, known.files.get(absolute))
    settled = {name: seen for name, seen in found.items() if time.time() - seen.time / 1e9 > _SETTLED_SECONDS}
    if settled != known.files:
        record.parent.mkdir(parents=True, exist_ok=True)
        replace_file(record, _Record(files=settled).model_dump_json().encode())
    return [found[str(path.absolute())].sha256 for path in paths]


def _seen(path: Path, known: _Seen | None) -> _Seen:
    try:
        stat = path.stat()
        if known is not None and (known.size, known.time, known.place) == (stat.st_size, stat.st_mtime_ns, stat.st_ino):
            return known
        digest = digest_path(path, path.name).sha256
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read: {error.strerror}", hint="restore the file, or leave it out"
        ) from error
    return _Seen(size=stat.st_size, time=stat.st_mtime_ns, place=stat.st_ino, sha256=digest)


def _read(record: Path) -> _Record:
    try:
        return _Record.model_validate_json(record.read_bytes())
    except (OSError, ValidationError):
        return _Record(files={})
