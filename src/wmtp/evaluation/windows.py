"""The text that models are measured on: read as training reads it, cut into windows, and given out in batches."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from pydantic import ValidationError
from torch import Tensor

from wmtp.data.example import Batch
from wmtp.data.kept_rows import kept_rows
from wmtp.data.rows import RowDataset
from wmtp.data.tokenized import Tokenizing, tokenized
from wmtp.errors import DataError, SettingsError
from wmtp.evaluation.options import EvaluationOptions
from wmtp.evaluation.results import Measured
from wmtp.evaluation.sums import Array
from wmtp.faults import faults_error, model_faults
from wmtp.models.targets import IGNORE
from wmtp.settings.data import DataSource

NAME = "data"
_BATCH_TOKENS = 4096


@dataclass(frozen=True, eq=False)
class Windows:
    """Windows of text, and to which unit of resampling each belongs.

    Attributes:
        rows: The windows, in rows.
        units: Of each window, row by row, the number of its unit.
        num_bytes: Of each unit, in UTF-8, what head 1 has to predict; special tokens have none.
        measured: What is said of them.
    """

    rows: RowDataset
    units: Array
    num_bytes: Array
    measured: Measured

    @property
    def num_units(self) -> int:
        """How many units there are."""
        return int(self.units.max()) + 1

    def batches(self, batch_size: int | None) -> Iterator[tuple[Batch, Int[Tensor, "batch seq"]]]:
        """Yield batches, the longest rows first, with the window that each token belongs to."""
        for places in self._places(batch_size):
            batch = self.rows.collate([self.rows[place] for place in places])
            firsts = torch.from_numpy(self.rows.table.layout.bounds[places]).unsqueeze(1)
            # What a packed row is filled up with counts as one more document, and has no target.
            within = batch.get("document_ids", torch.zeros_like(batch["input_ids"]))
            yield batch, (firsts + within).clamp(max=len(self.units) - 1)

    def _places(self, batch_size: int | None) -> Iterator[list[int]]:
        layout = self.rows.table.layout
        lengths = np.add.reduceat(layout.lengths, layout.bounds[:-1])
        place, order = 0, np.argsort(-lengths, kind="stable")
        while place < len(order):
            longest = self.rows.packed_length or int(lengths[order[place]])
            count = batch_size or max(1, _BATCH_TOKENS // longest)
            yield order[place : place + count].tolist()
            place += count

    def where(self, window: int) -> str:
        """Return file and line of a window, for messages."""
        return self.rows.table.example(window).where


@contextmanager
def fields_as_options() -> Iterator[None]:
    """Say of a refusal that names a field of a recipe by which option that is given here."""
    try:
        yield
    except DataError as error:
        in_recipes, hint = f"{NAME}.files: ", error.hint
        is_of_files = error.problem.startswith(in_recipes)
        problem = f"{NAME}: {error.problem.removeprefix(in_recipes)}" if is_of_files else error.problem
        if f"{NAME}." in hint:
            hint += f"; there is no recipe here: fields of {NAME} are --format, --key NAME=VALUE and --max-length"
        raise DataError(problem, hint, error.faults) from error


def read_windows(
    data: Sequence[str | Path], options: EvaluationOptions, tokenizer: Any, cache_dir: str | Path | None
) -> Windows:
    """Read files and cut what they hold into windows.

    Args:
        data: Files, directories, patterns or addresses.
        options: How they are read.
        tokenizer: That of all models.
        cache_dir: Where tokens and fetched files are kept; None: the cache's usual place.

    Raises:
        DataError: With everything in the files that cannot be used.
        SettingsError: If the options do not fit each other.
    """
    source = _source(data, options)
    how = Tokenizing(tokenizer, cache_dir=None if cache_dir is None else str(cache_dir))
    with fields_as_options():
        kept = tokenized(source, NAME, {}, how)
        wanted = np.arange(min(len(kept.store), options.limit or len(kept.store)))
        rows = kept_rows(kept, wanted, source, name=NAME)
    documents = np.unique(rows.table.layout.documents, return_inverse=True)[1]
    num_documents = int(documents.max()) + 1
    is_one = num_documents == 1
    units = np.arange(len(documents)) if is_one else documents
    measured = Measured(
        data=[str(each) for each in data],
        fingerprint=rows.fingerprint(),
        documents=num_documents,
        windows=len(documents),
        tokens=rows.num_tokens,
        targets=rows.num_targets,
        max_length=options.max_length,
        packing=options.packing,
        unit="windows of one document" if is_one else "documents",
    )
    return Windows(rows, units, np.bincount(units, _bytes_of_targets(rows, tokenizer)), measured)


def _bytes_of_targets(rows: RowDataset, tokenizer: Any) -> Array:
    """Return for each window how many bytes of text head 1 has to predict; where a character is cut, to within it."""
    found = []
    for example in rows.examples:
        labels = example.labels[1:]
        ids = labels[labels != IGNORE].tolist()
        text = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        found.append(len(text.encode(errors="replace")))
    return np.array(found)


def _source(data: Sequence[str | Path], options: EvaluationOptions) -> DataSource:
    files = [_pattern(each) for each in data]
    document = {"files": files, "format": options.format, "max_length": options.max_length, "packing": options.packing}
    try:
        return DataSource.model_validate({**document, **(options.keys or {})})
    except ValidationError as error:
        raise faults_error(
            model_faults(error, DataSource),
            where=NAME,
            error=SettingsError,
            hint="format and keys are those of data.train in a recipe: docs/recipe_format.md",
        ) from error


def _pattern(file: str | Path) -> str:
    """Return what names a file; a path is one file, whatever characters are in it."""
    return glob.escape(str(file)) if isinstance(file, Path) else file
