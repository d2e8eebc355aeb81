"""Data that is not on this machine: how much there is, from lists of files and the beginning of one of them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from wmtp.data.content import TABLE_SUFFIXES, Content, suffix_of
from wmtp.data.documents import DocumentReader
from wmtp.data.fault_list import FaultList
from wmtp.data.files import DataFile, is_remote, suffixes_of
from wmtp.data.remote import Listed, list_data
from wmtp.errors import DataError, StorageError
from wmtp.run_plan.counting import FileCount, count_file
from wmtp.untrusted import plain
from wmtp.wording import file_count, size

_HEAD_BYTES = 1 << 20
_PACKED = (".gz", ".zst")


def count_remote(reader: DocumentReader, notes: list[str], characters: int) -> list[FileCount]:
    """Return about how much data of a source is elsewhere; nothing is fetched but the beginning of a file.

    Args:
        reader: Reads the source's documents. Gets what is wrong with an address.
        notes: Gets what is not counted, and why.
        characters: Of the sample of each address, at most.
    """
    files = list[FileCount]()
    for address in filter(is_remote, reader.source.files):
        try:
            with reader.faults.collected():
                listed = list_data(address, suffixes_of(reader.source), field=reader.field, cache_dir=reader.cache_dir)
                files += _counted(reader, listed, notes, characters)
                if not listed:
                    notes.append(f"not counted, as it is fetched when a run begins: {plain(address)}")
        except StorageError as error:
            notes.append(f"not counted, as it cannot be listed from here: {error.problem}")
    return files


def _counted(
    reader: DocumentReader, listed: Sequence[Listed], notes: list[str], characters: int
) -> Iterator[FileCount]:
    legible = [file for file in listed if _is_legible(file)]
    total = sum(file.size_bytes for file in legible)
    # One stands for all: its beginning is read, and the others are taken for such as it.
    found = _beginning_of(reader, legible[0], notes, characters) if total else None
    others = [file for file in listed if found is None or file not in legible]
    if found is not None:
        factor, where = total / found.stored_bytes, legible[0].where
        is_records = reader.holds_records(Content(Path(where), b"", is_whole=True, name=where))
        documents = factor * found.documents if is_records else len(legible)
        yield FileCount(total, documents, factor * found.text_bytes, found.sample, len(legible))
    if others:
        num_bytes = sum(file.size_bytes for file in others)
        what = f"{file_count(len(others))}, {size(num_bytes)}, the first {plain(others[0].where)}"
        notes.append(
            f"tokens of tables and packed files, and of all files of the Hub, elsewhere are not counted: {what}"
        )
        yield FileCount(num_bytes, 0, 0, num_files=len(others))


def _is_legible(file: Listed) -> bool:
    is_packed = file.where.lower().endswith(_PACKED) or suffix_of(Path(file.where)) in TABLE_SUFFIXES
    return file.head is not None and not is_packed


def _beginning_of(reader: DocumentReader, file: Listed, notes: list[str], characters: int) -> FileCount | None:
    """Return what the beginning of a file holds; None where that cannot be read by itself."""
    assert file.head is not None
    own = replace(reader, faults=FaultList(reader.field))
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / Path(file.where).name
        path.write_bytes(file.head(_HEAD_BYTES))
        try:
            with own.faults.collected():
                found = count_file(own, DataFile(path, file.is_found, file.where), characters)
            own.faults.raise_any()
        except DataError as error:
            notes.append(f"its beginning cannot be read by itself: {error.problem}")
            return None
    return found if found.documents else None
