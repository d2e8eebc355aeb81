"""What a data file holds, from its size and its first documents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from wmtp.data.content import Content, content_size, read_content, refuse_other_kinds
from wmtp.data.document import Document
from wmtp.data.documents import DocumentReader
from wmtp.data.files import DataFile
from wmtp.data.records import shows_a_record
from wmtp.data.tables import table_size
from wmtp.run_plan.tokens import beginning, said
from wmtp.untrusted import MAX_INDEX_BYTES

SAMPLED_BYTES = 1 << 16
_SAMPLED_ROWS = 100


@dataclass(frozen=True)
class FileCount:
    """About how much is in a file, or in several.

    Attributes:
        stored_bytes: What it takes where it lies.
        documents: About how many there are.
        text_bytes: About how much text is in them.
        sample: The first texts, to find out how many tokens such texts have.
        num_files: How many files these are.
    """

    stored_bytes: int
    documents: float
    text_bytes: float
    sample: Sequence[str] = ()
    num_files: int = 1


def count_file(reader: DocumentReader, file: DataFile, characters: int) -> FileCount:
    """Return about how much is in a file.

    Args:
        reader: Reads its first documents, as a run does, and raises or collects what is wrong with them.
        file: On this machine.
        characters: Of the sample, at most.
    """
    stored = file.path.stat().st_size
    if reader.is_table(file):
        return _count_rows(reader, file, characters)
    refuse_other_kinds(Path(file.where), raw=reader.source.format == "raw_text")
    content, is_found = read_content(file.path, SAMPLED_BYTES, name=file.name), file.is_found
    size_bytes = len(content.data) if content.is_whole else content_size(content.path)
    if not reader.holds_records(content):
        documents = list(reader.documents(content, is_found=is_found))
        return _counted(stored, len(documents), size_bytes if documents else 0, documents, characters)
    sample = _sample(content)
    documents = list(reader.documents(sample, is_found=is_found))
    # Up to its last line end, where there is one: the line after it is cut through.
    sampled = len(sample.data) if sample.is_whole else sample.data.rfind(b"\n") + 1 or len(sample.data)
    factor = size_bytes / max(1, sampled)
    return _counted(stored, factor * len(documents), factor * _text_bytes(documents), documents, characters)


def _count_rows(reader: DocumentReader, file: DataFile, characters: int) -> FileCount:
    documents, rows = list(islice(reader.of_table(file), _SAMPLED_ROWS)), table_size(file)
    factor = rows / max(1, min(rows, _SAMPLED_ROWS))
    stored = file.path.stat().st_size
    return _counted(stored, factor * len(documents), factor * _text_bytes(documents), documents, characters)


def _counted(
    stored: int, number: float, text_bytes: float, documents: Sequence[Document], characters: int
) -> FileCount:
    return FileCount(stored, number, text_bytes, beginning(list(map(said, documents)), characters))


def _text_bytes(documents: Sequence[Document]) -> int:
    return sum(len(said(document).encode()) for document in documents)


def _sample(content: Content) -> Content:
    """Return so much of a file's beginning that a record is in it, or more than a record may have."""
    while not content.is_whole and len(content.data) <= MAX_INDEX_BYTES and not shows_a_record(content):
        content = read_content(content.path, min(16 * len(content.data), MAX_INDEX_BYTES + 1), name=content.name)
    return content
