"""How long the proof takes by itself, after imports: the plan of a 1.1B model, and of one in a thousand shards.

The peer reads the same headers with safetensors' own reader, and proves nothing.
"""

from __future__ import annotations

import gc
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import shapes
import transformers
from safetensors import safe_open

import wmtp

REPEATS = 9
# 120 layers of 9 tensors each: enough for a thousand shards.
_MANY = {
    "hidden_size": 64, "num_hidden_layers": 120, "intermediate_size": 64, "num_attention_heads": 4,
    "num_key_value_heads": 4, "vocab_size": 256,
}  # fmt: skip


def read_headers(directory: Path) -> int:
    """Read names and shapes with safetensors itself."""
    found = 0
    for path in directory.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            found += len([file.get_slice(name).get_shape() for name in file.keys()])  # noqa: SIM118
    return found


def measure(peers: dict[str, Callable[[], object]]) -> dict[str, list[float]]:
    """Return seconds of each peer: one warm-up, then interleaved repetitions."""
    seconds: dict[str, list[float]] = {name: [] for name in peers}
    for repetition in range(REPEATS + 1):
        for name, peer in peers.items():
            gc.collect()
            started = time.perf_counter()
            peer()
            if repetition:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def main() -> None:
    """Print a table of medians and ratios."""
    transformers.logging.set_verbosity_error()
    print("| checkpoint | what | median, s | spread, s | ratio |\n|---|---|---|---|---|")
    for label, sizes, num_shards in (
        ("llama, 1.1B, one file", shapes.SHAPES["llama"], 1),
        ("1,000 shards", _MANY, 1000),
    ):
        shapes.SHAPES["llama"] = sizes
        with TemporaryDirectory() as directory:
            plain = shapes.write_checkpoints(Path(directory), "llama", num_shards=num_shards, quick=False).plain
            num_files = len(list(plain.glob("*.safetensors")))
            assert num_files == num_shards, json.dumps({"files": num_files})
            seconds = measure(
                {
                    "safetensors: read the headers": lambda path=plain: read_headers(path),
                    "wmtp.plan_load: the whole proof": lambda path=plain: wmtp.plan_load(path),
                }
            )
        first = statistics.median(next(iter(seconds.values())))
        for name, times in seconds.items():
            median = statistics.median(times)
            spread = f"{min(times):.3f} to {max(times):.3f}"
            print(f"| {label} | {name} | {median:.3f} | {spread} | {median / first:.2f} |")


if __name__ == "__main__":
    main()
