"""Options that several commands share, and what they mean to the library."""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import StrEnum
from functools import wraps
from inspect import signature
from pathlib import Path
from typing import Annotated, Any

import typer

from wmtp.settings.loading import LoadKeywords

_ADDRESS = re.compile(r"(s3|gs|az|hf|memory|file):/")  # a Path has lost one of the slashes
_AMOUNT = re.compile(r"(\d{1,15}(?:\.\d{1,9})?)\s*(kB|MB|GB|TB|KiB|MiB|GiB|TiB|)", re.IGNORECASE)
_BYTES = {
    "": 1,
    **{f"{u}b": 1000**n for n, u in enumerate("kmgt", 1)},
    **{f"{u}ib": 1024**n for n, u in enumerate("kmgt", 1)},
}
_CONSENT = re.compile(r"(?P<file>[^=]+)=(?P<digest>sha256:[0-9a-f]{64})")


class DType(StrEnum):
    """Floating types in which a model can be had; `auto` is as stored."""

    AUTO = "auto"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


def _consent(text: str) -> tuple[str, str]:
    match = _CONSENT.fullmatch(text)
    if match is None:
        raise typer.BadParameter(f"{text!r} is not FILE=sha256:HEX; 'wmtp trust' shows the files and their hashes")
    return match["file"], match["digest"]


def amount(text: str) -> int:
    """Return a number of bytes that is written with its unit; other text is wrong usage."""
    match = _AMOUNT.fullmatch(text)
    if match is None:
        raise typer.BadParameter(f"{text!r} is no size; write a number and one of kB, MB, GB, TB, such as 50GB")
    return int(float(match[1]) * _BYTES[match[2].lower()])


def no_address(path: Path | None) -> Path | None:
    """Return the path of a directory; an address of an object store in its place is wrong usage."""
    if path is not None and _ADDRESS.match(str(path)):
        raise typer.BadParameter(
            f"{str(path)!r} is an address, and this has to be a directory on this machine;"
            " 'wmtp fetch' brings a checkpoint here, 'wmtp push' takes one there"
        )
    return path


URI = Annotated[str, typer.Argument(metavar="URI", help="A checkpoint: a directory, s3://, gs://, az:// or hf://.")]
Directory = Annotated[Path, typer.Argument(metavar="DIR", help="A directory on this machine.", callback=no_address)]
AsJSON = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do it without asking.")]
ConfigFile = Annotated[Path, typer.Option("--config", metavar="FILE", help="config.yaml: where the models are.")]
RecipeFile = Annotated[Path, typer.Option("--recipe", metavar="FILE", help="recipe.yaml: what to train.")]
AllowCode = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-code", metavar="FILE=sha256:HEX", help="Agree to run this file of the checkpoint; may be repeated."
    ),
]
Lock = Annotated[
    Path | None,
    typer.Option("--lock", metavar="FILE", help="Digests that the files must have, as 'wmtp lock' writes them."),
]
NoCache = Annotated[bool, typer.Option("--no-cache", help="Keep nothing of a remote checkpoint on disk.")]
DTypeOption = Annotated[DType, typer.Option("--dtype", help="The floating type of the loaded model.")]
Device = Annotated[str, typer.Option("--device", help="A torch device: cpu, cuda, cuda:1, mps.")]
AllowSymlinks = Annotated[
    bool, typer.Option("--allow-symlinks", help="Follow links that leave the checkpoint's directory.")
]


def consents(texts: list[str] | None) -> dict[str, str]:
    """Return what `--allow-code` says, file by file; wrong text is wrong usage."""
    return dict(_consent(text) for text in texts or [])


def load_options(
    *,
    allow_code: AllowCode = None,
    lock: Lock = None,
    no_cache: NoCache = False,
    dtype: DTypeOption = DType.AUTO,
    device: Device = "cpu",
    allow_symlinks: AllowSymlinks = False,
) -> LoadKeywords:
    """Return the options of `wmtp.load` that a command line asked for."""
    return {
        "allow_code": consents(allow_code),
        "lock": lock,
        "cache": not no_cache,
        "dtype": dtype.value,
        "device": device,
        "allow_symlinks": allow_symlinks,
    }


def taking(name: str, gather: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command the options of a function in place of one of its parameters, which gets what that returns.

    Args:
        name: The parameter.
        gather: Has the options as its parameters.
    """
    offered = signature(gather, eval_str=True).parameters

    def decorated(command: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(command)
        def run(*args: Any, **given: Any) -> Any:
            gathered = gather(**{option: given.pop(option) for option in offered})
            return command(*args, **{name: gathered}, **given)

        own = signature(command, eval_str=True)
        parameters = [
            parameter
            for taken, declared in own.parameters.items()
            for parameter in (offered.values() if taken == name else [declared])
        ]
        run.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorated


def takes_load_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of loading in place of its parameter `options`, which gets what they say."""
    return taking("options", load_options)(command)
