"""How much data a run has, from sizes of files and their first documents: about, and at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from wmtp.data.documents import DocumentReader
from wmtp.data.files import is_remote, without_remote
from wmtp.run_plan.counting import FileCount, count_file
from wmtp.run_plan.remote_data import count_remote
from wmtp.run_plan.tokens import BYTES_OF_A_TOKEN, TokenCounter, sampled_characters
from wmtp.wording import file_count, size

if TYPE_CHECKING:
    from wmtp.settings.data import Reading
    from wmtp.settings.recipe import Data


@dataclass(frozen=True)
class DataEstimate:
    """About how much there is to train on, without what is held out.

    Attributes:
        num_files: Files of `data.train`.
        stored_bytes: Of those files.
        documents: About how many documents to train on.
        tokens: About how many tokens they have, counting the ends of documents.
        rows: About how many rows these fill.
        row_tokens: About how many tokens of a row are not padding.
        left_out: What directories hold that is not read, and what is not counted; empty: nothing.
        bytes_of_a_token: Bytes of text for each token.
        sampled_bytes: Of text that was tokenized to find that out; 0: it is assumed.
    """

    num_files: int
    stored_bytes: int
    documents: int
    tokens: int
    rows: int
    row_tokens: int
    left_out: str = ""
    bytes_of_a_token: float = BYTES_OF_A_TOKEN
    sampled_bytes: int = 0

    def to_dict(self) -> dict[str, int | float | str | None]:
        """Return the estimate as plain JSON values, with what it assumes."""
        return {**asdict(self), "assumed_bytes_of_a_token": None if self.sampled_bytes else BYTES_OF_A_TOKEN}

    def line(self) -> str:
        """Return the estimate in a line for a person."""
        tokens = f"about {self.tokens:,} tokens in {self.rows:,} rows to train on"
        how = (
            f"as the base model's tokenizer cuts {size(self.sampled_bytes)} of it" if self.sampled_bytes else "assumed"
        )
        files = f"{file_count(self.num_files)}, {size(self.stored_bytes)}"
        return f"data: {files}; {tokens}, at {self.bytes_of_a_token:.3g} bytes a token, {how}"


def estimate_data(
    data: Data, columns: Sequence[str], counter: TokenCounter, cache_dir: str | None = None
) -> DataEstimate:
    """Return about how much data a recipe trains on.

    The beginning of each file is read as a run reads it: its first documents, and whether anything is wrong with them.
    Of what follows only the length is taken. Of files that are elsewhere, names and sizes are listed, and the beginning
    of one is read.

    Args:
        data: The recipe's section.
        columns: Keys that hold a number that the run needs.
        counter: Says how many tokens a sample of the text has.
        cache_dir: As of a run's data.

    Raises:
        DataError: With everything that is wrong with the first documents of each file; or if there is no file.
    """
    same, notes = dict(zip(columns, columns, strict=True)), list[str]()
    parts = [_Part.of(part, same, counter, notes, cache_dir) for part in data.train.parts]
    if data.validation is not None and (local := without_remote(data.validation)).files:
        # Called for its errors: they would end the run once the models are loaded.
        _count_local(DocumentReader.of(local, "data.validation", {}))
    kept = 1 - ((data.validation.fraction if data.validation else None) or 0)
    documents = max(1, round(kept * sum(part.documents for part in parts)))
    tokens = max(1, math.ceil(kept * sum(part.tokens for part in parts)))
    length = data.train.max_length
    rows = math.ceil(tokens / length) if data.train.packing else max(documents, math.ceil(tokens / length))
    files = [file for part in parts for file in part.files]
    text_bytes = sum(file.text_bytes for file in files)
    beside = sum(part.documents * part.of_a_document for part in parts)
    return DataEstimate(
        num_files=sum(file.num_files for file in files),
        stored_bytes=sum(file.stored_bytes for file in files),
        documents=documents,
        tokens=tokens,
        rows=rows,
        row_tokens=min(length, math.ceil(tokens / rows)),
        left_out="; ".join(notes),
        bytes_of_a_token=text_bytes / max(1, sum(part.tokens for part in parts) - beside) or BYTES_OF_A_TOKEN,
        sampled_bytes=sum(part.sampled_bytes for part in parts),
    )


@dataclass(frozen=True)
class _Part:
    """What a source of data has: each has texts of its own kind, so that tokens are measured for each."""

    files: Sequence[FileCount]
    documents: float
    tokens: int
    of_a_document: int
    sampled_bytes: int

    @classmethod
    def of(
        cls, source: Reading, columns: dict[str, str], counter: TokenCounter, notes: list[str], cache_dir: str | None
    ) -> _Part:
        reader = DocumentReader.of(source, "data.train", columns, cache_dir)
        local = DocumentReader.of(without_remote(source), "data.train", columns)
        files = _count_local(local) if local.source.files else []
        if any(map(is_remote, source.files)):
            files += count_remote(reader, notes, sampled_characters(1, 0))
            reader.faults.raise_any()
        notes += [str(local.left_out)] if local.left_out else []
        documents, text_bytes = sum(file.documents for file in files), sum(file.text_bytes for file in files)
        rate = counter.rate([text for file in files for text in file.sample])
        return cls(files, documents, rate.tokens(documents, text_bytes), rate.of_a_document, rate.sampled_bytes)


def _count_local(reader: DocumentReader) -> list[FileCount]:
    files, found = list[FileCount](), list(reader.files())
    for number, file in enumerate(found):
        with reader.faults.collected():
            files.append(count_file(reader, file, sampled_characters(len(found), number)))
    reader.raise_any(has_documents=any(file.documents for file in files))
    return files
