"""Commands about runs: plan, train, schema, env, demo."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand
from typing_extensions import override

from wmtp.cli.options import AllowCode, AsJSON, ConfigFile, Directory, RecipeFile, consents
from wmtp.cli.output import Output

if TYPE_CHECKING:
    from wmtp.settings.config import Config
    from wmtp.settings.recipe import Recipe

Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Values that take the place of what the files say, in YAML."),
]


class Document(StrEnum):
    """What `schema` can print."""

    METADATA = "metadata"
    CONFIG = "config"
    RECIPE = "recipe"


class TorchrunCommand(TyperCommand):
    """A command whose line may end in `-- torchrun options`."""

    @override
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Set aside what stands behind `--`; the parser would mix it with the arguments before."""
        split = args.index("--") if "--" in args else len(args)
        ctx.meta["own_args"], ctx.meta["torchrun_options"] = args[:split], args[split + 1 :]
        return super().parse_args(ctx, args[:split])


def plan(
    ctx: typer.Context,
    overrides: Overrides = None,
    *,
    config: ConfigFile,
    recipe: RecipeFile,
    as_json: AsJSON = False,
) -> None:
    """Show which models a run would use and why, bytes and memory."""
    from wmtp.cli.run_plan import plan_run

    out = Output.of(ctx, as_json=as_json)
    found = plan_run(*_settings(config, recipe, overrides))
    out.result(found.to_dict(), found.summary())


def train(  # noqa: PLR0913  each option of the contract is one
    ctx: typer.Context,
    overrides: Overrides = None,
    *,
    config: ConfigFile,
    recipe: RecipeFile,
    allow_code: AllowCode = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint of the run.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Stop after the plan.")] = False,
    as_json: AsJSON = False,
) -> None:
    """Train. Options of torchrun may follow behind '--'."""
    out = Output.of(ctx, as_json=as_json)
    settings = _settings(config, recipe, overrides)
    if dry_run:
        _show_plan(out, settings, _torchrun(ctx))
        return
    if ctx.meta["torchrun_options"]:
        command = _torchrun(ctx)
        sys.stdout.flush()
        os.execv(command[0], command)  # noqa: S606  our own interpreter, and what the operator typed
    out.start_logging()
    import wmtp

    result = wmtp.train(*settings, allow_code=consents(allow_code), resume=resume)
    out.result(result.to_dict(), result.summary())


def _settings(config: Path, recipe: Path, overrides: list[str] | None) -> tuple[Config, Recipe]:
    from wmtp.settings.config import load_config
    from wmtp.settings.recipe import load_recipe, split_overrides

    for_config, for_recipe = split_overrides(overrides or [])
    return load_config(config, for_config), load_recipe(recipe, for_recipe)


def _show_plan(out: Output, settings: tuple[Config, Recipe], command: list[str]) -> None:
    from wmtp.cli.run_plan import plan_run
    from wmtp.errors import TrainingError

    found = plan_run(*settings)
    from wmtp.registry import algorithms

    if untrained := algorithms.get(found.resolution.algorithm).trainable:
        raise TrainingError(untrained, hint="'wmtp plan' shows what the run would use; train.algo: baseline-mtp trains")
    lines = [*found.summary(), *([f"would run {' '.join(command)}"] if command else [])]
    out.result({**found.to_dict(), "command": command}, lines)


def _torchrun(ctx: typer.Context) -> list[str]:
    """Return the command that starts this one in several processes; empty when one process is enough."""
    if not ctx.meta["torchrun_options"]:
        return []
    own = ["-m", "wmtp.cli.main", "train", *ctx.meta["own_args"]]
    return [sys.executable, "-m", "torch.distributed.run", *ctx.meta["torchrun_options"], *own]


def schema(
    ctx: typer.Context, document: Annotated[Document, typer.Argument(metavar="metadata|config|recipe")]
) -> None:
    """Print the JSON Schema of a file, for editors."""
    from wmtp.metadata.file import metadata_json_schema
    from wmtp.settings.config import config_json_schema
    from wmtp.settings.recipe import recipe_json_schema

    schemas = {"metadata": metadata_json_schema, "config": config_json_schema, "recipe": recipe_json_schema}
    Output.of(ctx, as_json=True).result(schemas[document](), [])
