"""The program `wmtp`: its options, its commands, and how it ends.

Exit status 0: fine. 1: what was asked for failed, or what was checked is not valid. 2: wrong usage. 130: interrupted.
143: ended by SIGTERM, a training run after its step.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typing_extensions import override

from wmtp import __version__
from wmtp.cli.output import Output, hush_other_libraries
from wmtp.cli.progress import TransferBars
from wmtp.cli.summaries import SUMMARIES
from wmtp.errors import WmtpError
from wmtp.extras import refuse_missing

# Every command is a function of its name in one of these modules, in the order in which help lists them.
COMMANDS = {
    **dict.fromkeys(("ls", "inspect"), "wmtp.cli.models"),
    "validate": "wmtp.cli.proving",
    "load": "wmtp.cli.models",
    "diff": "wmtp.cli.comparing",
    **dict.fromkeys(("init", "upgrade", "grow", "export"), "wmtp.cli.making"),
    "convert": "wmtp.cli.converting",
    "trust": "wmtp.cli.consent",
    **dict.fromkeys(("fetch", "push"), "wmtp.cli.moving"),
    "cache": "wmtp.cli.caching",
    "lock": "wmtp.cli.locking",
    "plan": "wmtp.cli.runs",
    "score": "wmtp.cli.scoring",
    "train": "wmtp.cli.runs",
    "evaluate": "wmtp.cli.evaluating",
    "generate": "wmtp.cli.generating",
    "report": "wmtp.cli.reporting",
    "selftest": "wmtp.cli.selftest",
    **dict.fromkeys(("schema", "env", "demo"), "wmtp.cli.runs"),
    **dict.fromkeys(("explain", "completion"), "wmtp.cli.helping"),
}


class Commands(TyperGroup):
    """The group of all commands; turns errors into a message and exit status 1.

    A command is built when it is asked for: building all of them at every start would cost a tenth of it.
    """

    @override
    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of all commands."""
        return list(COMMANDS)

    @override
    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return the command of that name, or None."""
        if cmd_name not in COMMANDS:
            return None
        module = import_module(COMMANDS[cmd_name])
        if group := getattr(module, "GROUPS", {}).get(cmd_name):
            return typer.main.get_command(group)
        command_class = getattr(module, "COMMAND_CLASSES", {}).get(cmd_name)
        single = typer.Typer(add_completion=False, **_PLAIN)
        single.command(cmd_name, cls=command_class)(getattr(module, cmd_name))
        return typer.main.get_command(single)

    @override
    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the list of commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(SUMMARIES.items()))

    @override
    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command that the line begins with; an unknown one is wrong usage."""
        if args[0] not in COMMANDS:
            from wmtp.untrusted import did_you_mean, show

            ctx.fail(f"no such command {show(args[0])}{did_you_mean(args[0], COMMANDS)}")
        return super().resolve_command(ctx, args)

    @override
    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        try:
            return _invoked(super().invoke, ctx)
        except BrokenPipeError:
            raise  # the reader of our output has left; typer ends quietly
        except KeyboardInterrupt as error:
            if not error.args:  # whoever has said already how to go on gives a word with it
                ctx.ensure_object(Output).say(
                    "interrupted; what was there before is whole, and nothing half done has a final name"
                )
            raise typer.Exit(130) from None
        except WmtpError as error:
            failure = error
        except OSError as error:
            place = f"{error.filename}: " if error.filename else ""
            failure = WmtpError(f"{place}{error.strerror or error}", hint="check the path and its permissions")
            failure.__cause__ = error
        ctx.ensure_object(Output).fail(failure)
        raise typer.Exit(1)


def _invoked(invoke: Callable[[Any], Any], ctx: Any) -> Any:
    """Run a command; of a package that an extra brings, one sentence says so."""
    try:
        return invoke(ctx)
    except ModuleNotFoundError as error:
        refuse_missing(error)
        raise


# rich would cost 0.1 s before the first word appears.
_PLAIN: dict[str, Any] = {"rich_markup_mode": None, "pretty_exceptions_enable": False}
app = typer.Typer(
    cls=Commands,
    help="Checkpoints that declare how they load, and weighted multi-token prediction training on top.",
    no_args_is_help=True,
    **_PLAIN,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"wmtp {__version__}")
        raise typer.Exit


@app.callback()
def options(
    ctx: typer.Context,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print results and errors only.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Print the traceback of an error.")] = False,
    version: Annotated[  # noqa: ARG001  its callback does it, before a command is asked for
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Take the options that stand before the command."""
    output = Output.of(ctx)
    output.quiet, output.debug = quiet, debug
    if not debug:
        hush_other_libraries()
    if TransferBars.is_wanted() and not quiet:
        from wmtp.storage.progress import watching

        ctx.with_resource(watching(TransferBars()))


def main() -> None:
    """Run the program; the console script calls this."""
    # Modules are made of many objects that stay: looking for garbage at every 700 new ones costs a tenth of start-up.
    gc.set_threshold(10_000)
    output = Output()
    sys.excepthook = output.fail_unexpectedly
    try:
        # Not app(): that would put typer's own excepthook in place of ours.
        typer.main.get_command(app)(obj=output, prog_name="wmtp")
    finally:
        if "torch" not in sys.modules:
            # The process ends: without this the interpreter first visits every object that imports made (0.02 s).
            gc.freeze()


if __name__ == "__main__":
    main()
