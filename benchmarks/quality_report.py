"""Tables of the experiment on noise, and what all tables of quality.py are made of."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

Record = dict[str, Any]

_VERDICT = ("token_skip", "weighted", "absolute")


def references_table(records: list[Record]) -> str:
    """Return a row for each reference strength: its losses, and whether rho1 with it beats both of its rivals."""
    head = "".join(f" {arm} beats uniform, its reference, both |" for arm in _VERDICT)
    rows = ["| reference's budget | its held-out CE, by seed | its CE on random bytes, others |" + head]
    rows.append("|---" * (3 + len(_VERDICT)) + "|")
    for share in _shares(records):
        found = select(records, arm="reference", share=share)
        on_noise, on_text = (mean(record[name] for record in found) for name in ("loss_on_noise", "loss_on_text"))
        verdicts = " | ".join(verdict(records, arm, share) for arm in _VERDICT)
        rows.append(f"| {share:g} | {each(found, 'held_out_loss')} | {on_noise:.2f}, {on_text:.2f} | {verdicts} |")
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
            won_back = ", ".join(f"{gap:+.0%}" for gap in gaps)
            label = "" if share is None else f"{share:g}"
            losses = each(found, "held_out_loss")
            rows.append(f"| {arm} | {label} | {losses} | {won_back} | {mean(gaps):+.0%} | {' | '.join(kept)} |")
    return "\n".join(rows)


def recovered(records: list[Record], record: Record) -> float:
    """Return which share of the gap between uniform and clean training of its seed an arm has won back."""
    uniform, clean = (rival(records, record, arm) for arm in ("uniform", "clean"))
    return float((uniform - record["held_out_loss"]) / (uniform - clean))


def rival(records: list[Record], record: Record, arm: str) -> float:
    """Return the loss of another arm of the same seed; of a reference that of the same strength."""
    share = record["share"] if arm == "reference" else None
    return float(select(records, arm=arm, seed=record["seed"], share=share)[0]["held_out_loss"])


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


def each(records: list[Record], name: str, form: str = ".3f") -> str:
    """Return one figure of all records."""
    return ", ".join(f"{record[name]:{form}}" for record in records)
