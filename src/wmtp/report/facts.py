"""What was run, side by side: a table with a column for each run."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from wmtp.html_table import html_cells
from wmtp.report.loose import UNKNOWN, items, mapping, text_of, within
from wmtp.report.rules import algorithm_of
from wmtp.report.saved_run import SavedRun
from wmtp.report.settings import differing, settings
from wmtp.report.texts import visible

_ROLES = {"ref": "reference model", "rm": "reward model"}
_FEW_VALIDATIONS = 2  # before and after: which is the lower needs no row


def overview(runs: Sequence[SavedRun]) -> str:
    """Return the runs side by side, a column for each; rows in which they differ, and should not, have a mark."""
    columns = [dict(_summary(run)) for run in runs]
    rows = dict.fromkeys(name for column in sorted(columns, key=len, reverse=True) for name in column)
    marked = {name: f"≠ {name}" for name in differing(runs)}
    names = ["", *(visible(run.name) for run in runs)]
    cells = ([marked.get(row, row), *(column.get(row, UNKNOWN) for column in columns)] for row in rows)
    return html_cells(names, cells)


def _summary(run: SavedRun) -> Iterator[tuple[str, str]]:
    yield "algorithm", algorithm_of(run)
    yield "other models, rewards", ", ".join(_other_models(run)) or UNKNOWN
    yield from settings(run).items()
    outcome = run.file.result
    yield "time", f"{outcome.seconds:,.0f} s" if outcome else UNKNOWN
    yield from _losses(run.log)
    validations = sum("eval_ce_1" in entry for entry in run.log)
    if outcome and outcome.best_step is not None and validations > _FEW_VALIDATIONS:
        yield "held-out cross-entropy of head 1 lowest after step", str(outcome.best_step)
    if outcome and outcome.explained_variance is not None:
        yield "after stage 1: share of the reward's variance that value heads explain", _explained(run)


def _other_models(run: SavedRun) -> Iterator[str]:
    for role, model in mapping(within(run.file.plan, "models")).items():
        if role != "base":
            yield f"{_ROLES.get(role, visible(role))}: {text_of(within(model, 'uri'))}"
    for score in items(within(run.file.plan, "scores")):
        if column := within(score, "column"):
            yield f"{text_of(within(score, 'name'))}: the column {text_of(column)} of the data"


def _explained(run: SavedRun) -> str:
    assert run.file.result is not None
    shares = [share for share in run.file.result.explained_variance or [] if math.isfinite(share)]
    if not shares:
        return UNKNOWN
    best = max(range(len(shares)), key=shares.__getitem__)
    return (
        f"{shares[0]:.2f} at the begin of a text, at most {shares[best]:.2f} ({best + 1} of {len(shares)} equal parts),"
        f" {shares[-1]:.2f} at its end; 1 is all of it, 0 none; of texts that the heads were not fitted on"
    )


def _losses(log: Sequence[Mapping[str, float]]) -> Iterator[tuple[str, str]]:
    measured = [entry for entry in log if "eval_ce_1" in entry]
    source, prefix = ("held-out", "eval_ce_") if measured else ("training", "ce_")
    entries = measured or [entry for entry in log if "ce_1" in entry]
    for name in sorted(name for name in (entries[0] if entries else ()) if name.startswith(prefix)):
        first, last = entries[0][name], entries[-1].get(name, math.nan)
        yield f"head {name.removeprefix(prefix)}: {source} cross-entropy (nats)", f"{first:.3f} → {last:.3f}"
