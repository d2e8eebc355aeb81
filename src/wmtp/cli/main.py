"""The program `wmtp`: its options, its commands, and how it ends.

Exit status 0: fine. 1: what was asked for failed, or what was checked is not valid. 2: wrong usage. 130: interrupted.
"""

from __future__ import annotations

import gc
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typing_extensions import override

from wmtp import __version__
from wmtp.cli import models, runs
from wmtp.cli.output import Output
from wmtp.errors import WmtpError


class Commands(TyperGroup):
    """The group of all commands; turns errors into a message and exit status 1."""

    @override
    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise  # the reader of our output has left; typer ends quietly
        except WmtpError as error:
            failure = error
        except OSError as error:
            place = f"{error.filename}: " if error.filename else ""
            failure = WmtpError(f"{place}{error.strerror or error}", hint="check the path and its permissions")
            failure.__cause__ = error
        ctx.ensure_object(Output).fail(failure)
        raise typer.Exit(1)


app = typer.Typer(
    cls=Commands,
    help="Checkpoints that declare how they load, and weighted multi-token prediction training on top.",
    no_args_is_help=True,
    # rich costs 0.1 s before the first word appears.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
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
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Take the options that stand before the command."""
    output = Output.of(ctx)
    output.quiet, output.debug = quiet, debug


for _command in (*models.COMMANDS, *runs.COMMANDS):
    app.command(_command.__name__.rstrip("_"))(_command)


def main() -> None:
    """Run the program; the console script calls this."""
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
