"""Commands that make or change checkpoints: init, upgrade, grow, export."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from wmtp.cli.options import AsJSON, Directory, Yes, no_address, takes_load_options
from wmtp.cli.output import Output
from wmtp.publishing.exports.targets import TARGETS
from wmtp.settings.loading import LoadKeywords
from wmtp.untrusted import did_you_mean

_HEAD_TYPES = (
    "What a head is. transformer: a decoder layer; drafts in 'wmtp generate' alone, and on a llama in Meta's code."
    " resblock, linear: Medusa heads, with which vLLM and TGI draft. deepseek: a native module, of Qwen2 and Qwen3.5."
)


class HeadType(StrEnum):
    """Kinds of prediction heads that `grow` makes."""

    LINEAR = "linear"
    TRANSFORMER = "transformer"
    RESBLOCK = "resblock"
    DEEPSEEK = "deepseek"


Source = Annotated[str, typer.Argument(metavar="SRC", help="A checkpoint.")]
Destination = Annotated[
    Path, typer.Argument(metavar="DST", help="A directory that does not exist yet.", callback=no_address)
]


def _known_target(name: str) -> str:
    if name not in TARGETS:
        raise typer.BadParameter(
            f"{name!r} is not one of {', '.join(map(repr, TARGETS))}{did_you_mean(name, TARGETS)}."
        )
    return name


def init(
    ctx: typer.Context,
    directory: Directory,
    *,
    model_class: Annotated[
        str | None,
        typer.Option("--class", metavar="NAME", help="The class of transformers to load it as; else config.json's."),
    ] = None,
    as_json: AsJSON = False,
) -> None:
    """Draft a metadata.json for review."""
    from wmtp.authoring.init import init_metadata
    from wmtp.metadata.file import METADATA_FILE, dump_metadata

    out = Output.of(ctx, as_json=as_json)
    draft = init_metadata(directory, model_class)
    facts = {"path": str(directory / METADATA_FILE), "notes": draft.notes}
    document = draft.metadata.model_dump(mode="json", by_alias=True, exclude_none=True)
    out.result({**facts, "metadata": document}, [dump_metadata(draft.metadata).rstrip()])
    out.say(f"\nwrote {directory / METADATA_FILE}, a draft; these are guesses, so check them:")
    for note in draft.notes:
        out.say(f"  {note}")
    out.say(f"then prove it with 'wmtp validate {directory}'")


def upgrade(ctx: typer.Context, directory: Directory, *, yes: Yes = False, as_json: AsJSON = False) -> None:
    """Show what an older metadata.json becomes; write it with --yes."""
    import difflib

    from wmtp.authoring.upgrade import upgrade_metadata, write_upgrade
    from wmtp.metadata.file import METADATA_FILE

    out = Output.of(ctx, as_json=as_json)
    found = upgrade_metadata(directory)
    if found is None:
        out.result({"up_to_date": True, "written": False}, [f"{directory / METADATA_FILE} is up to date"])
        return
    names = (METADATA_FILE, f"{METADATA_FILE} (2.0)")
    diff = list(difflib.unified_diff(found.old_text.splitlines(), found.new_text.splitlines(), *names, lineterm=""))
    backup = write_upgrade(directory, found) if yes else None
    document = found.metadata.model_dump(mode="json", by_alias=True, exclude_none=True)
    facts = {"up_to_date": False, "written": yes, "notes": found.notes, "diff": diff, "metadata": document}
    out.result(facts, [_escaped(line) for line in diff])
    out.say("")
    for note in found.notes:
        out.say(f"  {note}")
    out.say(f"written; the old file is {backup}" if backup else "nothing was written; --yes writes it")


@takes_load_options
def grow(  # noqa: PLR0913  each option of the contract is one
    ctx: typer.Context,
    source: Source,
    destination: Destination,
    *,
    heads: Annotated[int, typer.Option("--heads", min=2, help="Prediction heads, counting the next-token head.")],
    head_type: Annotated[HeadType, typer.Option("--head-type", help=_HEAD_TYPES)] = HeadType.TRANSFORMER,
    num_blocks: Annotated[
        int | None, typer.Option("--num-blocks", min=1, help="resblock: blocks of a head; 1 when not given.")
    ] = None,
    shared_unembedding: Annotated[
        bool, typer.Option("--shared-unembedding", help="resblock: the heads use the model's own unembedding.")
    ] = False,
    options: LoadKeywords,
    as_json: AsJSON = False,
) -> None:
    """Make a multi-token prediction model from a plain causal LM."""
    out = Output.of(ctx, as_json=as_json)
    out.start_logging()
    from wmtp.authoring.grow import grow as grow_model

    kind: Any = head_type.value
    given = {"num_blocks": num_blocks, "shared_unembedding": shared_unembedding or None}
    head_options = {name: value for name, value in given.items() if value is not None}
    report = grow_model(source, destination, heads=heads, head_type=kind, head_options=head_options, **options)
    out.result(report.to_dict(), report.summary())
    out.say(report.next_step)


@takes_load_options
def export(  # noqa: PLR0913  each option of the contract is one
    ctx: typer.Context,
    source: Source,
    destination: Destination,
    *,
    to: Annotated[
        str, typer.Option("--to", metavar="|".join(TARGETS), help="What reads it.", callback=_known_target)
    ] = "transformers",
    drop_heads: Annotated[
        bool, typer.Option("--drop-heads", help="native: the trunk alone, and no declaration of heads.")
    ] = False,
    options: LoadKeywords,
    as_json: AsJSON = False,
) -> None:
    """Write what other programs load or serve: the trunk as a plain model, with native heads, or heads alone."""
    out = Output.of(ctx, as_json=as_json)
    out.start_logging()
    from wmtp.publishing.exports.targets import export as export_model

    written = export_model(source, destination, to=to, drop_heads=drop_heads, **options)
    out.result({"path": str(written), "to": to}, [f"wrote {written}"])
    said = TARGETS["transformers" if drop_heads else to]  # without its heads it is what that target writes
    out.say(said.next_step.format(source=source, path=written, loader=_loader(written), heads=_num_heads(written)))


def _num_heads(written: Path) -> Any:
    """Return the heads of a directory of Medusa heads, which is how many tokens they draft; None of anything else."""
    config = written / "config.json"
    return json.loads(config.read_text(encoding="utf-8")).get("num_heads") if config.is_file() else None


def _loader(written: Path) -> str:
    """Return the class of transformers that an export is declared to load with; empty where it declares none."""
    from wmtp.metadata.file import METADATA_FILE, load_metadata

    has_metadata = (written / METADATA_FILE).is_file()
    return load_metadata(written).loading_strategy.transformers_class or "" if has_metadata else ""


def _escaped(line: str) -> str:
    # A diff of a stranger's file: whatever a terminal would obey is shown, not sent.
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)
