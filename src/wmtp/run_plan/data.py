"""How much data a run has, from sizes of files and their first lines: about, and at once."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wmtp.data.columns import read_number, refuse_columns
from wmtp.data.documents import find_files
from wmtp.errors import DataError
from wmtp.untrusted import MAX_INDEX_BYTES, JSONFault, did_you_mean, parse_json, show, show_all
from wmtp.wording import size

if TYPE_CHECKING:
    from wmtp.settings.data import DataSource
    from wmtp.settings.recipe import Data

# Of English and of code with vocabularies of 32,000 to 150,000 tokens; a small vocabulary has shorter tokens.
BYTES_OF_A_TOKEN = 4
_SAMPLED_BYTES = 1 << 16


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
    """

    num_files: int
    stored_bytes: int
    documents: int
    tokens: int
    rows: int
    row_tokens: int

    def to_dict(self) -> dict[str, int]:
        """Return the estimate as plain JSON values, with what it assumes."""
        return {**asdict(self), "assumed_bytes_of_a_token": BYTES_OF_A_TOKEN}

    def line(self) -> str:
        """Return the estimate in a line for a person."""
        files = f"{self.num_files} file{'s' if self.num_files > 1 else ''}, {size(self.stored_bytes)}"
        tokens = f"about {self.tokens:,} tokens in {self.rows:,} rows to train on"
        return f"data: {files}; {tokens}, at {BYTES_OF_A_TOKEN} bytes a token"


def estimate_data(data: Data, columns: Sequence[str]) -> DataEstimate:
    """Return about how much data a recipe trains on.

    Reads the first lines of JSONL files: how much of a line is text, and whether the keys are there. The lengths of
    all files are taken, their content is not.

    Args:
        data: The recipe's section.
        columns: Keys that hold a number that the run needs.

    Raises:
        DataError: If a pattern matches no file, or the first line of a JSONL file lacks a key.
    """
    keys = {data.train.text: "data.train.text"} if data.train.format == "text" else _pair(data.train)
    counted = [_count(path, data.train, keys, columns) for path, _ in find_files(data.train, "data.train")]
    if data.validation is not None and data.validation.files:
        # Called for its error: a pattern that matches nothing would end the run once the models are loaded.
        list(find_files(data.validation, "data.validation"))
    kept = 1 - ((data.validation.fraction if data.validation else None) or 0)
    documents = max(1, round(kept * sum(number for _, number, _ in counted)))
    tokens = documents + math.ceil(kept * sum(text for _, _, text in counted) / BYTES_OF_A_TOKEN)
    length = data.train.max_length
    rows = math.ceil(tokens / length) if data.train.packing else max(documents, math.ceil(tokens / length))
    row_tokens = min(length, math.ceil(tokens / rows))
    return DataEstimate(len(counted), sum(stored for stored, _, _ in counted), documents, tokens, rows, row_tokens)


def _pair(source: DataSource) -> dict[str, str]:
    return {source.prompt: "data.train.prompt", source.completion: "data.train.completion"}


def _count(path: Path, source: DataSource, keys: Mapping[str, str], columns: Sequence[str]) -> tuple[int, float, float]:
    """Return bytes of a file, about how many documents it has, and about how many bytes of text."""
    stored = path.stat().st_size
    if source.format == "text" and path.suffix != ".jsonl":
        refuse_columns(path, dict(zip(columns, columns, strict=True)))
        return stored, 1, stored
    sampled = list(_first_entries(path))
    for number, _, entry in sampled[:1]:
        _require(entry, keys, columns, f"{path}:{number}")
    line_bytes = sum(length for _, length, _ in sampled)
    text_bytes = sum(len(str(entry.get(key, "")).encode()) for _, _, entry in sampled for key in keys)
    documents = stored * len(sampled) / max(line_bytes, 1)
    return stored, documents, stored * text_bytes / max(line_bytes, 1)


def _first_entries(path: Path) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Yield number, length in bytes and content of the first lines of a JSONL file."""
    taken = 0
    with path.open("rb") as file:
        for number in count(1):
            line = file.readline(MAX_INDEX_BYTES + 1)
            taken += len(line)
            if line.strip():
                yield number, len(line), _entry(line, f"{path}:{number}")
            if not line or taken > _SAMPLED_BYTES:
                return


def _entry(line: bytes, where: str) -> dict[str, Any]:
    try:
        entry = parse_json(line.removeprefix(b"\xef\xbb\xbf"), max_bytes=MAX_INDEX_BYTES)
    except JSONFault as fault:
        raise DataError(f"{where}: {fault}", hint="mend the line, or remove it") from fault
    if not isinstance(entry, dict):
        raise DataError(f"{where}: expected a JSON object, found {show(entry)}", hint="write one object a line")
    return entry


def _require(entry: Mapping[str, Any], keys: Mapping[str, str], columns: Sequence[str], where: str) -> None:
    for key, field in keys.items():
        if key not in entry:
            raise DataError(
                f"{where}: the key {show(key)} is missing; keys found: {', '.join(show_all(entry)) or 'none'}",
                hint=f"set {field} in the recipe to the key that holds it{did_you_mean(key, entry)}",
            )
    for key in columns:
        read_number(entry, key, where)
