"""Commands that move checkpoints, verified: fetch, push."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wmtp.cli.options import URI, AllowSymlinks, AsJSON, Directory, Lock, no_address
from wmtp.cli.output import Output


def fetch(
    ctx: typer.Context,
    uri: URI,
    directory: Annotated[
        Path | None,
        typer.Argument(
            metavar="[DIR]",
            help="A directory that does not exist yet; else the cache.",
            show_default=False,
            callback=no_address,
        ),
    ] = None,
    *,
    lock: Lock = None,
    allow_symlinks: AllowSymlinks = False,
    as_json: AsJSON = False,
) -> None:
    """Bring a whole checkpoint here, verified: into the cache, or into a new directory."""
    out = Output.of(ctx, as_json=as_json)
    out.start_logging()
    from wmtp.transport.fetch import fetch_checkpoint

    report = fetch_checkpoint(uri, directory, lock=lock, allow_symlinks=allow_symlinks)
    out.result(report.to_dict(), report.summary())


def push(
    ctx: typer.Context,
    directory: Directory,
    uri: Annotated[str, typer.Argument(metavar="URI", help="Where to: s3://, gs:// or az://, and a key of its own.")],
    *,
    replace: Annotated[
        bool, typer.Option("--replace", help="Put it in place of the checkpoint that stands there.")
    ] = False,
    allow_symlinks: AllowSymlinks = False,
    as_json: AsJSON = False,
) -> None:
    """Put a checkpoint that proves itself into an object store; metadata.json comes last."""
    out = Output.of(ctx, as_json=as_json)
    out.start_logging()
    from wmtp.transport.push import push_checkpoint

    report = push_checkpoint(directory, uri, replace=replace, allow_symlinks=allow_symlinks)
    out.result(report.to_dict(), report.summary())
