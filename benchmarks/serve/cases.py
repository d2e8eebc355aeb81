"""What is served: each case is a line of a table, and a function that makes its checkpoints with the command line.

A further form, or a further server, is a further case: `make` writes what the server is given and says which checkpoint
of ours predicts it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from changes import Change, changed, inputs_swapped, put_in_place, rotary_rows, rows_shuffled
from small_models import exported, grown, plain, trained, wmtp

from native_models import DEEPSEEK, ERNIE, GLM, HEAD_DIM, MELLUM, MIMO, QWEN3_5, Family, write_family, write_trunk
from wmtp.demo.zoo import stdlib_sources, train_tokenizer

NUM_HEADS = 4


@dataclass(frozen=True)
class Served:
    """What a server is given, and what has to come of it.

    Attributes:
        target: Directory of the model.
        speculative: How the server is to draft, in its own words.
        model: The checkpoint of ours whose logits predict what is accepted.
        unlike: A checkpoint that must predict another number: the right one, where `model` is wrong on purpose.
        dtype: In which both compute.
        min_margin: By how much the best logit is to lead, in the text after a prompt.
        engine: The server: a name that check.py knows.
        options: Further settings of it.
    """

    target: Path
    speculative: dict[str, Any]
    model: Path
    unlike: Path | None = None
    dtype: str = "float32"
    min_margin: float = 0.0
    engine: str = "vllm"
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def num_drafts(self) -> int:
        """Tokens drafted a round."""
        return int(self.speculative["num_speculative_tokens"])

    @property
    def plain_name(self) -> str:
        """Of the job that serves the target without drafts."""
        return f"{self.target.name} alone, {self.num_drafts} tokens more"


@dataclass(frozen=True)
class Case:
    """One line of the table.

    Attributes:
        name: What is served.
        make: Writes the checkpoints below a directory; what is there already stays.
    """

    name: str
    make: Callable[[Path], Served]


@dataclass(frozen=True)
class Heads:
    """Heads to grow and train.

    Attributes:
        name: Of their directories.
        options: Of `wmtp grow`.
    """

    name: str
    options: tuple[str, ...]


def medusa(directory: Path, *, heads: Heads, to: str = "vllm-medusa") -> Served:
    """Train heads, and export trunk and heads."""
    fresh = grown(plain(directory), directory / heads.name, "--heads", str(NUM_HEADS), *heads.options)
    return _medusa(trained(fresh, directory, heads.name), directory, heads.name, to)


def _medusa(model: Path, directory: Path, name: str, to: str) -> Served:
    drafter = exported(model, directory / f"{name}-{to}", to)
    speculative = {"method": "medusa", "model": str(drafter), "num_speculative_tokens": NUM_HEADS - 1}
    return Served(exported(model, directory / f"{name}-trunk", "transformers"), speculative, model)


def wrong_medusa(directory: Path, *, heads: Heads, name: str, change: Change) -> Served:
    """Serve trained heads with values that are changed on purpose."""
    right = medusa(directory, heads=heads)
    model = changed(right.model, directory / f"{heads.name}-{name}", change)
    return replace(_medusa(model, directory, f"{heads.name}-{name}", "vllm-medusa"), unlike=right.model)


def native(directory: Path, *, family: Family, num_drafts: int = 1, engine: str = "vllm") -> Served:
    """Train a model with native heads, and export it in the layout of its family."""
    fresh = directory / f"{family.name}-released"
    if not fresh.exists():
        write_family(family, fresh, train_tokenizer(stdlib_sources()))
        wmtp("init", fresh)
    return _native(fresh, directory, family.name, family, num_drafts, engine)


def _native(
    fresh: Path, directory: Path, name: str, family: Family, num_drafts: int = 1, engine: str = "vllm"
) -> Served:
    model = trained(fresh, directory, name, packing=family.packing)
    target = exported(model, directory / f"{name}-native", "native")
    wmtp("validate", target, "--for", engine)
    speculative = {"method": "mtp", "num_speculative_tokens": num_drafts}
    return Served(target, speculative, model, None, family.dtype, family.min_margin, engine, family.options)


def grown_native(directory: Path, *, family: Family, trunk: Callable[[Path, Family], Path]) -> Served:
    """Grow a native module on a model that has none, train it, and export it."""
    name = f"{family.name}-grown"
    fresh = grown(trunk(directory, family), directory / name, "--heads", "2", "--head-type", "deepseek")
    return _native(fresh, directory, f"{name}-trained", family)


def plain_trunk(directory: Path, family: Family) -> Path:
    """Return a fresh model of a family's trunk, which never had modules."""
    path = directory / f"{family.name}-plain"
    if not path.exists():
        write_trunk(family, path, train_tokenizer(stdlib_sources()))
        wmtp("init", path)
    return path


