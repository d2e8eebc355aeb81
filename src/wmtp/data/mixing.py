"""Several sources in one epoch, each with its share of the rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wmtp.data.rows import RowDataset
from wmtp.data.token_store import Array


def mixed(rows: RowDataset, weights: Sequence[float], seed: int) -> RowDataset:
    """Return as many rows as there are, of each source so many as its weight says.

    Of a source that has more rows than its share, some are drawn; one that has fewer is gone through several times.
    Which rows are drawn follows from the seed alone, and is the same in every epoch.

    Args:
        rows: Those of all sources; none has documents of two.
        weights: Of the sources, relative to each other; a single one changes nothing.
        seed: That of the run.
    """
    if len(weights) < 2:
        return rows
    table = rows.table
    sources = table.store.records["source"][table.layout.documents[table.layout.bounds[:-1]]]
    places = [np.flatnonzero(sources == number) for number in range(len(weights))]
    counts = shares(len(rows), [weight if len(own) else 0.0 for weight, own in zip(weights, places, strict=True)])
    generator = np.random.default_rng(seed)
    drawn = [_drawn(own, count, generator) for own, count in zip(places, counts, strict=True)]
    return rows.take(np.concatenate(drawn))


def shares(total: int, weights: Sequence[float]) -> list[int]:
    """Divide a number by weights: whole numbers with that sum, the largest remainders rounded up."""
    exact = np.array(weights, dtype=np.float64) / sum(weights) * total
    found = np.floor(exact).astype(int)
    rest = np.argsort(found - exact, kind="stable")[: total - int(found.sum())]
    found[rest] += 1
    return [int(count) for count in found]


def _drawn(places: Array, count: int, generator: np.random.Generator) -> Array:
    """Return so many places: all of them as often as they fit, and at random some once more; in order."""
    if len(places) == 0:
        return places
    times, rest = divmod(count, len(places))
    more = generator.permutation(places)[:rest]
    return np.sort(np.concatenate([np.repeat(places, times), more]))
