"""The command that turns pickles into safetensors: convert."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from wmtp.cli.options import AllowSymlinks, AsJSON, no_address
from wmtp.cli.output import Output

_UNITS = {"": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_AMOUNT = re.compile(rf"(\d{{1,18}})({'|'.join(_UNITS)})")


def _bytes(text: str | None) -> int | None:
    if text is None:
        return None
    match = _AMOUNT.fullmatch(text)
    if match is None or not int(match[1]):
        raise typer.BadParameter(f"{text!r} is no amount of memory: write bytes, or a number with MB, GB, MiB or GiB")
    return int(match[1]) * _UNITS[match[2]]


def convert(  # noqa: PLR0913  each option of the contract is one
    ctx: typer.Context,
    source: Annotated[str, typer.Argument(metavar="SRC", help="A directory with weights in .bin, .pt, .pth or .ckpt.")],
    destination: Annotated[
        Path, typer.Argument(metavar="DST", help="A directory that does not exist yet.", callback=no_address)
    ],
    *,
    key: Annotated[
        str | None, typer.Option("--key", metavar="NAME", help="The entry of the pickle that holds the tensors.")
    ] = None,
    memory_limit: Annotated[
        str | None,
        typer.Option(
            "--memory-limit",
            metavar="SIZE",
            help="What opening may take beyond Python and torch, such as 40GB; else twice the weights and 1 GiB.",
        ),
    ] = None,
    time_limit: Annotated[
        int | None,
        typer.Option(
            "--time-limit", metavar="SECONDS", min=1, help="Processor time; else 600 and one for every 20 MB."
        ),
    ] = None,
    allow_symlinks: AllowSymlinks = False,
    as_json: AsJSON = False,
) -> None:
    """Write pickled weights as safetensors; the pickles are opened in a limited process.

    Shards of safetensors that hold more than their index names are written again, with only what it names.
    """
    out = Output.of(ctx, as_json=as_json)
    memory_limit_bytes = _bytes(memory_limit)
    from wmtp.authoring.convert import convert as convert_pickles
    from wmtp.authoring.repair import needs_repair, repair

    if needs_repair(source, allow_symlinks=allow_symlinks):
        repaired = repair(source, destination, allow_symlinks=allow_symlinks)
        out.result(repaired.to_dict(), repaired.summary())
        return
    report = convert_pickles(
        source,
        destination,
        key=key,
        memory_limit_bytes=memory_limit_bytes,
        time_limit_seconds=time_limit,
        allow_symlinks=allow_symlinks,
    )
    out.result(report.to_dict(), report.summary())
