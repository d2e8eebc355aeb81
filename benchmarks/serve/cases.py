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

from wmtp.demo.zoo import EXHIBITS, stdlib_sources, train_tokenizer, write_exhibit

NUM_HEADS = 4
_STEPS = 120
_NUM_TRAINING_FILES = 40
_RECIPE = """\
run: {{name: {name}, seed: 42}}
data:
  train: {{files: {files}, format: text, max_length: 64, packing: true}}
train:
  algo: baseline-mtp
  learning_rate: 4.0e-3
  max_steps: {steps}
  per_device_train_batch_size: 16
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
    """

    target: Path
    speculative: dict[str, Any]
    model: Path
    dtype: str = "float32"

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


def wmtp(*words: str | Path) -> None:
    """Run a command as a user does."""
    subprocess.run([sys.executable, "-m", "wmtp.cli.main", "-q", *map(str, words)], check=True)


def trained(directory: Path, name: str, *options: str) -> Path:
    """Grow heads on a fresh model, train all of it for a little, and return the checkpoint."""
    final = directory / "runs" / name / "final"
    if not final.exists():
        plain = directory / "llama-plain"
        if not plain.exists():
            exhibit = next(each for each in EXHIBITS if each.name == plain.name)
            write_exhibit(exhibit, plain, train_tokenizer(stdlib_sources()))
        wmtp("grow", plain, directory / name, "--heads", str(NUM_HEADS), *options)
        files = json.dumps([str(path) for path in stdlib_sources()[:_NUM_TRAINING_FILES]])
        recipe, config = directory / f"{name}.recipe.yaml", directory / f"{name}.config.yaml"
        recipe.write_text(_RECIPE.format(name=name, files=files, steps=_STEPS))
        paths = {"models": {"base": str(directory / name)}, "output_dir": str(directory / "runs")}
        config.write_text(json.dumps({"paths": paths, "devices": {"device": "cpu", "dtype": "float32"}}))
        wmtp("train", "--config", config, "--recipe", recipe)
    return final


def exported(model: Path, directory: Path, to: str) -> Path:
    """Export a checkpoint, if that was not done before."""
    if not directory.exists():
        wmtp("export", model, directory, "--to", to)
    return directory


def medusa(directory: Path, *, name: str, options: tuple[str, ...], to: str = "vllm-medusa") -> Served:
    """Train heads, and export trunk and heads."""
    model = trained(directory, name, *options)
    drafter = exported(model, directory / f"{name}-{to}", to)
    speculative = {"method": "medusa", "model": str(drafter), "num_speculative_tokens": NUM_HEADS - 1}
    return Served(exported(model, directory / f"{name}-trunk", "transformers"), speculative, model)


def wrecked_medusa(directory: Path, *, name: str, options: tuple[str, ...]) -> Served:
    """Export heads, then put the last in the place of the first, as no reader could notice."""
    served = medusa(directory, name=name, options=options)
    wrecked = directory / f"{name}-wrecked"
    exported(served.model, wrecked, "vllm-medusa")
    tensors = load_file(wrecked / "model.safetensors")
    tensors["lm_heads.0.weight"] = tensors[f"lm_heads.{NUM_HEADS - 2}.weight"].clone()
    save_file(tensors, wrecked / "model.safetensors", {"format": "pt"})
    return Served(served.target, {**served.speculative, "model": str(wrecked)}, served.model)


_LINEAR = {"name": "linear", "options": ("--head-type", "linear")}
_BLOCKS = {"name": "resblock", "options": ("--head-type", "resblock", "--num-blocks", "2")}
_SHARED = {"name": "shared", "options": ("--head-type", "resblock", "--shared-unembedding")}
CASES = (
    Case("Medusa, `linear` heads", partial(medusa, **_LINEAR)),
    Case("Medusa, `resblock` heads of two blocks", partial(medusa, **_BLOCKS)),
    Case("Medusa, `resblock` heads with the shared unembedding", partial(medusa, **_SHARED)),
    Case("Medusa, `resblock` heads, reference layout", partial(medusa, **_BLOCKS, to="medusa")),
    Case("control: `linear` heads, the last in the first's place", partial(wrecked_medusa, **_LINEAR), wrecked=True),
)
