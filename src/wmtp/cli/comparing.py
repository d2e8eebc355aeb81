"""The command that compares two checkpoints: diff."""

from __future__ import annotations

from typing import Annotated

import typer

from wmtp.cli.options import AllowSymlinks, AsJSON
from wmtp.cli.output import Output
from wmtp.untrusted import plain


def diff(  # noqa: PLR0913  each option of the contract is one
    ctx: typer.Context,
    a: Annotated[str, typer.Argument(metavar="A", help="A checkpoint; differences are relative to its values.")],
    b: Annotated[str, typer.Argument(metavar="B", help="The checkpoint to compare it with.")],
    *,
    headers: Annotated[
        bool, typer.Option("--headers", help="Compare names, shapes and dtypes; read no values.")
    ] = False,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 1 if they differ.")] = False,
    allow_symlinks: AllowSymlinks = False,
    as_json: AsJSON = False,
) -> None:
    """Compare two checkpoints: metadata, files, tensors, values."""
    out = Output.of(ctx, as_json=as_json)
    from wmtp.comparison.diff import diff_checkpoints

    found = diff_checkpoints(a, b, values=not headers, allow_symlinks=allow_symlinks)
    out.result(found.to_dict(), [f"A: {plain(found.a)}", f"B: {plain(found.b)}", *found.summary()])
    if exit_code and not found.is_equal:
        raise typer.Exit(1)
