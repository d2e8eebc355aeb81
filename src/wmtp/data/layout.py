"""Which tokens stand in which row: documents cut to the length of a row and packed, from their lengths alone."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from wmtp.data.token_store import Array, TokenStore

# More open rows pack a little tighter and take longer to search; beyond some dozens nothing is gained.
_MAX_OPEN_ROWS = 32


@dataclass(frozen=True, eq=False)
class Layout:
    """Pieces of documents, row by row.

    Attributes:
        starts: Where each piece begins among all tokens.
        lengths: Its tokens.
        prompts: How many of them, from the start, are read and not learned.
        targets: How many the next-token head learns.
        documents: Which document it is of.
        parts: Whether it is less than that document.
        bounds: Which pieces each row has: those from `bounds[row]` up to `bounds[row + 1]`.
    """

    starts: Array
    lengths: Array
    prompts: Array
    targets: Array
    documents: Array
    parts: Array
    bounds: Array

    @property
    def num_rows(self) -> int:
        """How many rows there are."""
        return len(self.bounds) - 1

    @property
    def token_bounds(self) -> Array:
        """Where each piece begins when pieces follow each other in this order, and where the last one ends."""
        return np.concatenate([[0], np.cumsum(self.lengths, dtype=np.int64)])

    def pieces_of(self, rows: Array) -> Array:
        """Return the places of the pieces of some rows, in their order."""
        firsts, counts = self.bounds[rows], np.diff(self.bounds)[rows]
        ends = np.cumsum(counts)
        total = int(ends[-1]) if len(ends) else 0
        return np.repeat(firsts - (ends - counts), counts) + np.arange(total)

    def rows(self, chosen: Array) -> Layout:
        """Return the layout that has some rows alone, in their order."""
        pieces = self.pieces_of(chosen)
        own = {each.name: getattr(self, each.name)[pieces] for each in fields(self) if each.name != "bounds"}
        return Layout(**own, bounds=np.concatenate([[0], np.cumsum(np.diff(self.bounds)[chosen])]))


def joined(layouts: list[Layout]) -> Layout:
    """Return the rows of several layouts of one store, one after another."""
    if len(layouts) == 1:
        return layouts[0]
    own = {
        each.name: np.concatenate([getattr(layout, each.name) for layout in layouts])
        for each in fields(Layout)
        if each.name != "bounds"
    }
    counts = np.concatenate([np.diff(layout.bounds) for layout in layouts])
    return Layout(**own, bounds=np.concatenate([[0], np.cumsum(counts)]))


def fit(store: TokenStore, documents: Array, max_length: int) -> Layout:
    """Return pieces of documents of at most `max_length` tokens, each one a row.

    A longer text is split into pieces that each stand by themselves; one with a prompt, or a chat, is cut.

    Args:
        store: The documents.
        documents: Places of those that are wanted.
        max_length: Tokens in a row.
    """
    records = store.records[documents]
    lengths, is_chat = records["length"], records["chat"] > 0
    is_cut = is_chat | (records["prompt"] > 0)
    counts = np.where(is_cut, 1, -(-lengths // max_length))
    of = np.repeat(np.arange(len(documents)), counts)
    passed = max_length * (np.arange(len(of)) - np.repeat(np.cumsum(counts) - counts, counts))
    long = np.minimum(max_length, lengths[of] - passed)
    prompts = np.minimum(records["prompt"][of], max_length)
    targets = np.maximum(0, long - np.maximum(1, prompts))
    begins = store.starts[documents][of] + passed
    parts = long < lengths[of]
    if store.learned is not None:
        targets = np.where(is_chat[of], records["targets"][of], targets)
        for place in np.flatnonzero(parts & is_chat[of]):
            targets[place] = store.learned[int(begins[place]) + 1 : int(begins[place] + long[place])].sum()
    own = (begins, long.astype("<i4"), prompts.astype("<i4"), targets.astype("<i4"), documents[of], parts)
    return Layout(*own, bounds=np.arange(len(of) + 1))


def pack(layout: Layout, length: int) -> Layout:
    """Return the pieces in rows of `length` tokens.

    Each piece goes into the first open row that has room; the fullest row is closed when too many are open.
    """
    rows = np.array(_places(layout.lengths.tolist(), length), dtype=np.int64)
    order = np.argsort(rows, kind="stable")
    own = {each.name: getattr(layout, each.name)[order] for each in fields(layout) if each.name != "bounds"}
    counts = np.bincount(rows)
    return Layout(**own, bounds=np.concatenate([[0], np.cumsum(counts)]))


def _places(lengths: list[int], length: int) -> list[int]:
    places, rows = [], 0
    room: dict[int, int] = {}  # of the open rows
    for tokens in lengths:
        if tokens == length:  # fits into none, and fills its own
            places.append(rows)
            rows += 1
            continue
        place = next((row for row, free in room.items() if free >= tokens), rows)
        if place == rows:
            rows += 1
            room[place] = length
        room[place] -= tokens
        places.append(place)
        if room[place] == 0 or len(room) > _MAX_OPEN_ROWS:
            del room[min(room, key=lambda row: room[row])]
    return places
