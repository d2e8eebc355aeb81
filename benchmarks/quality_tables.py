"""Tables of the experiments with rewards, and all tables of quality.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from quality_report import Record, each, mean, noise_table, references_table, select

Columns = Mapping[str, Callable[[list[Record]], str]]


def table(records: list[Record], columns: Columns) -> str:
    """Return a row for each arm: its figures, by seed."""
    rows = [f"| arm | {' | '.join(columns)} |", "|---" * (1 + len(columns)) + "|"]
    for arm in dict.fromkeys(record["arm"] for record in records):
        found = select(records, arm=arm)
        rows.append(f"| {arm} | {' | '.join(show(found) for show in columns.values())} |")
    return "\n".join(rows)


def curves(records: list[Record]) -> str:
    """Return the probability of right answers by optimizer step, a row for each arm, the mean of its seeds."""
    watched = [record for record in records if record.get("curve")]
    steps = [point["step"] for point in watched[0]["curve"]] if watched else []
    rows = [f"| probability at step | {' | '.join(map(str, steps))} |", "|---" * (1 + len(steps)) + "|"]
    for arm in dict.fromkeys(record["arm"] for record in watched):
        found = [record["curve"] for record in select(watched, arm=arm)]
        means = [f"{mean(point['probability'] for point in points):.3f}" for points in zip(*found, strict=True)]
        rows.append(f"| {arm} | {' | '.join(means)} |")
    return "\n".join(rows)


def gate_lines(records: list[Record]) -> str:
    """Return what the gate after the first stage said, where it refused to go on."""
    refused = [record for record in records if record.get("gate")]
    return "\n".join(f"- {record['arm']}, seed {record['seed']}: {record['gate']}" for record in refused)


def _passed(records: list[Record]) -> str:
    fitted = [record for record in records if record.get("explained_variance")]
    return f"{sum(not record['gate'] for record in fitted)} of {len(fitted)}" if fitted else ""


def _of_run(records: list[Record], name: str, form: str) -> str:
    # The mean over all looks but the first, at which nothing had been trained with these weights.
    seen = [record["curve"][1:] for record in records if record.get("curve")]
    return ", ".join(f"{mean(point[name] for point in points):{form}}" for points in seen)


def _explained(records: list[Record]) -> str:
    fitted = [record["explained_variance"] for record in records if record.get("explained_variance")]
    return "; ".join(f"{curve[0]:.2f}, {max(curve):.2f}" for curve in fitted)


_REWARD: Columns = {
    "probability of the right first answer, by seed": lambda found: each(found, "probability"),
    "greedily all answers right": lambda found: each(found, "all_right", ".0%"),
    "explained variance: first tenth, best": _explained,
    "the gate lets it pass": _passed,
}
_DECISIONS: Columns = {
    "probability of right answers, by seed": lambda found: each(found, "probability"),
    "nats of the answers of a document right throughout": lambda found: each(found, "nats", ".2f"),
    "effective share of tokens": lambda found: _of_run(found, "effective_share", ".0%"),
    "AUROC of weights": lambda found: _of_run(found, "auroc", ".2f"),
    "explained variance: first tenth, best": _explained,
    "the gate lets it pass": _passed,
}


def markdown(records: list[Record]) -> str:
    """Return all tables of the experiments that have results."""
    noise, reward, decisions = (select(records, experiment=name) for name in ("noise", "reward", "decisions"))
    tables = [references_table(noise), noise_table(noise)] if noise else []
    tables += [table(reward, _REWARD), gate_lines(reward)] if reward else []
    tables += [table(decisions, _DECISIONS), curves(decisions), gate_lines(decisions)] if decisions else []
    return "\n\n".join(tables)
