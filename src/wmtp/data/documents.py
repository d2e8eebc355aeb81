"""Training documents: text files, JSON with a text, JSON with prompt and completion (MBPP's form too)."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from wmtp.data.columns import refuse_columns
from wmtp.data.content import (
    JSON_SUFFIXES,
    LONG_BYTES,
    TABLE_SUFFIXES,
    Content,
    NotTextError,
    read_content,
    refuse_other_kinds,
    suffix_of,
)
from wmtp.data.document import Document
from wmtp.data.fault_list import FaultList
from wmtp.data.files import DataFile, LeftOut, find_files
from wmtp.data.long_text import LongDocument
from wmtp.data.parts import text_parts
from wmtp.data.record_documents import RecordReader
from wmtp.data.records import is_by_lines, line_texts, looks_like_records, parse_record, record_texts
from wmtp.data.tables import table_rows
from wmtp.data.token_store import Array
from wmtp.errors import DataError
from wmtp.untrusted import show_all

if TYPE_CHECKING:
    from wmtp.settings.data import Reading

__all__ = ["Document", "DocumentReader", "hold_out", "is_held_out", "read_documents"]

logger = logging.getLogger("wmtp")


@dataclass(frozen=True)
class DocumentReader:
    """Makes documents of what files of a data source hold.

    Attributes:
        source: How they are read.
        field: The recipe's section that `source` comes from, for messages: `data.train`.
        columns: Numbers that every document must have: the name of the score, and the key of JSON that holds it.
        faults: Gets every file and line that cannot be used.
        left_out: Gets files of directories that are not read.
        cache_dir: Where files are kept that have to be fetched; None: the cache's usual place.
    """

    source: Reading
    field: str
    columns: Mapping[str, str]
    faults: FaultList
    left_out: LeftOut
    cache_dir: str | None = None

    @classmethod
    def of(
        cls, source: Reading, field: str, columns: Mapping[str, str], cache_dir: str | None = None
    ) -> DocumentReader:
        """Return a reader that has met no fault yet; `cache_dir` is where files are kept that have to be fetched."""
        return cls(source, field, columns, FaultList(field), LeftOut(), cache_dir)

    def files(self) -> Iterator[DataFile]:
        """Yield every file of the source; one that is not on this machine is fetched."""
        return find_files(self.source, self.faults, self.left_out, field=self.field, cache_dir=self.cache_dir)

    def all_documents(self, files: Iterable[DataFile]) -> Iterator[Document | LongDocument]:
        """Yield the documents of files, in bounded memory wherever a file allows that."""
        for file in files:
            with self.faults.collected():
                yield from self.of_file(file)

    def of_file(self, file: DataFile) -> Iterator[Document | LongDocument]:
        """Yield the documents of a file."""
        if self.is_table(file):
            yield from self.of_table(file)
            return
        refuse_other_kinds(Path(file.where), raw=self.source.format == "raw_text")
        content = read_content(file.path, LONG_BYTES, name=file.name)
        if not content.is_whole and not self.holds_records(content):
            yield from self._long(content, is_found=file.is_found)
        elif not content.is_whole and is_by_lines(content):
            yield from self._records(line_texts(content))
        else:
            whole = content if content.is_whole else read_content(file.path, name=file.name)
            yield from self.documents(whole, is_found=file.is_found)

    def of_table(self, file: DataFile) -> Iterator[Document]:
        """Yield the documents of a table, one a row."""
        keys, reader = self.record_reader.keys, self.record_reader
        for where, row in table_rows(file, keys, {key: reader.hint(key, is_column=True) for key in keys}):
            with self.faults.collected():
                yield reader.document(row, where)

    def is_table(self, file: DataFile) -> bool:
        """Say whether a file is read as a table; raises DataError for one that should be learned as it stands."""
        is_table = file.suffix in TABLE_SUFFIXES
        if is_table and self.source.format == "raw_text":
            raise DataError(
                f"{file.where}: a table in binary form, and format raw_text learns text as it stands",
                hint=f"set format: text, and {self.field}.text to the column that holds it",
            )
        return is_table

    def documents(self, content: Content, *, is_found: bool) -> Iterator[Document]:
        """Yield the documents of a file; of its beginning, those that are whole."""
        if self.holds_records(content):
            yield from self._records(record_texts(content))
            return
        try:
            text = content.text()
        except NotTextError:
            self._leave_out(content, is_found=is_found)
            return
        self._refuse_as_text(content)
        if text.strip() or not content.is_whole:
            yield Document(text, where=content.where)

    def _long(self, content: Content, *, is_found: bool) -> Iterator[LongDocument]:
        try:
            content.text()
            # To its end, so that it is known to be text before any of it is tokenized.
            num_written = sum(bool(part.strip()) for part in text_parts(content.path, content.where))
        except NotTextError:
            self._leave_out(content, is_found=is_found)
            return
        self._refuse_as_text(content)
        if num_written:
            yield LongDocument(content.path, content.where)

    def _leave_out(self, content: Content, *, is_found: bool) -> None:
        """Raise the error that is being handled, unless the file was only found."""
        if not is_found:
            raise  # noqa: PLE0704  called where one is handled
        self.left_out.add("that are not UTF-8 text", content.path)

    def _refuse_as_text(self, content: Content) -> None:
        refuse_columns(content.where, self.columns)
        if self.source.format == "text" and looks_like_records(content):
            raise DataError(
                f"{content.where}: its name says text, and it begins with a JSON object",
                hint="name it *.jsonl or *.json to learn the text in each object, or set format: raw_text to learn it"
                " as it stands",
            )

    def raise_any(self, *, has_documents: bool) -> None:
        """Raise DataError if there was a fault, or no document at all."""
        self.faults.raise_any()
        if not has_documents:
            raise DataError(
                f"{self.field}.files: there is no document in {', '.join(show_all(self.source.files))}",
                hint="name files with text in them; a directory is searched for files such as *.py, *.txt and *.jsonl"
                + (f"; {self.left_out}" if self.left_out else ""),
            )

    def holds_records(self, content: Content) -> bool:
        """Say whether a file is read as JSON."""
        is_json = suffix_of(Path(content.where)) in JSON_SUFFIXES
        return self.source.format in ("prompt_completion", "chat") or (self.source.format == "text" and is_json)

    @property
    def record_reader(self) -> RecordReader:
        """What makes documents of records and rows."""
        return RecordReader(self.source, self.field, self.columns)

    def _records(self, texts: Iterable[tuple[str, bytes]]) -> Iterator[Document]:
        reader = self.record_reader
        for where, data in texts:
            with self.faults.collected():
                yield reader.document(parse_record(data, where), where)


def read_documents(source: Reading, *, field: str, columns: Mapping[str, str] = MappingProxyType({})) -> list[Document]:
    """Return every document of a data source, in the order of its files.

    A directory is read recursively: every file whose suffix is one of `TEXT_SUFFIXES`, or of JSON for prompts and
    completions. What else is there, is hidden or is not UTF-8 text is left out, and the log counts and names it; a file
    that is named, or matched by a pattern, must be readable. Files by gzip are unpacked.

    Args:
        source: Which files, and how they are read.
        field: The recipe's section that `source` comes from, for messages: `data.train`.
        columns: Numbers that every document must have: the name of the score, and the key of JSON that holds it.

    Raises:
        DataError: With every file and line that cannot be used; or if there is no document at all.
    """
    reader = DocumentReader.of(source, field, columns)
    found = list(reader.all_documents(reader.files()))
    documents = [each if isinstance(each, Document) else each.read() for each in found]
    if reader.left_out:
        logger.warning("%s: %s", field, reader.left_out)
    reader.raise_any(has_documents=bool(documents))
    return documents


def hold_out(documents: Sequence[Document], fraction: float) -> tuple[list[Document], list[Document]]:
    """Split documents into those to train on and those to validate on.

    The choice depends on the documents alone, by the SHA-256 of each: every seed gets the same validation set, and
    documents with equal text are never on both sides.

    Args:
        documents: All of them.
        fraction: The share to hold out, between 0 and 1.

    Raises:
        DataError: If there are not two different documents to split.
    """
    texts = [hashlib.sha256(document.whole_text.encode()).digest() for document in documents]
    held = is_held_out(np.array(texts, dtype="S32"), fraction).tolist()
    pairs = list(zip(documents, held, strict=True))
    return [d for d, is_held in pairs if not is_held], [d for d, is_held in pairs if is_held]


def is_held_out(texts: Array, fraction: float) -> Array:
    """Say of each document whether it is held out; `texts` are the SHA-256 of their texts, and see `hold_out`."""
    different = np.unique(texts)
    if len(different) < 2:
        raise DataError(
            "data.validation.fraction: the training data is a single document, which cannot be split",
            hint="name validation files of their own, or give the training data as several files",
        )
    held = different[: min(max(1, round(fraction * len(different))), len(different) - 1)]
    return texts <= held[-1]
