"""The command `generate`: text from a model, whose own heads draft."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wmtp.cli.options import AsJSON, takes_load_options, taking
from wmtp.cli.output import Output
from wmtp.generation.options import GenerationKeywords, GenerationOptions
from wmtp.settings.loading import LoadKeywords
from wmtp.untrusted import shown_text

if TYPE_CHECKING:
    from wmtp.generation.prompts import Prompt
    from wmtp.generation.result import Generation

ReadPrompts = Callable[[], "list[Prompt]"]


def sampling_options(
    *,
    temperature: Annotated[
        float, typer.Option("--temperature", help="Draw tokens, of logits divided by this; 0: the most probable one.")
    ] = 0.0,
    top_p: Annotated[
        float,
        typer.Option("--top-p", help="Draw of the most probable tokens only, which have this probability together."),
    ] = 1.0,
    seed: Annotated[int | None, typer.Option("--seed", help="What random numbers begin with.")] = None,
) -> GenerationKeywords:
    """Return how tokens are drawn."""
    return {"temperature": temperature, "top_p": top_p, "seed": seed}


@taking("sampling", sampling_options)
def generation_options(
    *,
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", help="For each prompt at most.")] = 128,
    sampling: GenerationKeywords,
    stop: Annotated[
        list[str] | None, typer.Option("--stop", metavar="TEXT", help="End before this text; may be repeated.")
    ] = None,
    drafts: Annotated[
        int | None,
        typer.Option("--drafts", help="Tokens drafted a pass at most; 0: none. Without it, one for each further head."),
    ] = None,
    chat: Annotated[
        bool, typer.Option("--chat", help="The prompt is what a user says: render it with the chat template.")
    ] = False,
    compare: Annotated[
        bool, typer.Option("--compare", help="Decode plainly as well, and say how much faster drafts are.")
    ] = False,
) -> GenerationKeywords:
    """Return how text is generated."""
    found: GenerationKeywords = {"max_new_tokens": max_new_tokens, "stop": stop or (), "drafts": drafts}
    return {**found, **sampling, "chat": chat, "compare": compare}


def given_prompts(
    prompt: Annotated[
        str | None,
        typer.Argument(metavar="[PROMPT]", help="Text to go on from; without it, or as '-', standard input."),
    ] = None,
    *,
    prompts: Annotated[
        Path | None,
        typer.Option(
            "--prompts", metavar="FILE", exists=True, dir_okay=False, help="JSONL with 'prompt' or 'messages'."
        ),
    ] = None,
) -> ReadPrompts:
    """Return what reads the prompts from where they are given."""
    if prompts is not None and prompt is not None:
        raise typer.BadParameter("give a prompt, or a file with --prompts, not both")
    if prompts is not None:
        return partial(_from_file, prompts)
    if prompt is not None and prompt != "-":
        return lambda: [prompt]
    if sys.stdin.isatty():
        raise typer.BadParameter("give a prompt: as an argument, on standard input, or in a file with --prompts")
    return _from_stdin


def _from_file(path: Path) -> list[Prompt]:
    from wmtp.generation.prompts import read_prompts

    return read_prompts(path)


def _from_stdin() -> list[Prompt]:
    try:
        text = sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise typer.BadParameter(f"standard input is not UTF-8: {error}") from error
    return [text.removesuffix("\n")]  # which 'echo' and editors put there


@taking("prompts", given_prompts)
@taking("generation", generation_options)
@takes_load_options
def generate(
    ctx: typer.Context,
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A checkpoint: a directory, s3://, gs://, az:// or hf://.")
    ],
    *,
    prompts: ReadPrompts,
    generation: GenerationKeywords,
    options: LoadKeywords,
    as_json: AsJSON = False,
) -> None:
    """Generate text; heads beyond the next-token head draft, and the result is the model's own."""
    out = Output.of(ctx, as_json=as_json)
    out.start_logging()
    GenerationOptions(**generation)
    ready = prompts()
    from wmtp.checkpoint.contents import open_checkpoint

    # Most mistakes show before torch is imported.
    open_checkpoint(model, allow_symlinks=options["allow_symlinks"], cache=options["cache"])
    import wmtp

    screen = _Screen(len(ready)) if sys.stdout.isatty() and not as_json else None
    found = wmtp.generate(wmtp.load(model, **options), ready, **generation, on_text=screen and screen.show)
    if screen is None:
        out.result(found.to_dict(), _texts(found))
    else:
        screen.end()
    for line in found.summary():
        out.say(line)


def _texts(found: Generation) -> Iterator[str]:
    for number, text in enumerate(found.texts):
        yield from [_heading(number)] if len(found.rows) > 1 else []
        yield text or ""


def _heading(number: int) -> str:
    return f"--- prompt {number + 1}"


class _Screen:
    """Prints text on a terminal as it comes."""

    def __init__(self, num_prompts: int) -> None:
        self._has_headings = num_prompts > 1
        self._number = -1

    def show(self, number: int, text: str) -> None:
        if number != self._number and self._has_headings:
            typer.echo(("\n" if self._number >= 0 else "") + _heading(number))
        self._number = number
        typer.echo(shown_text(text), nl=False)
        sys.stdout.flush()

    def end(self) -> None:
        typer.echo("")
