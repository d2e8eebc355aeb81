"""What is served: each case is a line of a table, and a function that makes its checkpoints with the command line.

A further form, or a further server, is a further case: `make` writes what the server is given and says which checkpoint
of ours predicts it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from native_models import ERNIE, MELLUM, MIMO, QWEN3_5, Family, write_family
from wmtp.demo.zoo import EXHIBITS, stdlib_sources, train_tokenizer, write_exhibit

NUM_HEADS = 4
# Few files, many times: a small model that knows a text half by heart goes on with it. One that does not says the same
# word for ever, and then any heads are right.
_FILES = ("abc.py", "bisect.py", "colorsys.py", "copy.py", "keyword.py")
_STEPS = 250
_PIECE = 150  # characters: about 64 tokens
_RECIPE = """\
run: {{name: {name}, seed: 42}}
data:
  train: {{files: {files}, max_length: 64, packing: {packing}}}
train:
  algo: baseline-mtp
  learning_rate: 4.0e-3
  max_steps: {steps}
  per_device_train_batch_size: 8
  gradient_accumulation_steps: 1
  lr_scheduler_type: cosine
  adam_beta2: 0.95
"""


@dataclass(frozen=True)
class Served:
    """What a server is given, and what has to come of it.

    Attributes:
        target: Directory of the model.
        speculative: How the server is to draft, in its own words.
        model: The checkpoint of ours whose logits predict what is accepted.
        dtype: In which both compute.
        engine: The server: a name that check.py knows.
    """

    target: Path
    speculative: dict[str, Any]
    model: Path
    dtype: str = "float32"
    engine: str = "vllm"

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
        wrecked: Whether the heads were spoiled on purpose: then the count must be another one.
    """

    name: str
    make: Callable[[Path], Served]
    wrecked: bool = False


@dataclass(frozen=True)
class Heads:
    """Heads to grow and train.

    Attributes:
        name: Of their directories.
        options: Of `wmtp grow`.
    """

    name: str
    options: tuple[str, ...]


def wmtp(*words: str | Path) -> None:
    """Run a command as a user does; what it says is not part of the table."""
    subprocess.run([sys.executable, "-m", "wmtp.cli.main", "-q", *map(str, words)], check=True, stdout=sys.stderr)


def training_files() -> list[Path]:
    """Return the modules of the standard library that models learn."""
    return [path for path in stdlib_sources() if path.name in _FILES]


def plain(directory: Path) -> Path:
    """Return a fresh causal LM of the demo's zoo, with its tokenizer."""
    found = next(exhibit for exhibit in EXHIBITS if exhibit.name == "llama-plain")
    path = directory / found.name
    return path if path.exists() else write_exhibit(found, path, train_tokenizer(stdlib_sources()))


def trained(directory: Path, heads: Heads) -> Path:
    """Grow heads on a fresh model, train all of it for a little, and return the checkpoint."""
    grown, final = directory / heads.name, directory / "runs" / heads.name / "final"
    if not grown.exists():
        wmtp("grow", plain(directory), grown, "--heads", str(NUM_HEADS), *heads.options)
    if not final.exists():
        train(grown, directory, heads.name)
    return final


def train(model: Path, directory: Path, name: str, *, packing: bool = True) -> None:
    """Train all of a checkpoint for a little; the run's directory is `runs/<name>`.

    Args:
        model: The checkpoint.
        directory: Below which everything is.
        name: Of the run.
        packing: False for a trunk whose documents would see each other; each piece of the text is then a row.
    """
    files = json.dumps([str(path) for path in training_files()] if packing else [str(_in_pieces(directory))])
    recipe, config = directory / f"{name}.recipe.yaml", directory / f"{name}.config.yaml"
    recipe.write_text(_RECIPE.format(name=name, files=files, steps=_STEPS, packing=json.dumps(packing)))
    paths = {"models": {"base": str(model)}, "output_dir": str(directory / "runs")}
    config.write_text(json.dumps({"paths": paths, "devices": {"device": "cpu", "dtype": "float32"}}))
    wmtp("train", "--config", config, "--recipe", recipe)


def exported(model: Path, directory: Path, to: str) -> Path:
    """Export a checkpoint, if that was not done before."""
    if not directory.exists():
        wmtp("export", model, directory, "--to", to)
    return directory


def _in_pieces(directory: Path) -> Path:
    path = directory / "pieces.jsonl"
    text = "".join(file.read_text(encoding="utf-8") for file in training_files())
    pieces = (text[start : start + _PIECE] for start in range(0, len(text), _PIECE))
    path.write_text("".join(json.dumps({"text": piece}) + "\n" for piece in pieces), encoding="utf-8")
    return path


def medusa(directory: Path, *, heads: Heads, to: str = "vllm-medusa") -> Served:
    """Train heads, and export trunk and heads."""
    model = trained(directory, heads)
    drafter = exported(model, directory / f"{heads.name}-{to}", to)
    speculative = {"method": "medusa", "model": str(drafter), "num_speculative_tokens": NUM_HEADS - 1}
    return Served(exported(model, directory / f"{heads.name}-trunk", "transformers"), speculative, model)


def wrecked_medusa(directory: Path, *, heads: Heads) -> Served:
    """Export heads, then put the last in the place of the first, which no reader notices."""
    served = medusa(directory, heads=heads)
    wrecked = directory / f"{heads.name}-wrecked"
    exported(served.model, wrecked, "vllm-medusa")
    tensors = load_file(wrecked / "model.safetensors")
    tensors["lm_heads.0.weight"] = tensors[f"lm_heads.{NUM_HEADS - 2}.weight"].clone()
    save_file(tensors, wrecked / "model.safetensors", {"format": "pt"})
    return Served(served.target, {**served.speculative, "model": str(wrecked)}, served.model)


def native(directory: Path, *, family: Family, num_drafts: int = 1, engine: str = "vllm") -> Served:
    """Train a model with native heads, and export it in the layout of its family."""
    fresh, final = directory / f"{family.name}-released", directory / "runs" / family.name / "final"
    if not fresh.exists():
        write_family(family, fresh, train_tokenizer(stdlib_sources()))
        wmtp("init", fresh)
    if not final.exists():
        train(fresh, directory, family.name, packing=family.packing)
    target = exported(final, directory / f"{family.name}-native", "native")
    wmtp("validate", target, "--for", engine)
    return Served(target, {"method": "mtp", "num_speculative_tokens": num_drafts}, final, family.dtype, engine)


_LINEAR = Heads("linear", ("--head-type", "linear"))
_BLOCKS = Heads("resblock", ("--head-type", "resblock", "--num-blocks", "2"))
_SHARED = Heads("shared", ("--head-type", "resblock", "--shared-unembedding"))
CASES = (
    Case("Medusa, `linear` heads", partial(medusa, heads=_LINEAR)),
    Case("Medusa, `resblock` heads of two blocks", partial(medusa, heads=_BLOCKS)),
    Case("Medusa, `resblock` heads with the shared unembedding", partial(medusa, heads=_SHARED)),
    Case("Medusa, `resblock` heads, reference layout", partial(medusa, heads=_BLOCKS, to="medusa")),
    Case(
        "control: `linear` heads, the last in the first's place", partial(wrecked_medusa, heads=_LINEAR), wrecked=True
    ),
    Case("native, Qwen3.5", partial(native, family=QWEN3_5)),
    Case("native, MiMo-7B", partial(native, family=MIMO)),
    Case("native, ERNIE 4.5", partial(native, family=ERNIE)),
    Case("native, Mellum", partial(native, family=MELLUM, engine="transformers")),
)
