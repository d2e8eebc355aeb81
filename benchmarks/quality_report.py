"""Tables from the results of quality.py."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

Record = dict[str, Any]

_VERDICT = ("token_skip", "weighted", "absolute")


def markdown(records: list[Record]) -> str:
    """Return all tables."""
    noise = [record for record in records if record["experiment"] == "noise"]
    reward = [record for record in records if record["experiment"] == "reward"]
    return "\n\n".join([references_table(noise), noise_table(noise), reward_table(reward), gate_lines(reward)])


def references_table(records: list[Record]) -> str:
    """Return a row for each reference strength: its losses, and whether rho1 with it beats both of its rivals."""
    head = "".join(f" {arm} beats uniform, its reference, both |" for arm in _VERDICT)
    rows = ["| reference's budget | its held-out CE, by seed | its CE on random bytes, others |" + head]
    rows.append("|---" * (3 + len(_VERDICT)) + "|")
    for share in _shares(records):
        found = select(records, arm="reference", share=share)
        on_noise, on_text = (mean(record[name] for record in found) for name in ("loss_on_noise", "loss_on_text"))
        verdicts = " | ".join(verdict(records, arm, share) for arm in _VERDICT)
        rows.append(f"| {share:g} | {_each(found, 'held_out_loss')} | {on_noise:.2f}, {on_text:.2f} | {verdicts} |")
    return "\n".join(rows)


def verdict(records: list[Record], arm: str, share: float) -> str:
    """Return in how many seeds an arm has a lower loss than uniform, than its own reference, and than both."""
    found = select(records, arm=arm, share=share)
    wins = [
        [record["held_out_loss"] < rival(records, record, name) for name in ("uniform", "reference")]
        for record in found
    ]
    counts = [sum(won[0] for won in wins), sum(won[1] for won in wins), sum(all(won) for won in wins)]
    return ", ".join(f"{count} of {len(found)}" for count in counts)


def noise_table(records: list[Record]) -> str:
    """Return a row for each arm and reference: losses, shares of the gap won back, and what became of the noise."""
    rows = ["| arm | reference | clean held-out CE, by seed | gap recovered | mean | noise kept | weight on it |"]
    rows.append("|---|---|---|---|---|---|---|")
    for arm in dict.fromkeys(record["arm"] for record in records if record["arm"] != "reference"):
        shares: list[float | None] = [*_shares(select(records, arm=arm))]
        for share in shares or [None]:
            found = select(records, arm=arm, share=share)
            gaps = [recovered(records, record) for record in found]
            kept = [f"{mean(record[name] for record in found):.1%}" for name in ("share_kept", "share_of_weight")]
            each = ", ".join(f"{gap:+.0%}" for gap in gaps)
            label = "" if share is None else f"{share:g}"
            losses = _each(found, "held_out_loss")
            rows.append(f"| {arm} | {label} | {losses} | {each} | {mean(gaps):+.0%} | {' | '.join(kept)} |")
    return "\n".join(rows)


def recovered(records: list[Record], record: Record) -> float:
    """Return which share of the gap between uniform and clean training of its seed an arm has won back."""
    uniform, clean = (rival(records, record, arm) for arm in ("uniform", "clean"))
    return float((uniform - record["held_out_loss"]) / (uniform - clean))


def rival(records: list[Record], record: Record, arm: str) -> float:
    """Return the loss of another arm of the same seed; of a reference that of the same strength."""
    share = record["share"] if arm == "reference" else None
    return float(select(records, arm=arm, seed=record["seed"], share=share)[0]["held_out_loss"])


def reward_table(records: list[Record]) -> str:
    """Return a row for each arm: what each seed answers."""
    columns: dict[str, Callable[[list[Record]], str]] = {
        "first answer right, by seed": lambda found: _each(found, "first_right", ".1%"),
        "all answers right": lambda found: _each(found, "all_right", ".1%"),
        "probability of the right first answer": lambda found: _each(found, "probability"),
        "explained variance: first tenth, last": _explained,
    }
    rows = [f"| arm | {' | '.join(columns)} |", "|---" * (1 + len(columns)) + "|"]
    for arm in dict.fromkeys(record["arm"] for record in records):
        found = select(records, arm=arm)
        rows.append(f"| {arm} | {' | '.join(show(found) for show in columns.values())} |")
    return "\n".join(rows)


def gate_lines(records: list[Record]) -> str:
    """Return what the gate after the first stage said, where it refused to go on."""
    refused = [record for record in records if record.get("gate")]
    return "\n".join(f"- {record['arm']}, seed {record['seed']}: {record['gate']}" for record in refused)


def select(records: Iterable[Record], **wanted: Any) -> list[Record]:
    """Return the records with these values, by seed."""
    found = [record for record in records if wanted.items() <= record.items()]
    return sorted(found, key=lambda record: (record["share"] or 0, record["seed"]))


def mean(values: Iterable[float]) -> float:
    """Return the mean."""
    listed = list(values)
    return sum(listed) / len(listed)


def _shares(records: list[Record]) -> list[float]:
    return sorted({record["share"] for record in records if record["share"] is not None})


def _each(records: list[Record], name: str, form: str = ".3f") -> str:
    return ", ".join(f"{record[name]:{form}}" for record in records)


def _explained(records: list[Record]) -> str:
    curves = [record["explained_variance"] for record in records if record.get("explained_variance")]
    return "; ".join(f"{curve[0]:.2f}, {curve[-1]:.2f}" for curve in curves)
