"""Writing a directory so that it is either there and complete, or not there at all.

Files are written under a temporary name beside the final one. Each is fsynced, a manifest of all of them comes last,
the directory is renamed in one step, and its parent is fsynced: a kill at any moment leaves no half-written directory
under a final name, and none that was complete is touched.
"""

from __future__ import annotations

import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wmtp.errors import IntegrityError, StorageError
from wmtp.manifest import MANIFEST_FILE, Manifest
from wmtp.storage.replace import fsync

_UNFINISHED = re.compile(r".+\.tmp-[0-9a-f]{32}")


@contextmanager
def publish_directory(final: Path) -> Iterator[Path]:
    """Give a temporary directory to write into; it becomes `final`, with a manifest, when the block ends.

    When the block raises, the temporary directory is removed and nothing appears under the final name.

    Args:
        final: The name to publish under. Its parent is made when it is missing.

    Yields:
        The directory to write into.

    Raises:
        StorageError: If something already stands at `final`. It is never overwritten.
    """
    refuse_existing(final)
    final.parent.mkdir(parents=True, exist_ok=True)
    unfinished = _unfinished_name(final)
    unfinished.mkdir()
    try:
        yield unfinished
        _seal(unfinished)
        # Again, as the block may have taken minutes: rename would silently replace an empty directory.
        refuse_existing(final)
        unfinished.rename(final)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    fsync(final.parent)


def verify_published(directory: Path) -> Manifest:
    """Hash every file of a published directory against its manifest, and return the manifest.

    Raises:
        IntegrityError: If the manifest is missing or damaged, or a file that it lists is missing or differs.
    """
    path = directory / MANIFEST_FILE
    try:
        manifest = Manifest.read(path)
    except (OSError, ValueError) as error:
        raise IntegrityError(
            f"{path}: not a readable manifest, so the directory may be half-written",
            hint="use another checkpoint; only a directory with a manifest that verifies is complete",
        ) from error
    manifest.verify_directory(directory)
    return manifest


def is_complete(directory: Path) -> bool:
    """Say whether a directory was published whole and is unchanged since; reads every byte."""
    try:
        verify_published(directory)
    except IntegrityError:
        return False
    return True


def remove_published(directory: Path) -> None:
    """Remove a published directory; it has no final name from the first moment on, so a kill leaves no half of it."""
    doomed = _unfinished_name(directory)
    directory.rename(doomed)
    shutil.rmtree(doomed)


def sweep_unfinished(parent: Path) -> list[Path]:
    """Remove what killed processes left half-written below `parent`, and return what was removed.

    Call it only where no other process is publishing: a directory in the making has the same kind of name.
    """
    left = [path for path in sorted(parent.iterdir()) if _UNFINISHED.fullmatch(path.name)] if parent.is_dir() else []
    swept = [path for path in left if path.is_dir() and not path.is_symlink()]
    for path in swept:
        shutil.rmtree(path)
    return swept


def _unfinished_name(final: Path) -> Path:
    return final.with_name(f"{final.name}.tmp-{uuid.uuid4().hex}")


def refuse_existing(final: Path) -> None:
    """Raise StorageError if something has that name."""
    if os.path.lexists(final):
        raise StorageError(
            f"{final}: already exists, and is not overwritten",
            hint="choose another name, or move it away",
        )


def _seal(directory: Path) -> None:
    paths = sorted(directory.rglob("*"))
    names = [path.relative_to(directory).as_posix() for path in paths if path.is_file()]
    manifest = directory / MANIFEST_FILE
    manifest.write_text(Manifest.of_directory(directory, names).model_dump_json(indent=2) + "\n", encoding="utf-8")
    for path in (*paths, manifest, directory):
        fsync(path)
