"""A few facts as a small HTML table: how results show themselves in a notebook, and rows of a report."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from wmtp.untrusted import first_few

_LEFT = 'style="text-align:left;vertical-align:top"'


def html_lines(title: str, lines: Iterable[str]) -> str:
    """Return lines for a person as a table with a title: what stands before a colon is what the rest is about.

    Everything is escaped; after 20 lines the rest is counted.
    """
    rows = "".join(_row(line.strip()) for line in first_few(list(lines)))
    return f"<table><caption {_LEFT}><b>{escape(title)}</b></caption>{rows}</table>"


def html_cells(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table with headers above it and at the begin of each row; everything is escaped."""
    above = "".join(f'<th scope="col">{escape(text)}</th>' for text in headers)
    below = "".join(
        f'<tr><th scope="row">{escape(first)}</th>{"".join(f"<td>{escape(text)}</td>" for text in rest)}</tr>'
        for first, *rest in rows
    )
    return f"<table><thead><tr>{above}</tr></thead><tbody>{below}</tbody></table>"


def _row(line: str) -> str:
    what, colon, said = line.partition(": ")
    if not colon:
        return f'<tr><td colspan="2" {_LEFT}>{escape(line)}</td></tr>'
    return f"<tr><th {_LEFT}>{escape(what)}</th><td {_LEFT}>{escape(said)}</td></tr>"
