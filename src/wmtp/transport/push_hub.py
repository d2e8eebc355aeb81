"""Putting a checkpoint into a repository of the Hugging Face Hub, in one commit."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from wmtp.errors import IntegrityError, StorageError, URIError
from wmtp.manifest import MANIFEST_FILE
from wmtp.storage.requests.hub_writer import HubWriter, Standing
from wmtp.storage.uri import ModelURI, parse_uri
from wmtp.transport.outgoing import checkpoint_in, new_manifest, outgoing
from wmtp.transport.report import MovedFile, MoveReport, said_by
from wmtp.untrusted import show_all
from wmtp.wording import file_count

_OF_THE_HUB = ".gitattributes"  # which the Hub writes itself, and says by it what is large


@dataclass(frozen=True)
class HubPushReport(MoveReport):
    """What was pushed to the Hub.

    Attributes:
        commit: The commit that has it.
        is_private: Whether only those who were let in may read the repository.
        is_new: Whether the repository was made for it.
        deleted: What stood there and stands there no more; it stays in the repository's history.
    """

    commit: str
    is_private: bool
    is_new: bool
    deleted: tuple[str, ...]

    def summary(self) -> list[str]:
        """Return the report in a few lines for a person."""
        place = f"was at {self.uri} already" if all(file.was_here for file in self.files) else f"is now at {self.uri}"
        visible = "private" if self.is_private else "public"
        lines = [
            f"{self.path} {place}: {self.amount}",
            *said_by(self.files),
            f"{visible} repository{', made for it' if self.is_new else ''}; commit {self.commit}",
        ]
        gone = [f"no longer there: {', '.join(show_all(self.deleted))}"] if self.deleted else []
        return [*lines, *gone, *self.omission]


def push_to_hub(
    directory: Path,
    uri: str | ModelURI,
    *,
    public: bool = False,
    replace: bool = False,
    allow_symlinks: bool = False,
) -> HubPushReport:
    """Put a checkpoint, or the final one of a run, into a repository; one commit makes all of it visible.

    Everything proves itself first, as for an object store. What an interrupted push has uploaded is not uploaded again.

    Args:
        directory: The checkpoint, a run, or an export.
        uri: `hf://org/name` or `hf://org/name@branch`. A repository that is not there is made.
        public: A new repository may be read by everybody; and one that everybody may read is pushed to.
        replace: Put it in place of what stands there, in a commit of its own.
        allow_symlinks: Follow links that leave the directory.

    Raises:
        URIError: If the address is not that of a repository.
        StorageError: If other things stand there, the Hub refuses, or bytes cannot be had.
        ChangedError: If a file, or the repository, changes meanwhile.
        IntegrityError: If a file is not what its manifest says, or not what the Hub has in the end.
        WmtpError: If the directory is no checkpoint.
    """
    started, writer, checkpoint = time.monotonic(), HubWriter(_repository(uri)), checkpoint_in(directory)
    source = outgoing(checkpoint, allow_symlinks=allow_symlinks, needs_metadata=False)
    moved, contents = source.verified(), dict[str, Path | bytes](source.paths)
    if MANIFEST_FILE not in contents:
        contents[MANIFEST_FILE], manifest = new_manifest(moved)
        moved.append(manifest)
    found = writer.standing()
    standing = found or writer.create(private=not public)
    _check_visibility(writer.uri, standing, public=public)
    blobs = {file.name: _blobs(file, contents[file.name]) for file in moved}
    same = {name for name, known in blobs.items() if standing.blobs.get(name) in known}
    foreign = tuple(sorted(set(standing.blobs) - {*blobs, _OF_THE_HUB}))
    is_there = len(same) == len(blobs) and not foreign
    if not is_there:
        _check_way(writer.uri, standing, set(blobs), foreign, replace=replace)
        additions = writer.upload({name: content for name, content in contents.items() if name not in same})
        source.check_unchanged()
        message = f"wmtp push: {file_count(len(blobs))}"
        commit = writer.commit(additions, foreign, parent=standing.commit, message=message)
        standing = _arrived(writer, commit, blobs)
    return HubPushReport(
        uri=str(writer.uri),
        path=str(checkpoint),
        files=tuple(dataclasses.replace(f, was_here=f.name in same) for f in sorted(moved, key=lambda f: f.name)),
        seconds=time.monotonic() - started,
        left_out=source.left_out,
        commit=standing.commit,
        is_private=standing.is_private,
        is_new=found is None,
        deleted=() if is_there else foreign,
    )


def _repository(uri: str | ModelURI) -> ModelURI:
    address = parse_uri(uri)
    if address.path:
        raise URIError(
            f"{address}: a checkpoint on the Hub is a whole repository, and this is a directory in one",
            hint="write hf://org/name; one repository for each checkpoint, or one branch: hf://org/name@branch",
        )
    return address


def _blobs(file: MovedFile, content: Path | bytes) -> tuple[str, str]:
    """Return what the Hub may call a file: its SHA-256, where it is large, or else the id that git gives to it."""
    git = hashlib.sha1(f"blob {file.size_bytes}\0".encode(), usedforsecurity=False)
    if isinstance(content, bytes):
        git.update(content)
    else:
        with content.open("rb") as opened:
            while piece := opened.read(1 << 20):
                git.update(piece)
    return file.sha256, git.hexdigest()


def _check_visibility(uri: ModelURI, standing: Standing, *, public: bool) -> None:
    if not standing.is_private and not public:
        raise StorageError(
            f"{uri}: everybody may read this repository, and nothing says that this is meant",
            hint="--public says so; or push to a repository of another name, which will be private",
        )


def _check_way(uri: ModelURI, standing: Standing, ours: set[str], foreign: tuple[str, ...], *, replace: bool) -> None:
    occupied = sorted({*foreign, *(ours & set(standing.blobs))})
    if occupied and not replace:
        raise StorageError(
            f"{uri}: something else stands there: {', '.join(show_all(occupied))}",
            hint="push to another repository or branch; --replace puts this in its place, and history keeps what was",
        )


def _arrived(writer: HubWriter, commit: str, blobs: Mapping[str, tuple[str, str]]) -> Standing:
    """Return what stands there now, which must be what was pushed, byte for byte."""
    standing = writer.standing()
    found = standing.blobs if standing else {}
    if standing and standing.commit == commit and all(found.get(name) in known for name, known in blobs.items()):
        return standing
    wrong = [name for name, known in blobs.items() if found.get(name) not in known]
    differs = f"other bytes than were pushed: {', '.join(show_all(sorted(wrong)))}" if wrong else "a later commit"
    raise IntegrityError(
        f"{writer.uri}: after commit {commit} the Hub has {differs}",
        hint="look at the repository; then push again",
    )
