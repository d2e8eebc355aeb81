"""What may make the losses of runs differ, besides their algorithm."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

from wmtp.report.loose import UNKNOWN, items, mapping, number, text_of, within
from wmtp.report.rules import num_heads, short_prior
from wmtp.report.saved_run import SavedRun
from wmtp.report.texts import visible
from wmtp.wording import counted

_MOST_NAMES = 3
_DIGITS = 12  # of a fingerprint, of which Details has the rest


def settings(run: SavedRun) -> dict[str, str]:
    """Return what a run was given, by name; where two runs have the same words there, they had the same."""
    return {
        "base model": _base(run),
        "training data": _training_data(run),
        "held-out data": _held_out(run),
        "optimizer steps": _steps(run),
        "rows in a step": _rows(run),
        "learning rate": _learning_rate(run),
        "heads trained": str(num_heads(run) or UNKNOWN),
        "head prior": short_prior(run),
        "seed": text_of(within(run.file.recipe, "run", "seed")),
        "computed on": _device(run),
    }


def differing(runs: Sequence[SavedRun]) -> list[str]:
    """Return in which of them runs differ."""
    columns = [settings(run) for run in runs]
    return [name for name in columns[0] if len({column[name] for column in columns}) > 1]


def warning(runs: Sequence[SavedRun]) -> str:
    """Return whether the losses of runs say anything of their algorithms; nothing of a single run."""
    if len(runs) < 2:
        return ""
    if not (names := differing(runs)):
        return "The runs differ in nothing of this but the algorithm and what it needs: their losses can be compared."
    return (
        "Do not compare the losses of these runs: besides the algorithm they differ in"
        f" {', '.join(names)} (rows with ≠). Which algorithm is better they cannot say; for that let runs differ in"
        " train.algo alone, and repeat them with several seeds."
    )


def _base(run: SavedRun) -> str:
    planned = mapping(within(run.file.plan, "models", "base"))
    size = f", {number(planned.get('num_parameters')):,} parameters" if "num_parameters" in planned else ""
    if "uri" in planned:
        return text_of(planned["uri"]) + size
    return ", ".join(map(text_of, items(within(run.file.config, "paths", "models", "base")))) or UNKNOWN


def _training_data(run: SavedRun) -> str:
    planned = mapping(within(run.file.plan, "data"))
    sizes = [f"{planned[what]:,} {what}" for what in ("documents", "tokens") if number(planned.get(what))]
    return ", ".join([_files(within(run.file.recipe, "data", "train")), *sizes, *_fingerprint(run, "train")])


def _held_out(run: SavedRun) -> str:
    given = mapping(within(run.file.recipe, "data", "validation"))
    if not given:
        return "none"
    share = given.get("fraction")
    if isinstance(share, int | float):
        what = f"{share:.2g} of the texts in the files of the training data, kept out of training"
    else:
        what = _files(given)
    return ", ".join([what, *_fingerprint(run, "validation")])


def _files(section: Any) -> str:
    files = [text_of(each) for each in items(within(section, "files"))]
    files += [text_of(each) for source in items(within(section, "sources")) for each in items(within(source, "files"))]
    named = ", ".join(PurePosixPath(each).name for each in files[:_MOST_NAMES])
    return f"{counted(len(files), 'file')} ({named}{', …' if len(files) > _MOST_NAMES else ''})"


def _fingerprint(run: SavedRun, part: str) -> Iterator[str]:
    if isinstance(found := within(run.provenance, "data", part), str):
        yield f"fingerprint {visible(found.removeprefix('sha256:')[:_DIGITS])}"


def _steps(run: SavedRun) -> str:
    done = run.file.result.steps if run.file.result else "not over"
    fitted = number(within(run.file.plan, "cost", "value_steps"))
    return f"{done}" + (f", after {fitted} that trained the value heads alone (stage 1)" if fitted else "")


def _rows(run: SavedRun) -> str:
    cost, planned = mapping(within(run.file.plan, "cost")), mapping(within(run.file.plan, "data"))
    if "rows_in_step" in cost:
        return f"{text_of(cost['rows_in_step'])} of {text_of(planned.get('row_tokens'))} tokens"
    batch, times = (
        text_of(within(run.file.recipe, "train", name))
        for name in ("per_device_train_batch_size", "gradient_accumulation_steps")
    )
    return f"{batch} on each device, {times} times"


def _learning_rate(run: SavedRun) -> str:
    train = mapping(within(run.file.recipe, "train"))
    rate, schedule, share = (text_of(train.get(key)) for key in ("learning_rate", "lr_scheduler_type", "warmup_ratio"))
    return f"{rate} at most, {schedule}, warm-up {share} of the steps"


def _device(run: SavedRun) -> str:
    devices = mapping(within(run.file.config, "devices"))
    return f"{text_of(devices.get('device'))}, {text_of(devices.get('dtype'))}"
