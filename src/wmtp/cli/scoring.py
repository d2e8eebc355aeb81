"""The command `score`: reference losses and rewards of the training data, before a run needs them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import typer

from wmtp.cli.launching import TorchrunCommand, become, environment_of, speaks, torchrun_line
from wmtp.cli.options import AllowCode, AsJSON, ConfigFile, RecipeFile, consents
from wmtp.cli.output import Output
from wmtp.cli.runs import Overrides, read_settings
from wmtp.untrusted import plain

if TYPE_CHECKING:
    from wmtp.scoring.scores import ScoredColumn

_UNITS = {"nll": "nats a token", "reward": "a document", "column": "a document"}


def score(
    ctx: typer.Context,
    overrides: Overrides = None,
    *,
    config: ConfigFile,
    recipe: RecipeFile,
    allow_code: AllowCode = None,
    as_json: AsJSON = False,
) -> None:
    """Compute the reference losses or rewards that a run reads, once, and judge the reference that gives them.

    Options of torchrun may follow behind '--'.
    """
    out = Output.of(ctx, as_json=as_json)
    settings, command = read_settings(config, recipe, overrides), torchrun_line(ctx, out)
    if command:
        from wmtp.run_plan.needs import require_scoring_needs

        # Once, here: otherwise every process would say the same.
        require_scoring_needs(*settings, environment=environment_of(command))
        become(command)
    is_first = speaks(out)
    out.start_logging()
    from wmtp.training.prescoring import score_recipe

    found = score_recipe(*settings, allow_code=consents(allow_code))
    if is_first:
        judged = (line for losses in found.references for line in losses.lines())
        out.result(found.to_dict(), [*_lines(found.columns, settings[1].train.algo), *judged])


def _lines(found: Sequence[ScoredColumn], algorithm: str) -> Iterator[str]:
    if not found:
        yield f"nothing has to be scored before training: {algorithm}, as the recipe has it, reads no such score"
    for column in found:
        yield f"{column.score.name}: mean {column.mean:.4f} {_UNITS[column.score.what]}, {_origin(column)}"
        if column.where:
            yield f"  kept in {plain(column.where)}"


def _origin(column: ScoredColumn) -> str:
    facts: dict[str, Any] = column.to_dict()
    if column.score.what == "column":
        return f"from the key {plain(column.score.column)} of {facts['figures']:,} documents and pieces of documents"
    how = f"computed in {column.seconds:.1f} s" if column.is_computed else "computed before, and read"
    return f"{facts['figures']:,} figures by {plain(column.model)}, {how}"


COMMAND_CLASSES = {"score": TorchrunCommand}