def stripped_trunk(directory: Path, family: Family) -> Path:
    """Return a trained model whose modules were dropped."""
    return exported(
        native(directory, family=family).model, directory / f"{family.name}-stripped", "native", "--drop-heads"
    )


def wrong_native(directory: Path, *, family: Family, name: str, change: Change) -> Served:
    """Serve a trained model with native heads whose values are changed on purpose."""
    right = native(directory, family=family)
    wrong = changed(right.target, directory / f"{family.name}-{name}", change)
    return replace(right, target=wrong, model=wrong, unlike=right.model)


def read_as_halves(directory: Path, *, family: Family, block: str) -> Served:
    """Serve a model whose module the server turns as halves; rows in that order make wmtp compute the same."""
    right = native(directory, family=family)
    change = rotary_rows(block, HEAD_DIM, to_halves=False)
    return replace(
        right, model=changed(right.target, directory / f"{family.name}-as-served", change), unlike=right.model
    )


def ordered_as_halves(directory: Path, *, family: Family, block: str) -> Served:
    """Serve it with the module's rows in the order of halves: then such a server computes what wmtp does."""
    right = native(directory, family=family)
    change = rotary_rows(block, HEAD_DIM, to_halves=True)
    return replace(right, target=changed(right.target, directory / f"{family.name}-halves", change))


_LINEAR = Heads("linear", ("--head-type", "linear"))
_BLOCKS = Heads("resblock", ("--head-type", "resblock", "--num-blocks", "2"))
_SHARED = Heads("shared", ("--head-type", "resblock", "--shared-unembedding"))
_LAST_IN_FIRST = put_in_place(f"heads.{NUM_HEADS}.unembedding.weight", "heads.2.unembedding.weight")
_MIMO, _ERNIE = "model.mtp_layers.0.", "model.mtp_block.0."
CASES = (
    Case("Medusa, `linear` heads", partial(medusa, heads=_LINEAR)),
    Case("Medusa, `resblock` heads of two blocks", partial(medusa, heads=_BLOCKS)),
    Case("Medusa, `resblock` heads with the shared unembedding", partial(medusa, heads=_SHARED)),
    Case("Medusa, `resblock` heads, reference layout", partial(medusa, heads=_BLOCKS, to="medusa")),
    Case("native, MiMo-7B", partial(native, family=MIMO)),
    Case("native, MiMo-7B, three drafts", partial(native, family=MIMO, num_drafts=3)),
    Case("native, MiMo-7B, grown on a Qwen2", partial(grown_native, family=MIMO, trunk=plain_trunk)),
    Case("native, Qwen3.5", partial(native, family=QWEN3_5)),
    Case("native, Qwen3.5, dropped and grown again", partial(grown_native, family=QWEN3_5, trunk=stripped_trunk)),
    Case("native, DeepSeek-V3", partial(native, family=DEEPSEEK)),
    Case("native, DeepSeek-V3, three drafts", partial(native, family=DEEPSEEK, num_drafts=3)),
    Case("native, GLM-4-MoE", partial(native, family=GLM)),
    Case("native, GLM-4-MoE, three drafts", partial(native, family=GLM, num_drafts=3)),
    Case("native, ERNIE 4.5, read as halves", partial(read_as_halves, family=ERNIE, block=_ERNIE)),
    Case("native, ERNIE 4.5, ordered as halves", partial(ordered_as_halves, family=ERNIE, block=_ERNIE)),
    Case("native, Mellum", partial(native, family=MELLUM, engine="transformers")),
    Case(
        "control: `linear` heads, the last in the first's place",
        partial(wrong_medusa, heads=_LINEAR, name="wrong", change=_LAST_IN_FIRST),
    ),
    Case(
        "control: MiMo-7B, hidden state and embedding swapped",
        partial(wrong_native, family=MIMO, name="swapped", change=inputs_swapped(f"{_MIMO}input_proj.weight")),
    ),
    Case(
        "control: MiMo-7B, a matrix of the module shuffled",
        partial(wrong_native, family=MIMO, name="shuffled", change=rows_shuffled(f"{_MIMO}mlp.down_proj.weight")),
    ),
)
