"""How a checkpoint loads, in lines that are true for its kind; what would not work is not shown."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

from wmtp.errors import CheckpointError
from wmtp.metadata.schema import ModelMetadata, StateDictMapping
from wmtp.publishing.cards.markdown import code, fenced
from wmtp.serving.check import check_serving
from wmtp.serving.table import PROGRAMS

HERE = "path/to/this"
_MEDUSA = "These are prediction heads alone: they work with the trunk (TARGET) that they were trained on, and no other."
_EXPORT = f"wmtp export {HERE} NEW --to transformers"


class Kind(StrEnum):
    """What a directory is, as far as it matters to whoever loads it."""

    PLAIN = "a model of one of the classes of transformers"
    HEADS = "a model with parallel prediction heads"
    NATIVE = "a model with the prediction heads of its own family"
    OWN_CLASS = "a model with a class of its own"
    MEDUSA = "Medusa heads without their trunk"
    META = "a model in the layout of Meta's multi-token release"


_BUILT_IN = {"MTPForCausalLM": Kind.HEADS, "NativeMTPForCausalLM": Kind.NATIVE}


def kind_of(metadata: ModelMetadata) -> Kind:
    """Return the kind of a checkpoint that wmtp loads."""
    strategy = metadata.loading_strategy
    if strategy.transformers_class is not None:
        return Kind.PLAIN
    if strategy.custom_module_file is not None:
        return Kind.OWN_CLASS
    return _BUILT_IN.get(str(strategy.model_class_name), Kind.OWN_CLASS)


def loading_lines(kind: Kind, metadata: ModelMetadata, directory: Path) -> Iterator[str]:
    """Yield the lines of the section about loading.

    Args:
        kind: What is loaded.
        metadata: Its declaration; of what has none, that of the model that it was made from.
        directory: Where it stands now.
    """
    if kind is Kind.MEDUSA:
        yield _MEDUSA
    elif kind is Kind.META:
        yield f"Meta's own code loads it; for wmtp, `wmtp convert {HERE} NEW` writes it as safetensors first."
    else:
        yield from _with_wmtp(kind, metadata)
        yield from ("", *_with_transformers(kind, metadata))
    if kind is Kind.PLAIN and str(metadata.loading_strategy.transformers_class).endswith("ForCausalLM"):
        yield from ("", "With vLLM, where it has this architecture:", "", *fenced(f"vllm serve {HERE}", "sh"))
    if kind in (Kind.NATIVE, Kind.MEDUSA):
        yield from _drafting(directory)


def _with_wmtp(kind: Kind, metadata: ModelMetadata) -> Iterator[str]:
    if kind is Kind.OWN_CLASS:
        file = code(metadata.loading_strategy.custom_module_file or "the package that registers its class")
        yield f"With wmtp, once you have read its code ({file}) and agreed to it by `wmtp trust {HERE}`:"
    else:
        yield "With wmtp, which proves from the headers of the files that every tensor fits before it reads one:"
    yield from ("", *fenced(f'import wmtp\n\nmodel = wmtp.load_model("{HERE}")', "python"))


def _with_transformers(kind: Kind, metadata: ModelMetadata) -> Iterator[str]:
    strategy = metadata.loading_strategy
    if kind is Kind.PLAIN and strategy.state_dict_mapping == StateDictMapping():
        name = strategy.transformers_class
        yield from ("With transformers:", "")
        yield from fenced(f'from transformers import {name}\n\nmodel = {name}.from_pretrained("{HERE}")', "python")
    elif kind is Kind.PLAIN:
        yield "Its tensors have other names than transformers gives them: `metadata.json` says how wmtp maps them."
    elif kind is Kind.HEADS:
        yield f"transformers has no class for these heads; `{_EXPORT}` writes head 1 as a model that it loads."
    elif kind is Kind.NATIVE:
        yield f"`wmtp export {HERE} NEW --to native --drop-heads` writes the trunk alone, which transformers loads."


def _drafting(directory: Path) -> Iterator[str]:
    """Yield how vLLM drafts with these heads; nothing where it would not."""
    program = PROGRAMS["vllm"]
    try:
        where, verdict = check_serving(directory, program)
    except CheckpointError:
        return
    yield from ("", f"With {program.label}, which drafts with these heads ({verdict.evidence.value}):", "")
    yield from fenced(verdict.command.replace(where, HERE), "sh")
