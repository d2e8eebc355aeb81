"""The command `report`: one HTML file about runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wmtp.cli.options import AllowCode, AsJSON, consents, no_address
from wmtp.cli.output import Output

Runs = Annotated[
    list[Path], typer.Argument(metavar="RUN...", help="Directories of runs, <paths.output_dir>/<run.name>.")
]


def _numbers(text: str | None) -> tuple[int, ...]:
    parts = [part.strip() for part in (text or "").split(",") if part.strip()]
    if wrong := [part for part in parts if not (part.isascii() and part.isdigit() and len(part) < 13)]:
        raise typer.BadParameter(f"{wrong[0]!r} is no step; write numbers of optimizer steps, as in --steps 100,200")
    return tuple(map(int, parts))


def report(  # noqa: PLR0913  each option of the contract is one
    ctx: typer.Context,
    runs: Runs,
    *,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Where it goes; else report.html in the run's directory, or beside those of several runs.",
        ),
    ] = None,
    steps: Annotated[
        str | None,
        typer.Option("--steps", metavar="N,N", help="Saved steps whose tokens it shows; else all, 8 at most."),
    ] = None,
    documents: Annotated[
        int, typer.Option("--documents", min=1, max=200, help="How many texts of each run it shows.")
    ] = 6,
    no_xray: Annotated[bool, typer.Option("--no-xray", help="Show no tokens; then no model is loaded.")] = False,
    allow_code: AllowCode = None,
    as_json: AsJSON = False,
) -> None:
    """Write one HTML file about runs: what was run, curves, and the weight of each token of held-out texts."""
    out, wanted = Output.of(ctx, as_json=as_json), _numbers(steps)
    options = None
    if not no_xray:
        from wmtp.report.xray import XRayOptions

        options = XRayOptions(steps=wanted, documents=documents, allow_code=consents(allow_code))
    from wmtp.report.write import write_report

    written = write_report([no_address(run) or run for run in runs], output, xray=options)
    out.result(written.to_dict(), written.summary())
