"""What `wmtp plan --world-size` says beside what processes then take and read: `python benchmarks/scale.py`.

Random llamas of 44 million parameters, trained for two steps on CPUs (gloo). Memory is the highest that the system has
seen of a process, pages of files among it, less what the same run of a tiny model takes, which is libraries.
"""

from __future__ import annotations

import json
import os
import re
import socket
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, TrainerCallback
from transformers.convert_slow_tokenizer import bytes_to_unicode

from wmtp.metadata.schema import ModelMetadata
from wmtp.models.mtp import MTPForCausalLM
from wmtp.publishing.write import write_model_directory
from wmtp.run_plan.plan import plan_run
from wmtp.run_plan.scale import Processes, ScalePlan
from wmtp.settings.config import load_config
from wmtp.settings.recipe import load_recipe
from wmtp.training.preparation import prepare
from wmtp.training.stopping import StopRequest

_SHAPE = {"hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 10, "num_attention_heads": 8,
          "num_key_value_heads": 4, "vocab_size": 8000}  # fmt: skip
_TINY = {**_SHAPE, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "vocab_size": 512}
_CASES: list[tuple[int, str, dict[str, Any]]] = [
    (1, "float32", {"sharding": "none"}),
    (2, "float32", {"sharding": "none"}),
    (2, "float32", {"sharding": "fsdp"}),
    (4, "float32", {"sharding": "fsdp"}),
    (1, "float32", {"sharding": "none", "per_device_train_batch_size": 8}),
    (1, "float32", {"sharding": "none", "per_device_train_batch_size": 8, "gradient_checkpointing": True}),
    (1, "float32", {"sharding": "none", "trainable": "heads"}),
    (2, "bfloat16", {"sharding": "fsdp"}),
]
_KEPT = re.compile(r"process \d+ of \d+ keeps ([\d,]+) of the ([\d,]+) bytes of parameters")
_COLUMNS = ("processes", "dtype", "`train`", "memory planned", "in steps", "with saving", "read planned", "measured",
            "checkpoint planned", "measured")  # fmt: skip


def main() -> None:
    """Print a table of plan and measurement."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        for place, shape in (("base", _SHAPE), ("tiny", _TINY)):
            _wait(_fork(lambda place=place, shape=shape: _write_model(directory / place, shape)))
        text = "for number in range(10):\n    print(number, number * number)\n"
        (directory / "data.txt").write_text(text * 2000)
        libraries = _run(directory, "tiny", 1, "float32", {}).peak
        print(f"libraries: {_megabytes(libraries)}\n")
        print(f"| {' | '.join(_COLUMNS)} |\n{'|---' * len(_COLUMNS)}|", flush=True)
        for number, (count, dtype, training) in enumerate(_CASES):
            found = _run(directory, f"run-{number}", count, dtype, training)
            print(_row(found, libraries, [str(count), dtype, *_said(training)]), flush=True)


@dataclass(frozen=True)
class _Measured:
    """What a run was planned to take, and the most that any of its processes took: in steps, and ever."""

    plan: ScalePlan
    peak: int
    highest: int
    read: int
    saved: int


def _run(directory: Path, name: str, count: int, dtype: str, training: dict[str, Any]) -> _Measured:
    base = "tiny" if name == "tiny" else "base"
    _write_settings(directory, name, base, dtype, training)
    config, recipe = load_config(directory / "config.json"), load_recipe(directory / "recipe.json")
    plan = plan_run(config, recipe, {}, processes=Processes(count)).scale
    assert plan is not None
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # Forked rather than started: what the libraries take is there before, and the same for all.
    pids = [_fork(lambda rank=rank: _train(directory, rank, count, port)) for rank in range(count)]
    for pid in pids:
        _wait(pid)
    found = [json.loads((directory / f"process-{rank}.json").read_text()) for rank in range(count)]
    peak, highest = (max(each[what] for each in found) for what in ("peak", "highest"))
    read = _read_bytes(found[0]["notes"]) or (directory / base / "model.safetensors").stat().st_size
    step = directory / "runs" / name / "step-1"
    saved = sum(file.stat().st_size for file in step.rglob("*") if file.suffix == ".safetensors")
    return _Measured(plan, peak, highest, read, saved)


def _row(found: _Measured, libraries: int, words: list[str]) -> str:
    plan = found.plan
    kept = sum(plan.checkpoint.values()) - plan.checkpoint["written"]
    sizes = [sum(plan.memory.values()), found.peak - libraries, found.highest - libraries]
    sizes += [plan.read["sharded"] + plan.read["replicated"], found.read, kept, found.saved]
    return f"| {' | '.join([*words, *map(_megabytes, sizes)])} |"


def _said(training: dict[str, Any]) -> list[str]:
    return [", ".join(f"{key}: {str(value).lower()}" for key, value in training.items())]


def _megabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:,.0f} MB"


def _fork(act: Callable[[], None]) -> int:
    """Do something in a process of its own, and return its number."""
    if pid := os.fork():
        return pid
    try:
        act()
        os._exit(0)
    finally:
        os._exit(1)


def _wait(pid: int) -> None:
    if os.waitpid(pid, 0)[1]:
        raise SystemExit("a process has failed; what it said stands above")


def _train(directory: Path, rank: int, count: int, port: int) -> None:
    places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in places.items()}
    torch.set_num_threads(1)
    torch.nn.functional.linear(torch.ones(8, 8, requires_grad=True), torch.ones(8, 8)).sum().backward()
    before = _status("VmRSS")
    run = prepare(load_config(directory / "config.json"), load_recipe(directory / "recipe.json"), {})
    peaks = _Peaks()
    trainer = run.build_trainer([peaks], StopRequest())
    trainer.train()
    highest = max([*peaks.of_steps, *peaks.between, _status("VmHWM")])
    facts = {"peak": max(peaks.of_steps) - before, "highest": highest - before, "notes": run.base.receipt.notes}
    (directory / f"process-{rank}.json").write_text(json.dumps(facts))
    trainer.end()


class _Peaks(TrainerCallback):
    """The most memory within optimizer steps, and between them, where checkpoints are written."""

    def __init__(self) -> None:
        self.of_steps: list[int] = []
        self.between: list[int] = []

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.between.append(_status("VmHWM"))
        Path("/proc/self/clear_refs").write_text("5")  # the system begins to look for the highest anew

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.of_steps.append(_status("VmHWM"))
        Path("/proc/self/clear_refs").write_text("5")


def _status(field: str) -> int:
    """Return a number of bytes of /proc/self/status."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{field}:"))
    return 1024 * int(line.split()[1])


