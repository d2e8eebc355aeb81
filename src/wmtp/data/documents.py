"""Training documents: text files, JSON with a text, JSON with prompt and completion (MBPP's form too)."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from wmtp.data.columns import read_number, read_text, refuse_columns
from wmtp.data.content import JSON_SUFFIXES, Content, NotTextError, read_content, refuse_other_kinds, suffix_of
from wmtp.data.document import Document
from wmtp.data.fault_list import FaultList
from wmtp.data.files import LeftOut, find_files
from wmtp.data.records import looks_like_records, parse_record, record_texts
from wmtp.errors import DataError
from wmtp.untrusted import show_all

if TYPE_CHECKING:
    from wmtp.settings.data import DataSource

__all__ = ["Document", "DocumentReader", "hold_out", "read_documents"]

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
    """

    source: DataSource
    field: str
    columns: Mapping[str, str]
    faults: FaultList
    left_out: LeftOut

    @classmethod
    def of(cls, source: DataSource, field: str, columns: Mapping[str, str]) -> DocumentReader:
        """Return a reader that has met no fault yet."""
        return cls(source, field, columns, FaultList(field), LeftOut())

    def contents(self, at_most: int | None = None) -> Iterator[tuple[Content, bool]]:
        """Yield what each file holds, or its beginning, and whether it was found in a directory."""
        for path, is_found in find_files(self.source, self.faults, self.left_out, field=self.field):
            with self.faults.collected():
                refuse_other_kinds(path, raw=self.source.format == "raw_text")
                yield read_content(path, at_most), is_found

    def documents(self, content: Content, *, is_found: bool) -> Iterator[Document]:
        """Yield the documents of a file; of its beginning, those that are whole."""
        if self.holds_records(content):
            yield from self._records(content)
            return
        try:
            text = content.text()
        except NotTextError:
            if not is_found:
                raise
            self.left_out.add("that are not UTF-8 text", content.path)
            return
        refuse_columns(content.path, self.columns)
        if self.source.format == "text" and looks_like_records(content):
            raise DataError(
                f"{content.path}: its name says text, and it begins with a JSON object",
                hint="name it *.jsonl or *.json to learn the text in each object, or set format: raw_text to learn it"
                " as it stands",
            )
        if text.strip() or not content.is_whole:
            yield Document(text, where=str(content.path))

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
        is_json = suffix_of(content.path) in JSON_SUFFIXES
        return self.source.format == "prompt_completion" or (self.source.format == "text" and is_json)

    def _records(self, content: Content) -> Iterator[Document]:
        for where, data in record_texts(content):
            with self.faults.collected():
                yield self._document(data, where)

    def _document(self, data: bytes, where: str) -> Document:
        entry, source, field = parse_record(data, where), self.source, self.field
        scores = {score: read_number(entry, key, where) for score, key in self.columns.items()}
        if source.format == "text":
            hint = f"set format: raw_text to learn JSON as it stands, or {field}.text to the key that holds it"
            return Document(read_text(entry, source.text, where, hint), where=where, scores=scores)
        hint = f"set {field}.{{}} in the recipe to the key that holds it"
        prompt = read_text(entry, source.prompt, where, hint.format("prompt"), may_be_empty=True)
        completion = read_text(entry, source.completion, where, hint.format("completion"))
        before, after = source.template.split("{completion}")
        return Document(completion + after, before.replace("{prompt}", prompt), where, scores)


def read_documents(
    source: DataSource, *, field: str, columns: Mapping[str, str] = MappingProxyType({})
) -> list[Document]:
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
    reader, documents = DocumentReader.of(source, field, columns), list[Document]()
    for content, is_found in reader.contents():
        with reader.faults.collected():
            documents += reader.documents(content, is_found=is_found)
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
    digests = [hashlib.sha256(document.whole_text.encode()).hexdigest() for document in documents]
    different = sorted(set(digests))
    if len(different) < 2:
        raise DataError(
            "data.validation.fraction: the training data is a single document, which cannot be split",
            hint="name validation files of their own, or give the training data as several files",
        )
    held = set(different[: min(max(1, round(fraction * len(different))), len(different) - 1)])
    pairs = list(zip(documents, digests, strict=True))
    return [d for d, digest in pairs if digest not in held], [d for d, digest in pairs if digest in held]
