"""Small models to serve: made, trained and exported with the command line, as a user does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from wmtp.demo.zoo import EXHIBITS, stdlib_sources, train_tokenizer, write_exhibit

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


def wmtp(*words: str | Path) -> None:
    """Run a command as a user does; what it says is not part of the table."""
    subprocess.run([sys.executable, "-m", "wmtp.cli.main", "-q", *map(str, words)], check=True, stdout=sys.stderr)


def training_text() -> str:
    """Return the modules of the standard library that models learn."""
    return "".join(path.read_text(encoding="utf-8") for path in _training_files())


def _training_files() -> list[Path]:
    return [path for path in stdlib_sources() if path.name in _FILES]


def plain(directory: Path) -> Path:
    """Return a fresh causal LM of the demo's zoo, with its tokenizer."""
    found = next(exhibit for exhibit in EXHIBITS if exhibit.name == "llama-plain")
    path = directory / found.name
    return path if path.exists() else write_exhibit(found, path, train_tokenizer(stdlib_sources()))


def grown(source: Path, destination: Path, *options: str) -> Path:
    """Grow heads, if that was not done before."""
    if not destination.exists():
        wmtp("grow", source, destination, *options)
    return destination


def trained(model: Path, directory: Path, name: str, *, packing: bool = True) -> Path:
    """Train all of a checkpoint for a little, if that was not done before, and return the last one of `runs/<name>`.

    Args:
        model: The checkpoint.
        directory: Below which everything is.
        name: Of the run.
        packing: False for a trunk whose documents would see each other; each piece of the text is then a row.
    """
    final = directory / "runs" / name / "final"
    if final.exists():
        return final
    files = json.dumps([str(path) for path in _training_files()] if packing else [str(_in_pieces(directory))])
    recipe, config = directory / f"{name}.recipe.yaml", directory / f"{name}.config.yaml"
    recipe.write_text(_RECIPE.format(name=name, files=files, steps=_STEPS, packing=json.dumps(packing)))
    paths = {"models": {"base": str(model)}, "output_dir": str(directory / "runs")}
    config.write_text(json.dumps({"paths": paths, "devices": {"device": "cpu", "dtype": "float32"}}))
    wmtp("train", "--config", config, "--recipe", recipe)
    return final


def exported(model: Path, directory: Path, to: str, *options: str) -> Path:
    """Export a checkpoint, if that was not done before."""
    if not directory.exists():
        wmtp("export", model, directory, "--to", to, *options)
    return directory


def _in_pieces(directory: Path) -> Path:
    path, text = directory / "pieces.jsonl", training_text()
    pieces = (text[start : start + _PIECE] for start in range(0, len(text), _PIECE))
    path.write_text("".join(json.dumps({"text": piece}) + "\n" for piece in pieces), encoding="utf-8")
    return path
