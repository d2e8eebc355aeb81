"""What was run, side by side: a table with a column for each run."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from wmtp.html_table import html_cells
from wmtp.report.loose import UNKNOWN, mapping, text_of, within
from wmtp.report.saved_run import SavedRun
from wmtp.report.texts import visible


def overview(runs: Sequence[SavedRun]) -> str:
    """Return the runs side by side, a column for each."""
    columns = [dict(_summary(run)) for run in runs]
    rows = dict.fromkeys(name for column in sorted(columns, key=len, reverse=True) for name in column)
    names = ["", *(visible(run.name) for run in runs)]
    return html_cells(names, ([row, *(column.get(row, UNKNOWN) for column in columns)] for row in rows))


def _summary(run: SavedRun) -> Iterator[tuple[str, str]]:
    recipe, outcome = run.file.recipe, run.file.result
    algorithm = within(recipe, "train", "algo")
    yield "algorithm", text_of(algorithm)
    yield "its settings", _settings(recipe)
    for role, uri in _models(run):
        yield f"{role} model", uri
    yield "optimizer steps", str(outcome.steps) if outcome else "not over"
    yield "time", f"{outcome.seconds:,.0f} s" if outcome else UNKNOWN
    yield from _losses(run.log)
    if outcome and outcome.best_step is not None:
        yield "next-token cross-entropy lowest after step", str(outcome.best_step)
    last = next((entry for entry in reversed(run.log) if "weight_share_kept" in entry), {})
    for name, what in (("share_kept", "pairs of token and head with a weight"), ("effective_share", "effective share")):
        if f"weight_{name}" in last:
            yield f"{what}, last logged", f"{last[f'weight_{name}']:.2f}"
    if outcome and outcome.explained_variance is not None:
        best = max((share for share in outcome.explained_variance if math.isfinite(share)), default=math.nan)
        yield "of the reward's variance, value heads explain up to", f"{best:.2f}"


def _settings(recipe: Mapping[str, Any]) -> str:
    known = ("run", "data", "mtp", "train", "loss")
    own = {
        name: value for section in recipe if section not in known for name, value in mapping(recipe[section]).items()
    }
    return ", ".join(f"{visible(name)}: {text_of(value)}" for name, value in own.items()) or "none"


def _models(run: SavedRun) -> Iterator[tuple[str, str]]:
    if planned := mapping(within(run.file.plan, "models")):
        yield from ((role, text_of(within(planned, role, "uri"))) for role in planned)
        return
    for role, uris in mapping(within(run.file.config, "paths", "models")).items():
        if uris:
            yield role, ", ".join(map(text_of, uris))


def _losses(log: Sequence[Mapping[str, float]]) -> Iterator[tuple[str, str]]:
    measured = [entry for entry in log if "eval_ce_1" in entry]
    source, prefix = ("held-out", "eval_ce_") if measured else ("training", "ce_")
    entries = measured or [entry for entry in log if "ce_1" in entry]
    for name in sorted(name for name in (entries[0] if entries else ()) if name.startswith(prefix)):
        first, last = entries[0][name], entries[-1].get(name, math.nan)
        yield f"head {name.removeprefix(prefix)}: {source} cross-entropy (nats)", f"{first:.3f} → {last:.3f}"
