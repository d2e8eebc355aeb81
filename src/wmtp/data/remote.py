"""Data files that are not on this machine: in an object store, or in a data set on the Hub."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qsl

from wmtp.data.content import TABLE_SUFFIXES, suffix_of
from wmtp.errors import DataError
from wmtp.storage.dataset_hub import DatasetAddress, prepared_split, snapshot
from wmtp.storage.opening import open_store
from wmtp.untrusted import show

_HUB = "hf://datasets/"
_FORM = "write hf://datasets/ORG/NAME/PATH, PATH a file or a pattern, or hf://datasets/ORG/NAME?split=train"
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+?)?", re.ASCII)
_GLOB = re.compile(r"[*?\[]")

Found = tuple[Path, bool, str]


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
        raise DataError(
            f"{field}.files: {show(address)} matches no file that can be read",
            hint="check the address; without a pattern it stands for one file, or for all data files below it",
        )
    yield from found


def _of_store(address: str, suffixes: frozenset[str], cache_dir: str | None) -> Iterator[Found]:
    marked = _GLOB.search(address)
    directory, _, rest = (address[: marked.start()] if marked else address.rstrip("/")).rpartition("/")
    pattern = address[len(directory) + 1 :].rstrip("/")
    store = open_store(directory, cache_dir=cache_dir)
    if not marked and store.has(rest):
        names = [rest]
    elif marked:
        names = [info.name for info in store.list_files() if _translated(pattern).fullmatch(info.name)]
    else:
        store = open_store(address, cache_dir=cache_dir)
        names = _readable([info.name for info in store.list_files()], suffixes)
    is_found = not marked and names != [rest]
    for name in names:  # one at a time: only the one that is read need be there
        yield store.local_paths([name])[name], is_found, store.where(name)


def _of_hub(address: str, suffixes: frozenset[str]) -> Iterator[Found]:
    rest, _, query = address.removeprefix(_HUB).partition("?")
    org, _, rest = rest.partition("/")
    name, _, path = rest.partition("/")
    repository, _, revision = f"{org}/{name}".partition("@")
    wanted = dict(parse_qsl(query))
    if not _REPOSITORY.fullmatch(f"{org}/{name}") or set(wanted) - {"config", "split"} or (path and wanted):
        raise DataError(f"{show(address)} is no address of a data set on the Hub", hint=_FORM)
    dataset = DatasetAddress(repository, revision or None)
    if not path:
        split = wanted.get("split", "train")
        yield from (
            (file, False, f"{address} ({file.name})") for file in prepared_split(dataset, wanted.get("config"), split)
        )
        return
    pattern = _translated(path.rstrip("/"))
    root = snapshot(dataset, path if _GLOB.search(path) else [path, f"{path.rstrip('/')}/*"])
    names = sorted(str(file.relative_to(root)) for file in root.rglob("*") if file.is_file())
    asked = [each for each in names if pattern.fullmatch(each)]
    found = asked or _readable([each for each in names if each.startswith(f"{path.rstrip('/')}/")], suffixes)
    base = address[: len(address) - len(path)]
    yield from ((root / each, not asked, f"{base}{each}") for each in found)


def _readable(names: list[str], suffixes: frozenset[str]) -> list[str]:
    texts = [name for name in names if suffix_of(Path(name)) in suffixes]
    return texts or [name for name in names if suffix_of(Path(name)) in TABLE_SUFFIXES]


def _translated(pattern: str) -> re.Pattern[str]:
    """Return what matches the names that a pattern means: `*` within a directory, `**/` for any number of them."""
    parts = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    pieces = re.split(r"(\*\*/|\*\*|\*|\?)", pattern)
    return re.compile("".join(parts.get(piece, re.escape(piece)) for piece in pieces), re.DOTALL)