def _read_bytes(notes: list[str]) -> int | None:
    kept = next((match for note in notes if (match := _KEPT.match(note))), None)
    return int(kept[1].replace(",", "")) if kept else None


def _write_settings(directory: Path, name: str, base: str, dtype: str, training: dict[str, Any]) -> None:
    paths = {"models": {"base": base}, "output_dir": "runs"}
    config = {"paths": paths, "devices": {"device": "cpu", "dtype": dtype}, "tracking": {"report_to": []}}
    steps = {"max_steps": 2, "save_steps": 1, "optim": "adamw_torch", "gradient_accumulation_steps": 2}
    train = {"algo": "baseline-mtp", "per_device_train_batch_size": 1, **steps, **training}
    data = {"train": {"files": ["data.txt"], "max_length": 128}}
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "recipe.json").write_text(json.dumps({"run": {"name": name}, "data": data, "train": train}))


def _write_model(directory: Path, shape: dict[str, int]) -> None:
    config = LlamaConfig(**shape, tie_word_embeddings=False)
    config.mtp_config = {"n_future_tokens": 3, "head_type": "transformer"}
    torch.manual_seed(0)
    model = MTPForCausalLM(config)
    directory.mkdir()
    document = {
        "wmtp_type": "base_model", "training_algorithm": "mtp", "base_architecture": "llama", "storage_version": "2.0",
        "loading_strategy": {"loader_type": "custom_mtp", "model_class_name": "MTPForCausalLM",
                             "required_files": ["config.json"]},
        "algorithm_compatibility": ["baseline-mtp"], "mtp": {"n_future_tokens": 3, "head_type": "transformer"},
    }  # fmt: skip
    write_model_directory(
        directory,
        state_dict=model.state_dict(),
        config=config.to_diff_dict(),
        metadata=ModelMetadata.model_validate(document),
        extra_files=_tokenizer(),
    )


def _tokenizer() -> dict[str, bytes]:
    """A tokenizer without merges: every byte is a token."""
    vocabulary = {"</s>": 0} | {letter: number for number, letter in enumerate(bytes_to_unicode().values(), 1)}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    end = {"id": 0, "content": "</s>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
           "special": True}  # fmt: skip
    document = {"version": "1.0", "added_tokens": [end], "pre_tokenizer": byte_level, "decoder": byte_level,
                "model": {"type": "BPE", "vocab": vocabulary, "merges": []}}  # fmt: skip
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>"}
    return {"tokenizer.json": json.dumps(document).encode(), "tokenizer_config.json": json.dumps(settings).encode()}


if __name__ == "__main__":
    main()
