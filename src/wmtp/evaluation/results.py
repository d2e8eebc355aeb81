"""What an evaluation found: figures of each model with their intervals, and differences on the same windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from wmtp.evaluation.calibration import Calibration
from wmtp.evaluation.intervals import Estimate, Resampling
from wmtp.evaluation.shown import Table, as_html, shown
from wmtp.untrusted import plain
from wmtp.wording import counted

_METRICS = ("cross_entropy", "top1", "top5")


@dataclass(frozen=True)
class HeadResult:
    """What one head is worth.

    Attributes:
        head: k, which predicts token t + k at t.
        targets: Tokens that it had to predict.
        cross_entropy: Nats a target.
        perplexity: exp of that.
        top1: Share of targets that are its first choice.
        top5: Share of targets among its first five.
        calibration: Probability of the first choice against how often that is right.
        acceptance: Share of forward passes from which this draft is taken, with all before it; None of head 1.
        draft_calibration: Probability of the draft against how often it is taken once it is reached; None of head 1.
    """

    head: int
    targets: int
    cross_entropy: Estimate
    perplexity: Estimate
    top1: Estimate
    top5: Estimate
    calibration: Calibration
    acceptance: Estimate | None = None
    draft_calibration: Calibration | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {name: _plain_value(value) for name, value in vars(self).items()}


@dataclass(frozen=True)
class ModelResult:
    """What one model is worth.

    Attributes:
        model: Its address.
        dtype: In which it computed.
        heads: Head by head.
        bits_per_byte: Loss of head 1 in bits for each byte of text that it predicts: of another tokenizer it is still
            of the same thing. The end of a text costs bits and has no byte.
        tokens_per_forward: `tau_sim`: 1 and the drafts that a forward pass would add, teacher-forced.
        places: Forward passes that `tokens_per_forward` and acceptance are the mean of: places of which every head has
            a target.
    """

    model: str
    dtype: str
    heads: Sequence[HeadResult]
    bits_per_byte: Estimate
    tokens_per_forward: Estimate
    places: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        heads = [head.to_dict() for head in self.heads]
        return {**{name: _plain_value(value) for name, value in vars(self).items()}, "heads": heads}


@dataclass(frozen=True)
class Difference:
    """By how much a model's figures are above those of the first, on the same windows.

    Attributes:
        model: The model.
        against: The first.
        heads: By the number of a head that both have: its `cross_entropy`, `top1`, `top5`, and beyond head 1
            `acceptance`.
        tokens_per_forward: As of `ModelResult`.
    """

    model: str
    against: str
    heads: dict[int, dict[str, Estimate]]
    tokens_per_forward: Estimate

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        heads = [
            {"head": head, **{name: estimate.to_dict() for name, estimate in found.items()}}
            for head, found in self.heads.items()
        ]
        whole = self.tokens_per_forward.to_dict()
        return {"model": self.model, "against": self.against, "heads": heads, "tokens_per_forward": whole}


@dataclass(frozen=True)
class Measured:
    """On what models were measured.

    Attributes:
        data: The files, as they were named.
        fingerprint: Over tokens, prompts and boundaries of all windows.
        documents: How many.
        windows: Documents, or pieces of long ones, each read by itself.
        tokens: Of all windows.
        targets: Tokens that head 1 had to predict.
        max_length: Tokens of a window at most.
        packing: Whether windows shared rows.
        unit: What is drawn anew for intervals: documents, or pieces where there is one document only.
    """

    data: Sequence[str]
    fingerprint: str
    documents: int
    windows: int
    tokens: int
    targets: int
    max_length: int
    packing: bool
    unit: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {**vars(self), "data": list(self.data)}


@dataclass(frozen=True)
class Evaluation:
    """What models are worth on the same windows of text.

    Attributes:
        measured: The windows.
        models: In the order in which they were named.
        differences: Of every model but the first against the first.
        resampling: How intervals were made.
    """

    measured: Measured
    models: Sequence[ModelResult]
    differences: Sequence[Difference]
    resampling: Resampling

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "measured": self.measured.to_dict(),
            "models": [model.to_dict() for model in self.models],
            "differences": [difference.to_dict() for difference in self.differences],
            "resampling": vars(self.resampling),
        }

    def tables(self) -> list[Table]:
        """Return what a person reads, as text."""
        found = [_of_heads(self.models), _of_drafts(self.models)]
        return [table for table in (*found, _of_differences(self.differences)) if table.rows]

    def notes(self) -> list[str]:
        """Return what has to be known beside the tables."""
        measured, share = self.measured, f"{100 * self.resampling.confidence:g} %"
        counts = {"document": measured.documents, "window": measured.windows, "target": measured.targets}
        size = ", ".join(counted(number, what) for what, number in counts.items())
        is_sure = self.models[0].heads[0].cross_entropy.low is not None
        how = f"in brackets: {share} of {self.resampling.resamples:,} draws of {measured.unit}"
        how = how if is_sure else f"no intervals: they are made by drawing {measured.unit}, and this is one"
        bits = [f"{plain(model.model)}: {shown(model.bits_per_byte, 4)} bits per byte" for model in self.models]
        return [*bits, size, how]

    def _repr_html_(self) -> str:
        return as_html(self.tables(), self.notes())


def _plain_value(value: Any) -> Any:
    return value.to_dict() if isinstance(value, Estimate | Calibration) else value


def _of_heads(models: Sequence[ModelResult]) -> Table:
    rows = [
        (
            plain(model.model), str(head.head), shown(head.cross_entropy, 4), shown(head.perplexity, 2),
            shown(head.top1, 3), shown(head.top5, 3), shown(Estimate(head.calibration.error), 3),
        )
        for model in models for head in model.heads
    ]  # fmt: skip
    return Table(("MODEL", "HEAD", "LOSS (NATS)", "PERPLEXITY", "TOP-1", "TOP-5", "CALIBRATION ERROR"), rows)


def _of_drafts(models: Sequence[ModelResult]) -> Table:
    found = []
    for model in models:
        name, drafts = plain(model.model), model.heads[1:]
        found += [
            (name, f"draft of head {head.head} accepted", shown(cast("Estimate", head.acceptance), 3),
             shown(Estimate(cast("Calibration", head.draft_calibration).error), 3))
            for head in drafts
        ]  # fmt: skip
        if drafts:
            found.append((name, "tokens per forward pass", shown(model.tokens_per_forward, 3), ""))
    return Table(("MODEL", "ACCEPTANCE, TEACHER-FORCED", "", "CALIBRATION ERROR"), found)


def _of_differences(differences: Sequence[Difference]) -> Table:
    found: list[tuple[str, ...]] = []
    for each in differences:
        names = (plain(each.model), plain(each.against))
        for head, metrics in each.heads.items():
            figures = [shown(metrics[name], 4, signed=True) for name in _METRICS]
            accepted = shown(metrics["acceptance"], 4, signed=True) if "acceptance" in metrics else ""
            found.append((*names, str(head), *figures, accepted))
    return Table(("MODEL", "LESS", "HEAD", "LOSS (NATS)", "TOP-1", "TOP-5", "ACCEPTED"), found)
