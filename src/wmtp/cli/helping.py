"""Commands about the program itself: explain, completion."""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Any

import typer

from wmtp.cli.options import AsJSON
from wmtp.cli.output import Output, table


class Shell(StrEnum):
    """Shells for which there is a completion script."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def explain(
    ctx: typer.Context,
    code: Annotated[
        str | None,
        typer.Argument(metavar="[CODE]", help="As errors name it, such as PlanError; else all.", show_default=False),
    ] = None,
    *,
    as_json: AsJSON = False,
) -> None:
    """Say what an error means, with an example and what to do about it."""
    out = Output.of(ctx, as_json=as_json)
    from wmtp.explanations import explanations

    texts = explanations()
    if code is None:
        out.result(texts, _listed(texts))
        return
    if (name := _named(code, texts)) is None:
        from wmtp.errors import UnknownNameError
        from wmtp.untrusted import did_you_mean, show

        raise UnknownNameError(
            f"no error has the code {show(code)}{did_you_mean(code, texts)}", hint="'wmtp explain' lists all of them"
        )
    out.result({"code": name, "explanation": texts[name]}, [name, "", *_printed(texts[name])])


def completion(
    ctx: typer.Context,
    shell: Annotated[Shell, typer.Argument(metavar="bash|zsh|fish", help="The shell that will run it.")],
) -> None:
    """Print the script by which a shell completes commands and options."""
    from typer import completion as scripts

    tools: Any = scripts  # whose function is public by its name and in the documents, and not in the annotations
    script = tools.get_completion_script(prog_name="wmtp", complete_var="_WMTP_COMPLETE", shell=shell.value)
    Output.of(ctx).result(None, [script])


def _named(code: str, texts: dict[str, str]) -> str | None:
    """Return the code that is meant: in whatever letters, and also without the `Error` at its end."""
    wanted = code.lower()
    return next((name for name in texts if wanted in (name.lower(), name.lower().removesuffix("error"))), None)


def _listed(texts: dict[str, str]) -> list[str]:
    """Return a line for each code: what its explanation says before its first stop."""
    first = {code: re.split(r"[.:;]\s", text, maxsplit=1)[0].replace("\n", " ") for code, text in texts.items()}
    return table(list(first.items()), ["CODE", "WHAT IT IS"])


def _printed(text: str) -> Iterator[str]:
    """Yield the lines of an explanation for a terminal: what Markdown fences is indented instead."""
    is_example = False
    for line in text.splitlines():
        if line.startswith("```"):
            is_example = not is_example
        else:
            yield f"    {line}" if is_example else line
