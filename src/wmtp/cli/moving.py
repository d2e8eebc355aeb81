"""Commands that move checkpoints, verified: fetch, push."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wmtp.cli.options import URI, AllowSymlinks, AsJSON, Lock, no_address
from wmtp.cli.output import Output

if TYPE_CHECKING:
    from wmtp.transport.push import PushReport
    from wmtp.transport.push_hub import HubPushReport
    from wmtp.transport.push_registry import RegistryPushReport


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


def push(  # noqa: PLR0913  each option of the contract is one
    ctx: typer.Context,
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="A checkpoint, an export, or a run.", callback=no_address)
    ],
    uri: Annotated[
        str,
        typer.Argument(
            metavar="URI", help="Where to: s3://, gs:// or az:// and a key of its own, hf://org/name, or models:/NAME."
        ),
    ],
    *,
    replace: Annotated[
        bool, typer.Option("--replace", help="Put it in place of the checkpoint that stands there.")
    ] = False,
    public: Annotated[
        bool, typer.Option("--public", help="On the Hub: everybody may read it; without this it is private.")
    ] = False,
    allow_symlinks: AllowSymlinks = False,
    as_json: AsJSON = False,
) -> None:
    """Put a checkpoint that proves itself, or the final one of a run, into an object store, the Hub, or MLflow."""
    out = Output.of(ctx, as_json=as_json)
    out.start_logging()
    report = _pushed(directory, uri, public=public, replace=replace, allow_symlinks=allow_symlinks)
    out.result(report.to_dict(), report.summary())


def _pushed(
    directory: Path, uri: str, *, public: bool, replace: bool, allow_symlinks: bool
) -> HubPushReport | RegistryPushReport | PushReport:
    if uri.startswith("hf://"):
        from wmtp.transport.push_hub import push_to_hub

        return push_to_hub(directory, uri, public=public, replace=replace, allow_symlinks=allow_symlinks)
    if public:
        raise typer.BadParameter(f"--public is for repositories of the Hub, and {uri!r} is none")
    if uri.startswith("models:/"):
        from wmtp.transport.push_registry import push_to_registry

        if replace:
            raise typer.BadParameter("--replace is not for models:/, where each push is a version of its own")
        return push_to_registry(directory, uri, allow_symlinks=allow_symlinks)
    from wmtp.transport.push import push_checkpoint

    return push_checkpoint(directory, uri, replace=replace, allow_symlinks=allow_symlinks)
