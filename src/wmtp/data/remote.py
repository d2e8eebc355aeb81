"""Data files that are not on this machine: in an object store, or in a data set on the Hub."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import parse_qsl

from wmtp.data.content import TABLE_SUFFIXES, suffix_of
from wmtp.errors import DataError
from wmtp.storage.dataset_hub import DatasetAddress, file_sizes, prepared_split, snapshot
from wmtp.storage.opening import open_store
from wmtp.storage.store import FileInfo, Store
from wmtp.untrusted import show

_HUB = "hf://datasets/"
_FORM = "write hf://datasets/ORG/NAME/PATH, PATH a file or a pattern, or hf://datasets/ORG/NAME?split=train"
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+?)?", re.ASCII)
_GLOB = re.compile(r"[*?\[]")

Found = tuple[Path, bool, str]


@dataclass(frozen=True)
class Listed:
    """A file elsewhere that an address names.

    Attributes:
        where: Its address.
        size_bytes: Its size.
        is_found: Whether it was found rather than asked for.
        head: Returns its first bytes, at most so many; None where a part of it cannot be had.
    """

    where: str
    size_bytes: int
    is_found: bool
    head: Callable[[int], bytes] | None = None


def fetch_data(address: str, suffixes: frozenset[str], *, field: str, cache_dir: str | None = None) -> Iterator[Found]:
    """Yield path, whether it was found rather than asked for, and address of each file that an address names.

    Args:
        address: `s3://bucket/key` (`gs`, `az` too): an object, a pattern, or a prefix that stands for what is below it.
            `hf://datasets/org/name@revision/path` the same of a data set on the Hub; without a path, one of its splits.
        suffixes: Of the files to read below a prefix.
        field: The recipe's section, for messages: `data.train`.
        cache_dir: Where objects are kept; None: the cache's usual place. The Hub's files are in huggingface_hub's own.

    Raises:
        DataError: If the address is none, or names nothing.
        StorageError: If it cannot be fetched.
    """
    found = list(_of_hub(address, suffixes) if address.startswith(_HUB) else _of_store(address, suffixes, cache_dir))
    if not found:
        raise _nothing(address, field)
    yield from found


def list_data(address: str, suffixes: frozenset[str], *, field: str, cache_dir: str | None = None) -> list[Listed]:
    """Return what `fetch_data` would fetch; takes and raises what it does.

    Returns:
        Nothing for a split of a data set: what that takes is known once it was prepared.
    """
    if not address.startswith(_HUB):
        store, files, is_found = _chosen_in_store(address, suffixes, cache_dir)
        found = [
            Listed(store.where(file.name), file.size_bytes, is_found, partial(_head, store, file)) for file in files
        ]
    else:
        dataset, path, _ = _parsed(address)
        if not path:
            return []
        sizes = file_sizes(dataset)
        names, is_found = _chosen(sorted(sizes), path, suffixes)
        base = address.removesuffix(path)
        found = [Listed(f"{base}{name}", sizes[name], is_found) for name in names]
    if not found:
        raise _nothing(address, field)
    return found


def _nothing(address: str, field: str) -> DataError:
    return DataError(
        f"{field}.files: {show(address)} matches no file that can be read",
        hint="check the address; without a pattern it stands for one file, or for all data files below it",
    )


def _head(store: Store, file: FileInfo, num_bytes: int) -> bytes:
    return store.read_range(file.name, 0, min(num_bytes, file.size_bytes))


def _of_store(address: str, suffixes: frozenset[str], cache_dir: str | None) -> Iterator[Found]:
    store, files, is_found = _chosen_in_store(address, suffixes, cache_dir)
    for file in files:  # one at a time: only the one that is read need be there
        yield store.local_paths([file.name])[file.name], is_found, store.where(file.name)


def _chosen_in_store(
    address: str, suffixes: frozenset[str], cache_dir: str | None
) -> tuple[Store, list[FileInfo], bool]:
    """Return the files that an address names, where they are, and whether they were found rather than asked for."""
    marked = _GLOB.search(address)
    directory, _, rest = (address[: marked.start()] if marked else address.rstrip("/")).rpartition("/")
    pattern = _translated(address[len(directory) + 1 :].rstrip("/"))
    store = open_store(directory, cache_dir=cache_dir)
    if marked:
        return store, [info for info in store.list_files() if pattern.fullmatch(info.name)], False
    if store.has(rest):
        return store, [store.stat(rest)], False
    store = open_store(address, cache_dir=cache_dir)
    files = {info.name: info for info in store.list_files()}
    return store, [files[name] for name in _readable(list(files), suffixes)], True


def _of_hub(address: str, suffixes: frozenset[str]) -> Iterator[Found]:
    dataset, path, wanted = _parsed(address)
    if not path:
        split = wanted.get("split", "train")
        yield from (
            (file, False, f"{address} ({file.name})") for file in prepared_split(dataset, wanted.get("config"), split)
        )
        return
    root = snapshot(dataset, path if _GLOB.search(path) else [path, f"{path.rstrip('/')}/*"])
    names = sorted(str(file.relative_to(root)) for file in root.rglob("*") if file.is_file())
    found, is_found = _chosen(names, path, suffixes)
    base = address[: len(address) - len(path)]
    yield from ((root / each, is_found, f"{base}{each}") for each in found)


def _parsed(address: str) -> tuple[DatasetAddress, str, dict[str, str]]:
    """Return data set, path and what else an address of the Hub says."""
    rest, _, query = address.removeprefix(_HUB).partition("?")
    org, _, rest = rest.partition("/")
    name, _, path = rest.partition("/")
    repository, _, revision = f"{org}/{name}".partition("@")
    wanted = dict(parse_qsl(query))
    if not _REPOSITORY.fullmatch(f"{org}/{name}") or set(wanted) - {"config", "split"} or (path and wanted):
        raise DataError(f"{show(address)} is no address of a data set on the Hub", hint=_FORM)
    return DatasetAddress(repository, revision or None), path, wanted


def _chosen(names: list[str], path: str, suffixes: frozenset[str]) -> tuple[list[str], bool]:
    """Return the names that a path or pattern means, and whether they were found rather than asked for."""
    pattern = _translated(path.rstrip("/"))
    if asked := [each for each in names if pattern.fullmatch(each)]:
        return asked, False
    return _readable([each for each in names if each.startswith(f"{path.rstrip('/')}/")], suffixes), True


def _readable(names: list[str], suffixes: frozenset[str]) -> list[str]:
    texts = [name for name in names if suffix_of(Path(name)) in suffixes]
    return texts or [name for name in names if suffix_of(Path(name)) in TABLE_SUFFIXES]


def _translated(pattern: str) -> re.Pattern[str]:
    """Return what matches the names that a pattern means: `*` within a directory, `**/` for any number of them."""
    parts = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    pieces = re.split(r"(\*\*/|\*\*|\*|\?)", pattern)
    return re.compile("".join(parts.get(piece, re.escape(piece)) for piece in pieces), re.DOTALL)
