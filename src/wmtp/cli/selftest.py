"""The command that holds a model to the oracles of the algorithms: selftest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wmtp.cli.options import AllowCode, AsJSON, Device, consents
from wmtp.cli.output import Output, table
from wmtp.extras import require_package
from wmtp.untrusted import plain

if TYPE_CHECKING:
    from wmtp.selftest.oracles import Finding
    from wmtp.selftest.run import Selftest


def selftest(
    ctx: typer.Context,
    *,
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="URI", help="The model to test; without it a small one with random weights."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data", metavar="FILE", exists=True, help="Text, or JSONL with 'text'; without it random tokens."
        ),
    ] = None,
    allow_code: AllowCode = None,
    device: Device = "cpu",
    as_json: AsJSON = False,
) -> None:
    """Hold a model in training to what every algorithm promises; exit status 1 when a promise is broken."""
    out = Output.of(ctx, as_json=as_json)
    agreed = consents(allow_code)
    if model is not None:
        from wmtp.checkpoint.contents import open_checkpoint

        # Most mistakes show before torch is imported.
        open_checkpoint(model)
    require_package("accelerate")
    from wmtp.selftest.run import run_selftest

    found = run_selftest(model, data=data, device=device, allow_code=agreed)
    out.result(found.to_dict(), _lines(found))
    if not found.holds:
        raise typer.Exit(1)


def _lines(found: Selftest) -> Iterator[str]:
    yield f"model  {plain(found.model)}"
    yield f"data   {plain(found.data)}"
    yield ""
    yield from table(
        [_row(finding) for finding in found.findings], ("", "ORACLE", "COMPARED", "DIFFERENCE", "TOLERANCE")
    )
    yield ""
    failed = sum(finding.outcome == "FAIL" for finding in found.findings)
    checked = sum(finding.outcome != "-" for finding in found.findings)
    yield f"{failed} of {checked} FAIL" if failed else f"all {checked} hold"


def _row(finding: Finding) -> tuple[str, ...]:
    compared = f"{finding.compared}: {plain(finding.note)}" if finding.note else finding.compared
    if finding.difference is None:
        return finding.outcome, finding.oracle, compared, "", ""
    return finding.outcome, finding.oracle, compared, f"{finding.difference:.1e}", f"{finding.tolerance:.0e}"
