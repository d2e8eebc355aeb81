"""Which documents are in which row, kept beside their tokens, with what a pass over all of them has found out."""

from __future__ import annotations

import hashlib
import io
import logging
import zipfile
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wmtp.data.layout import Layout
from wmtp.data.row_table import Figures, Known, RowTable
from wmtp.data.rows import RowDataset, arrange
from wmtp.data.token_cache import KeptStore, digest_of
from wmtp.data.token_store import Array
from wmtp.errors import StorageError
from wmtp.storage.replace import replace_file

if TYPE_CHECKING:
    from wmtp.settings.data import DataSource

logger = logging.getLogger("wmtp")

_FORMAT = 1


def kept_rows(kept: KeptStore, documents: Array, source: DataSource, *, name: str) -> RowDataset:
    """Return documents in rows, as `arrange` does; where their tokens are kept the arrangement is kept with them.

    Args:
        kept: The tokens.
        documents: Places of the documents that are wanted.
        source: How long rows are, and whether documents share them.
        name: What the data is called in messages: `data.train`.

    Raises:
        DataError: If no document has anything to learn.
    """
    if kept.directory is None:
        return arrange(kept.store, documents, source, name=name)
    chosen = "all" if len(documents) == len(kept.store) else hashlib.sha256(documents.tobytes()).hexdigest()
    key = [_FORMAT, chosen, source.max_length]
    path = kept.directory / f"rows-{digest_of([*key, source.packing])[:32]}.npz"
    length = source.max_length if source.packing else None
    if (found := _read(path, kept)) is not None:
        rows = RowDataset(found, length)
        logger.info("%s: %d tokens (%d to learn) in %d rows", name, rows.num_tokens, rows.num_targets, len(rows))
        return rows
    arranged = arrange(kept.store, documents, source, name=name).table
    known = Known(arranged.fingerprint(), arranged.largest_token())
    _write(path, arranged.layout, known)
    return RowDataset(replace(arranged, known=known), length)


def _read(path: Path, kept: KeptStore) -> RowTable | None:
    try:
        with np.load(path) as found:
            layout = Layout(**{each.name: found[each.name] for each in fields(Layout)})
            known = Known(str(found["fingerprint"]), int(found["largest_token"]))
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):
        return None
    scores = {of: Figures(values[layout.documents], per_token=False) for of, values in kept.store.scores.items()}
    return RowTable(kept.store, layout, scores, known)


def _write(path: Path, layout: Layout, known: Known) -> None:
    data = io.BytesIO()
    arrays = {each.name: getattr(layout, each.name) for each in fields(Layout)}
    np.savez(data, **arrays, fingerprint=np.array(known.fingerprint), largest_token=np.array(known.largest_token))
    try:
        replace_file(path, data.getvalue())
    except StorageError as error:
        logger.warning("%s: not kept, and made again next time: %s", path, error.problem)
