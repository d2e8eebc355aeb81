"""Writing a store of tokens, in memory or in a directory."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wmtp.data.encoding import Encoded
from wmtp.data.token_directory import FACTS_FILE, LEARNED_FILE, RECORDS_FILE, TOKENS_FILE
from wmtp.data.token_store import Array, NumberFile, TokenStore, place_of, record_type


class StoreWriter:
    """Takes the tokens of documents in their order.

    Args:
        directory: Where they go; None: they stay in memory.
        files: Names of the files that the documents are from; others are added as they come.
        scores: Names of the numbers that documents have.
        masks: Whether it is said of each token if it is learned.
    """

    def __init__(self, directory: Path | None, files: Sequence[str], scores: Sequence[str], *, masks: bool) -> None:
        self._directory, self._files, self._scores = directory, list(files), scores
        self._tokens = _Column(directory and directory / TOKENS_FILE, "<i4")
        self._learned = _Column(directory and directory / LEARNED_FILE, "u1") if masks else None
        self._records: list[Array] = []
        self._numbers = {name: number for number, name in enumerate(self._files)}

    @property
    def num_documents(self) -> int:
        """How many documents there are so far."""
        return sum(map(len, self._records))

    def add(self, encoded: Encoded, source: int, places: Sequence[str]) -> None:
        """Take documents; `places` are file, and line or row, of each."""
        self._tokens.add(encoded.tokens)
        if self._learned is not None and encoded.learned is not None:
            self._learned.add(encoded.learned)
        self.add_records(encoded.records, source, places)

    def add_tokens(self, tokens: Array) -> None:
        """Take tokens of a document whose record comes later."""
        self._tokens.add(tokens)
        if self._learned is not None:
            self._learned.add(np.ones(len(tokens), "u1"))

    def add_records(self, records: Array, source: int, places: Sequence[str]) -> None:
        """Take what is known of documents whose tokens are there."""
        found = [self._place(place) for place in places]
        records["source"] = source
        records["file"] = [file for file, _, _ in found]
        records["line"], records["column"] = [line for _, line, _ in found], [column for _, _, column in found]
        self._records.append(records)

    def finish(self) -> TokenStore:
        """Return the store; in a directory it is on the disk by then."""
        records = np.concatenate([*self._records, np.zeros(0, record_type(self._scores))])
        if self._directory is not None:
            with (self._directory / RECORDS_FILE).open("wb") as file:
                np.save(file, records)
                _settle(file)
            facts = {"tokens": len(self._tokens), "documents": len(records), "learned": self._learned is not None}
            with (self._directory / FACTS_FILE).open("w", encoding="utf-8") as file:
                json.dump({**facts, "scores": list(self._scores), "files": self._files}, file, indent=1)
                _settle(file)
        learned = self._learned.finish() if self._learned is not None else None
        return TokenStore(self._tokens.finish(), records, learned, list(self._files))

    def _place(self, where: str) -> tuple[int, int, int]:
        name, line, column = place_of(where)
        if name not in self._numbers:
            self._numbers[name] = len(self._files)
            self._files.append(name)
        return self._numbers[name], line, column


class _Column:
    """Numbers of one type that follow one another."""

    def __init__(self, path: Path | None, dtype: str) -> None:
        self._path, self._dtype, self._size = path, dtype, 0
        self._parts: list[Array] = []
        self._file = path.open("wb") if path else None

    def __len__(self) -> int:
        return self._size

    def add(self, numbers: Array) -> None:
        self._size += len(numbers)
        if self._file is None:
            self._parts.append(numbers)
        else:
            self._file.write(numbers.astype(self._dtype, copy=False).tobytes())

    def finish(self) -> NumberFile | Array:
        if self._path is None or self._file is None:
            return np.concatenate([*self._parts, np.zeros(0, self._dtype)])
        _settle(self._file)
        self._file.close()
        return NumberFile(self._path, self._dtype)


def _settle(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())
