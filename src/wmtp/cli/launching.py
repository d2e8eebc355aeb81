"""Commands that may run in several processes: what of a line is for torchrun, and which of the processes speaks."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

import typer
from typer.core import TyperCommand
from typing_extensions import override

from wmtp.cli.output import Output

_TORCHRUN = "torch.distributed.run"


class TorchrunCommand(TyperCommand):
    """A command whose line may end in `-- torchrun options`."""

    @override
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Set aside what stands behind `--`; the parser would mix it with the arguments before."""
        split = args.index("--") if "--" in args else len(args)
        ctx.meta["own_args"], ctx.meta["torchrun_options"] = args[:split], args[split + 1 :]
        return super().parse_args(ctx, args[:split])


def torchrun_line(ctx: typer.Context, out: Output) -> list[str]:
    """Return the command line that starts this command in several processes; empty when one process is enough."""
    if not ctx.meta["torchrun_options"]:
        return []
    start = [sys.executable, "-m", _TORCHRUN, *ctx.meta["torchrun_options"], "-m", "wmtp.cli.main"]
    before = ["--quiet"] * out.quiet + ["--debug"] * out.debug
    own = (argument for argument in ctx.meta["own_args"] if argument != "--dry-run")
    return [*start, *before, str(ctx.info_name), *own]


def become(line: list[str]) -> None:
    """Put torchrun, by the command line that starts it, in the place of this program; never returns."""
    sys.stdout.flush()
    ours = ["wmtp.cli.torchrun" if word == _TORCHRUN else word for word in line[:3]]
    os.execv(line[0], [*ours, *line[3:]])  # noqa: S606  our own interpreter, and what the operator typed


def environment_of(line: list[str]) -> Mapping[str, str]:
    """Return the variables that count: those of this process, unless torchrun will set its own."""
    return {} if line else os.environ


def speaks(out: Output) -> bool:
    """Return whether this is the one that speaks of the processes that torchrun starts, and quieten the others."""
    is_first = os.environ.get("RANK", "0") == "0"
    out.quiet |= not is_first
    return is_first
