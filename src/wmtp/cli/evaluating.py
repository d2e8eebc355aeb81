"""The command that measures models on text, or on programming tasks: evaluate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wmtp.cli.options import AsJSON, takes_load_options
from wmtp.cli.output import Output, table
from wmtp.settings.loading import LoadKeywords

if TYPE_CHECKING:
    from wmtp.evaluation.results import Evaluation
    from wmtp.evaluation.task_results import TaskEvaluation

_OF_DATA = ("format", "keys", "max_length", "packing")
_OF_TASKS = ("samples", "k", "temperature", "max_new_tokens", "template", "allow_code_execution")


class Format(StrEnum):
    """What files hold."""

    TEXT = "text"
    RAW_TEXT = "raw_text"
    PROMPT_COMPLETION = "prompt_completion"
    CHAT = "chat"


def _key(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise typer.BadParameter(f"{text!r} is not NAME=VALUE, as in prompt=text")
    return name, value


def _ks(text: str) -> list[int]:
    try:
        return [int(each) for each in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a list of numbers, as 1,10") from None


Models = Annotated[
    list[str], typer.Argument(metavar="MODEL...", help="Checkpoints; the first is what others are compared with.")
]
Data = Annotated[
    list[str] | None,
    typer.Option("--data", metavar="FILE", help="Text to measure on: a file, directory or pattern; may be repeated."),
]
Tasks = Annotated[Path | None, typer.Option("--tasks", metavar="FILE", help="Programming tasks, for pass@k.")]
Keys = Annotated[
    list[str] | None,
    typer.Option(
        "--key", metavar="NAME=VALUE", help="A key of data.train in a recipe, as prompt=text; may be repeated."
    ),
]


@takes_load_options
def evaluate(  # noqa: PLR0913  each option of the contract is one
    ctx: typer.Context,
    models: Models,
    *,
    data: Data = None,
    format: Annotated[Format, typer.Option("--format", help="What the files hold.")] = Format.TEXT,  # noqa: A002
    keys: Keys = None,
    max_length: Annotated[int, typer.Option("--max-length", min=2, help="Tokens of a window.")] = 1024,
    packing: Annotated[bool, typer.Option("--packing", help="Several windows in a row; figures are the same.")] = False,
    tasks: Tasks = None,
    samples: Annotated[int, typer.Option("--samples", min=1, help="Answers to each task.")] = 1,
    k: Annotated[str, typer.Option("--k", metavar="K,...", help="For which k pass@k is wanted.")] = "1",
    temperature: Annotated[
        float | None, typer.Option("--temperature", min=0, help="Of sampling; without it 0 for one sample, else 0.8.")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", min=1, help="Tokens of an answer at most.")] = 512,
    template: Annotated[
        str | None, typer.Option("--template", help="What a model reads for a task, with {prompt} and {tests}.")
    ] = None,
    allow_code_execution: Annotated[
        bool, typer.Option("--allow-code-execution", help="Agree to run the programs that models write.")
    ] = False,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", min=1, help="Rows, or answers, that a model computes at once.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Take this many documents, or tasks, from the first.")
    ] = None,
    resamples: Annotated[int, typer.Option("--resamples", min=1, help="Draws for the intervals.")] = 1000,
    confidence: Annotated[
        float, typer.Option("--confidence", help="The share of draws that an interval holds.")
    ] = 0.95,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of these draws, and of sampling.")] = 0,
    options: LoadKeywords,
    as_json: AsJSON = False,
) -> None:
    """Measure models: losses, shares and acceptance of every head on text, or pass@k on programming tasks."""
    out = Output.of(ctx, as_json=as_json)
    if (tasks is None) == (not data):
        ctx.fail("name what to measure on: --data or --tasks, one of the two")
    _refuse(ctx, _OF_TASKS if tasks is None else _OF_DATA, "--data" if tasks is None else "--tasks")
    common: Any = {**options, "limit": limit, "resamples": resamples, "confidence": confidence, "seed": seed}
    out.start_logging()
    own: dict[str, Any]
    if tasks is None:
        own = {"format": format.value, "keys": dict(map(_key, keys or [])), "max_length": max_length}
        found: Any = _measured(models, data or [], {**common, **own, "packing": packing, "batch_size": batch_size})
    else:
        own = {"k": _ks(k), "samples": samples, "temperature": temperature, "max_new_tokens": max_new_tokens}
        size = {} if batch_size is None else {"batch_size": batch_size}
        wanted = {**common, **own, **size, "template": template}
        found = _solved(models, tasks, wanted, allow_code_execution=allow_code_execution)
        _say_confinement(out, found)
    out.result(found.to_dict(), _lines(found))


def _refuse(ctx: typer.Context, others: Sequence[str], given: str) -> None:
    """Refuse options that would change nothing."""
    options = {parameter.name: parameter.opts[0] for parameter in ctx.command.params}
    for name in others:
        source = ctx.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            ctx.fail(f"{options[name]} changes nothing with {given}: leave it out")


def _measured(models: Sequence[str], data: Sequence[str], options: dict[str, Any]) -> Evaluation:
    _open(models, options)
    from wmtp.evaluation.texts import evaluate

    return evaluate(models, data, **options)


def _solved(
    models: Sequence[str], tasks: Path, options: dict[str, Any], *, allow_code_execution: bool
) -> TaskEvaluation:
    _open(models, options)
    from wmtp.evaluation.solving import evaluate_tasks

    return evaluate_tasks(models, tasks, allow_code_execution=allow_code_execution, **options)


def _open(models: Sequence[str], options: dict[str, Any]) -> None:
    # Most mistakes show before torch is imported.
    from wmtp.checkpoint.contents import open_checkpoint

    for uri in models:
        open_checkpoint(uri, allow_symlinks=options["allow_symlinks"], cache=options["cache"])


def _say_confinement(out: Output, found: TaskEvaluation) -> None:
    lacking = {name for model in found.models for name in model.unconfined()}
    if lacking:
        out.say(
            f"warning: this system did not let programs be held in all ways: {', '.join(sorted(lacking))} is false;"
            " docs/code_execution.md says what that means"
        )


def _lines(found: Evaluation | TaskEvaluation) -> Iterator[str]:
    for each in found.tables():
        yield from table(each.rows, each.headers)
        yield ""
    yield from found.notes()
