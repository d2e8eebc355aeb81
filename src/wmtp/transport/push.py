"""Putting a checkpoint into an object store, so that it is either whole there or not a checkpoint at all.

metadata.json comes last: without it nothing loads from there.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from wmtp.manifest import MANIFEST_FILE
from wmtp.metadata.file import METADATA_FILE
from wmtp.storage.objects import ObjectStore
from wmtp.storage.progress import transferring, watching
from wmtp.storage.uri import ModelURI
from wmtp.transport.claims import several_at_once
from wmtp.transport.outgoing import checkpoint_in, new_manifest, outgoing
from wmtp.transport.report import MovedFile, MoveReport, said_by
from wmtp.transport.target import LAST, check_arrived, check_same, check_way, open_target
from wmtp.untrusted import show_all

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PushReport(MoveReport):
    """What was pushed.

    Attributes:
        has_new_manifest: Whether the directory had no manifest.json, so that one was made for the pushed copy.
    """

    has_new_manifest: bool

    def summary(self) -> list[str]:
        """Return the report in a few lines for a person."""
        has_moved = not all(file.was_here for file in self.files)
        place = f"is now at {self.uri}" if has_moved else f"was at {self.uri} already"
        lines = [f"{self.path} {place}: {self.amount}", *said_by(self.files)]
        unknown = sorted(file.name for file in self.files if not file.verified_by and file.name not in LAST)
        if self.has_new_manifest:
            lines.append(f"with a new {MANIFEST_FILE}, to which a fetch holds every byte")
        elif unknown:
            lines.append(f"not in {MANIFEST_FILE}, so that no fetch can verify them: {', '.join(show_all(unknown))}")
        return lines + self.omission


def push_checkpoint(
    directory: Path, uri: str | ModelURI, *, replace: bool = False, allow_symlinks: bool = False
) -> PushReport:
    """Put a checkpoint into an object store.

    It must prove itself first: metadata and headers are read, and every byte is held to manifest.json and to `files` of
    metadata.json. The directory is not changed. What an interrupted push has left there is overwritten; what is
    there as a whole is left alone.

    Args:
        directory: The checkpoint; or a run, whose final one is meant.
        uri: An address below which nothing stands yet, but for what an interrupted push left.
        replace: Put it in place of a checkpoint that has no other files than this one.
        allow_symlinks: Follow links that leave the directory.

    Raises:
        StorageError: If something stands there that would be lost or mixed up, or bytes cannot be had or written.
        ChangedError: If a file changes meanwhile, here or there; metadata.json is not put then.
        IntegrityError: If a file is not what its manifest says.
        WmtpError: If the directory is no checkpoint.
    """
    started = time.monotonic()
    target = open_target(uri)
    source = outgoing(checkpoint_in(directory), allow_symlinks=allow_symlinks)
    standing = check_way(target, source.paths, replace=replace)
    moved, contents = source.verified(), dict[str, Path | bytes](source.paths)
    has_new_manifest = MANIFEST_FILE not in contents
    if has_new_manifest:
        contents[MANIFEST_FILE], manifest = new_manifest(moved)
        moved.append(manifest)
    if METADATA_FILE in standing and not replace:
        check_same(target, standing, moved, contents)
        moved = [dataclasses.replace(file, was_here=True) for file in moved]
    else:
        with _saying_what_is_left(target):
            if METADATA_FILE in standing:
                target.delete(METADATA_FILE)
            _put_all(target, contents, moved, source.check_unchanged)
    return PushReport(
        uri=str(target.uri),
        path=str(source.directory),
        files=tuple(sorted(moved, key=lambda file: file.name)),
        seconds=time.monotonic() - started,
        has_new_manifest=has_new_manifest,
        left_out=source.left_out,
    )


def _put_all(
    target: ObjectStore,
    contents: Mapping[str, Path | bytes],
    files: Sequence[MovedFile],
    check_source: Callable[[], None],
) -> None:
    with transferring(str(target.uri), {file.name: file.size_bytes for file in files}) as progress:

        def put(name: str, _: object = None) -> None:
            with watching(lambda _: None):  # who watches is told of the whole
                progress.advance(target.put(name, contents[name]).size_bytes)

        several_at_once(put, [file.name for file in files if file.name not in LAST])
        put(MANIFEST_FILE)
        check_source()
        check_arrived(target, {file.name: file.size_bytes for file in files if file.name != METADATA_FILE})
        put(METADATA_FILE)


@contextmanager
def _saying_what_is_left(target: ObjectStore) -> Iterator[None]:
    try:
        yield
    except BaseException:
        _logger.warning(
            "%s has no %s yet, so nothing loads it; the same command pushes it again", target.uri, METADATA_FILE
        )
        raise
