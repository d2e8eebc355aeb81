"""How much data a run has, from sizes of files and their first documents: about, and at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from wmtp.data.content import Content, content_size, read_content, refuse_other_kinds
from wmtp.data.document import Document
from wmtp.data.documents import DocumentReader
from wmtp.data.files import DataFile, is_remote, without_remote
from wmtp.data.records import shows_a_record
from wmtp.data.tables import table_size
from wmtp.untrusted import MAX_INDEX_BYTES, plain
from wmtp.wording import size

if TYPE_CHECKING:
    from wmtp.settings.recipe import Data

# Of English and of code with vocabularies of 32,000 to 150,000 tokens; a small vocabulary has shorter tokens.
BYTES_OF_A_TOKEN = 4
_SAMPLED_BYTES = 1 << 16
_SAMPLED_ROWS = 100


@dataclass(frozen=True)
class DataEstimate:
    """About how much there is to train on, without what is held out.

    Attributes:
        num_files: Files of `data.train`.
        stored_bytes: Of those files.
        documents: About how many documents to train on.
        tokens: About how many tokens they have, at 4 bytes of text each, counting the ends of documents.
        rows: About how many rows these fill.
        row_tokens: About how many tokens of a row are not padding.
        left_out: What directories hold that is not read, and what is not counted; empty: nothing.
    """

    num_files: int
    stored_bytes: int
    documents: int
    tokens: int
    rows: int
    row_tokens: int
    left_out: str = ""

    def to_dict(self) -> dict[str, int | str]:
        """Return the estimate as plain JSON values, with what it assumes."""
        return {**asdict(self), "assumed_bytes_of_a_token": BYTES_OF_A_TOKEN}

    def line(self) -> str:
        """Return the estimate in a line for a person."""
        files = f"{self.num_files} file{'s' if self.num_files > 1 else ''}, {size(self.stored_bytes)}"
        tokens = f"about {self.tokens:,} tokens in {self.rows:,} rows to train on"
        return f"data: {files}; {tokens}, at {BYTES_OF_A_TOKEN} bytes a token"


def estimate_data(data: Data, columns: Sequence[str]) -> DataEstimate:
    """Return about how much data a recipe trains on.

    The beginning of each file is read as a run reads it: its first documents, and whether anything is wrong with them.
    Of what follows only the length is taken.

    Args:
        data: The recipe's section.
        columns: Keys that hold a number that the run needs.

    Raises:
        DataError: With everything that is wrong with the first documents of each file; or if there is no file.
    """
    same = dict(zip(columns, columns, strict=True))
    parts = data.train.parts
    readers = [DocumentReader.of(without_remote(part), "data.train", same) for part in parts]
    counted = [file for reader in readers if reader.source.files for file in _counted(reader)]
    elsewhere = [pattern for part in parts for pattern in part.files if is_remote(pattern)]
    if data.validation is not None and (local := without_remote(data.validation)).files:
        # Called for its errors: they would end the run once the models are loaded.
        _counted(DocumentReader.of(local, "data.validation", {}))
    kept = 1 - ((data.validation.fraction if data.validation else None) or 0)
    documents = max(1, round(kept * sum(file.documents for file in counted)))
    tokens = documents + math.ceil(kept * sum(file.text_bytes for file in counted) / BYTES_OF_A_TOKEN)
    length = data.train.max_length
    rows = math.ceil(tokens / length) if data.train.packing else max(documents, math.ceil(tokens / length))
    row_tokens = min(length, math.ceil(tokens / rows))
    stored = sum(file.stored_bytes for file in counted)
    notes = [str(reader.left_out) for reader in readers if reader.left_out]
    notes += [f"not counted, as it is fetched when a run begins: {plain(pattern)}" for pattern in elsewhere]
    left_out = "; ".join(notes)
    return DataEstimate(len(counted), stored, documents, tokens, rows, row_tokens, left_out)


@dataclass(frozen=True)
class _File:
    stored_bytes: int
    documents: float
    text_bytes: float


def _counted(reader: DocumentReader) -> list[_File]:
    files = []
    for file in reader.files():
        with reader.faults.collected():
            files.append(_count(reader, file))
    reader.raise_any(has_documents=any(file.documents for file in files))
    return files


def _count(reader: DocumentReader, file: DataFile) -> _File:
    stored = file.path.stat().st_size
    if reader.is_table(file):
        return _count_rows(reader, file)
    refuse_other_kinds(Path(file.where), raw=reader.source.format == "raw_text")
    content, is_found = read_content(file.path, _SAMPLED_BYTES, name=file.name), file.is_found
    size_bytes = len(content.data) if content.is_whole else content_size(content.path)
    if not reader.holds_records(content):
        documents = list(reader.documents(content, is_found=is_found))
        return _File(stored, len(documents), size_bytes if documents else 0)
    sample = _sample(content)
    documents = list(reader.documents(sample, is_found=is_found))
    # Up to its last line end, where there is one: the line after it is cut through.
    sampled = len(sample.data) if sample.is_whole else sample.data.rfind(b"\n") + 1 or len(sample.data)
    factor = size_bytes / max(1, sampled)
    return _File(stored, factor * len(documents), factor * _text_bytes(documents))


def _count_rows(reader: DocumentReader, file: DataFile) -> _File:
    documents, rows = list(islice(reader.of_table(file), _SAMPLED_ROWS)), table_size(file)
    factor = rows / max(1, min(rows, _SAMPLED_ROWS))
    return _File(file.path.stat().st_size, factor * len(documents), factor * _text_bytes(documents))


def _text_bytes(documents: Sequence[Document]) -> int:
    return sum(len(document.whole_text.encode()) for document in documents)


def _sample(content: Content) -> Content:
    """Return so much of a file's beginning that a record is in it, or more than a record may have."""
    while not content.is_whole and len(content.data) <= MAX_INDEX_BYTES and not shows_a_record(content):
        content = read_content(content.path, min(16 * len(content.data), MAX_INDEX_BYTES + 1), name=content.name)
    return content
