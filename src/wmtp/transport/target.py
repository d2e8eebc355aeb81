"""Where a push goes: what stands there, and what of it may be written over."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from wmtp.errors import ChangedError, NotFoundError, StorageError
from wmtp.manifest import MANIFEST_FILE
from wmtp.metadata.file import METADATA_FILE
from wmtp.storage.objects import ObjectStore
from wmtp.storage.opening import open_store
from wmtp.storage.uri import ModelURI, parse_uri
from wmtp.transport.report import MovedFile
from wmtp.untrusted import show_all
from wmtp.wording import file_count

LAST = (MANIFEST_FILE, METADATA_FILE)  # to be written, in this order

_INSTEAD = {
    "hf": "push_to_hub, and 'wmtp push', put them into a repository of the Hub",
    "file": "a copy on this machine, verified, is made by: wmtp fetch DIR NEW",
}


def open_target(uri: str | ModelURI) -> ObjectStore:
    """Open an address in an object store, or raise StorageError with what to do for another one."""
    address = parse_uri(uri)
    if address.scheme in _INSTEAD:
        raise StorageError(f"{address}: push puts checkpoints into object stores only", hint=_INSTEAD[address.scheme])
    target = open_store(address, cache=False)
    assert isinstance(target, ObjectStore)
    return target


def check_way(target: ObjectStore, paths: Mapping[str, Path], *, replace: bool) -> dict[str, int]:
    """Return the sizes of what stands there; raise StorageError if nothing may be put there."""
    try:
        standing = {info.name: info.size_bytes for info in target.list_files()}
    except NotFoundError:
        return {}  # no bucket either: the first file to be put there says so
    # Two checkpoints whose metadata.json is the same may be one: that is known when every byte has been read.
    if (
        METADATA_FILE in standing
        and not replace
        and not _is_there(target, standing, METADATA_FILE, paths[METADATA_FILE])
    ):
        raise _occupied(target, standing)
    if foreign := set(standing) - {*paths, MANIFEST_FILE}:
        raise StorageError(
            f"{target.uri}: {file_count(len(foreign))} there that this checkpoint does not have:"
            f" {', '.join(show_all(sorted(foreign)))}",
            hint="push to another address, or look at them and remove them first",
        )
    return standing


def check_same(
    target: ObjectStore,
    standing: Mapping[str, int],
    files: Sequence[MovedFile],
    contents: Mapping[str, Path | bytes],
) -> None:
    """Raise StorageError unless this very checkpoint stands there, as after a push whose last answer was lost."""
    sizes = {file.name: file.size_bytes for file in files}
    if standing != sizes or not all(_is_there(target, standing, name, contents[name]) for name in LAST):
        raise _occupied(target, standing)


def _is_there(target: ObjectStore, standing: Mapping[str, int], name: str, content: Path | bytes) -> bool:
    data = content if isinstance(content, bytes) else content.read_bytes()
    return standing.get(name) == len(data) and target.read_bytes(name, max_bytes=len(data)) == data


def _occupied(target: ObjectStore, standing: Iterable[str]) -> StorageError:
    return StorageError(
        f"{target.uri}: another checkpoint stands there: {', '.join(show_all(sorted(standing)))}",
        hint="push to another address; --replace puts this one in its place",
    )


def check_arrived(target: ObjectStore, sizes: Mapping[str, int]) -> None:
    """Raise ChangedError if somebody else wrote there meanwhile; the store itself notices other versions."""
    found = {info.name: info.size_bytes for info in target.list_files()}
    if found != sizes:
        names = sorted(name for name in {*found, *sizes} if found.get(name) != sizes.get(name))
        raise ChangedError(
            f"{target.uri}: somebody else writes there too: {', '.join(show_all(names))}",
            hint="see who it is; then push again, or to another address",
        )
