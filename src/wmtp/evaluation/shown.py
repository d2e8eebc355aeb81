"""Tables as people read them: in a terminal, and in a notebook."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from wmtp.evaluation.intervals import Estimate
from wmtp.html_table import html_cells


class Table(NamedTuple):
    """Rows of text under headers."""

    headers: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def shown(estimate: Estimate, digits: int, *, signed: bool = False) -> str:
    """Return a figure with its interval, as text: `2.3451 [2.3112, 2.3803]`."""
    if not math.isfinite(estimate.value):
        return "-"
    form = f"{'+' if signed else ''}.{digits}f"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:{form}}"
    return f"{estimate.value:{form}} [{estimate.low:{form}}, {estimate.high:{form}}]"


def as_html(tables: Sequence[Table], notes: Sequence[str]) -> str:
    """Return tables and notes for a notebook; whatever a stranger wrote is escaped."""
    parts = [html_cells(table.headers, table.rows) for table in tables]
    return "".join([*parts, *(f"<p>{escape(note)}</p>" for note in notes)])
