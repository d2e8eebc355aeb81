"""What is pushed, wherever it goes: the files of a checkpoint, each held to what is said of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from wmtp.checkpoint.contents import open_checkpoint
from wmtp.errors import ChangedError, NotFoundError
from wmtp.manifest import MANIFEST_FILE, FileDigest, Manifest, digest_path
from wmtp.metadata.file import METADATA_FILE
from wmtp.storage.local import reading
from wmtp.storage.opening import open_store
from wmtp.storage.store import FileInfo, Store
from wmtp.transport.claims import Claims, left_out, movable_files, several_at_once
from wmtp.transport.report import MovedFile
from wmtp.untrusted import show_all

_RUN_FILE, _FINAL = "run.json", "final"  # as training writes them


@dataclass(frozen=True)
class Outgoing:
    """Files that are to be pushed.

    Attributes:
        directory: Where they are.
        files: What they are, the largest first.
        paths: Where each is.
        versions: Of each file when it was listed.
        left_out: What else lies there.
    """

    directory: Path
    files: tuple[FileInfo, ...]
    paths: Mapping[str, Path]
    versions: Mapping[str, tuple[int, ...]]
    left_out: tuple[str, ...]
    store: Store

    def verified(self) -> list[MovedFile]:
        """Hash every file against manifest.json and `files` of metadata.json, and return what each is.

        Raises:
            IntegrityError: If one is not what is said of it.
        """
        return several_at_once(partial(_verified, Claims(self.store), self.paths), self.files)

    def check_unchanged(self) -> None:
        """Raise ChangedError if a file is not the one that was listed."""
        now = _versions(self.paths)
        if changed := [name for name in self.paths if now[name] != self.versions[name]]:
            raise ChangedError(
                f"{self.directory}: changed while it was pushed: {', '.join(show_all(sorted(changed)))}",
                hint="push it again when nobody writes to it",
            )


def checkpoint_in(directory: Path) -> Path:
    """Return the directory of the checkpoint that is meant: of a run, its final one.

    Raises:
        NotFoundError: If it is a run that has none.
    """
    if not (directory / _RUN_FILE).is_file() or (directory / METADATA_FILE).exists():
        return directory
    if not (directory / _FINAL).is_dir():
        raise NotFoundError(
            f"{directory}: a run without {_FINAL}/, so it is not over",
            hint=f"go on with it by 'wmtp train --resume', or name one of its checkpoints: {directory}/step-NUMBER",
        )
    return directory / _FINAL


def outgoing(directory: Path, *, allow_symlinks: bool = False, needs_metadata: bool = True) -> Outgoing:
    """Return the files of a checkpoint that proves itself.

    Args:
        directory: The checkpoint.
        allow_symlinks: Follow links that leave the directory.
        needs_metadata: False: an export that has manifest.json in its place will do, such as heads without a trunk.

    Raises:
        WmtpError: If the directory is no checkpoint.
    """
    plain = open_store(directory, allow_symlinks=allow_symlinks)
    is_export = not needs_metadata and plain.has(MANIFEST_FILE) and not plain.has(METADATA_FILE)
    store = plain if is_export else open_checkpoint(directory, allow_symlinks=allow_symlinks).store
    files = tuple(movable_files(store))
    paths = store.local_paths(info.name for info in files)
    return Outgoing(directory, files, paths, _versions(paths), left_out(store, files), store)


def new_manifest(files: Sequence[MovedFile]) -> tuple[bytes, MovedFile]:
    """Return manifest.json of files that have none, and what it is itself."""
    entries = [FileDigest(path=file.name, size=file.size_bytes, sha256=file.sha256) for file in files]
    manifest = Manifest(files=sorted(entries, key=lambda entry: entry.path))
    data = (manifest.model_dump_json(indent=2) + "\n").encode()
    return data, MovedFile(MANIFEST_FILE, len(data), hashlib.sha256(data).hexdigest(), ())


def _verified(claims: Claims, paths: Mapping[str, Path], info: FileInfo, _: object) -> MovedFile:
    with reading(paths[info.name]):
        found = digest_path(paths[info.name], info.name)
    claims.check(info.name, found.sha256)
    return MovedFile(info.name, found.size, found.sha256, claims.sources(info.name))


def _versions(paths: Mapping[str, Path]) -> dict[str, tuple[int, ...]]:
    found = {name: path.stat() for name, path in paths.items()}
    return {name: (stat.st_ino, stat.st_size, stat.st_mtime_ns) for name, stat in found.items()}
