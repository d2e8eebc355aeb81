"""Loading speed and memory of wmtp against transformers, and against the naive way, on models of about 1.1B.

The experts of mixtral and qwen3_moe are stored one by one.

    python benchmarks/load.py               # an hour, 3 GB of disk, prints markdown
    python benchmarks/load.py --only llama  # one architecture
    python benchmarks/load.py --quick       # a small shape, to see that it runs
    python benchmarks/load.py --keep DIR    # leaves the checkpoints there

All peers of a table are measured in one run, interleaved, with a warm page cache: machines are noisy, so only ratios
within a run mean anything. Peak memory is that of a fresh process for each row.
"""

from __future__ import annotations

import argparse
import gc
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import safetensors.torch
import torch
import transformers
from shapes import MADE, SHAPES, Layout, write_checkpoints
from transformers import AutoConfig, AutoModelForCausalLM

import wmtp
from wmtp.manifest import sha256_bytes

REPEATS = 9
TARGETS = {"auto": 0.5, "float32": 1.0}  # of the time of from_pretrained, for the full shapes
MADE_TARGET = 0.9  # of the same, where parameters are made of several tensors
_PAGE_BYTES = 4096
_IDS = torch.arange(16).view(1, 16)

Load = Callable[[], torch.nn.Module]


def peers(layout: Layout, dtype: str) -> dict[str, Load]:
    """Return what is compared: transformers first, then both strategies of wmtp on the very same files."""
    own = {"modeling.py": sha256_bytes((layout.own / "modeling.py").read_bytes())}
    return {
        "transformers": lambda: AutoModelForCausalLM.from_pretrained(layout.plain, dtype=dtype),
        "huggingface": lambda: wmtp.load_model(layout.plain, dtype=dtype),
        "custom_mtp": lambda: wmtp.load_model(layout.own, dtype=dtype, allow_code=own),
    }


def naive(directory: Path, dtype: str) -> torch.nn.Module:
    """Load the textbook way: build with initialisation, read the files, copy."""
    config = AutoConfig.from_pretrained(directory)
    model = AutoModelForCausalLM.from_config(config, dtype=config.dtype if dtype == "auto" else dtype)
    files = sorted(directory.glob("*.safetensors"))
    model.load_state_dict({k: v for file in files for k, v in safetensors.torch.load_file(file).items()})
    return model


def touch_every_page(model: torch.nn.Module) -> None:
    """Read one byte of every page of every parameter, so that nothing is left to be paid for later."""
    for parameter in model.parameters():
        parameter.data.reshape(-1).view(torch.uint8)[::_PAGE_BYTES].sum()


@torch.no_grad()
def first_forward(model: torch.nn.Module) -> None:
    """Run sixteen tokens through the model."""
    model(_IDS)


def measure(loads: dict[str, Load], then: Callable[[torch.nn.Module], None]) -> dict[str, list[tuple[float, float]]]:
    """Return seconds of each peer for loading and for what comes after it: one warm-up, then interleaved repetitions.

    Each repetition begins with another peer, as memory that the one before has just freed is cheaper to get.
    """
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in loads}
    names = list(loads)
    for repetition in range(REPEATS + 1):
        names.append(names.pop(0))
        for name in names:
            started = time.perf_counter()
            model = loads[name]()
            loaded = time.perf_counter()
            then(model)
            if repetition:
                seconds[name].append((loaded - started, time.perf_counter() - loaded))
            del model
            gc.collect()
    return seconds


def print_rows(label: str, seconds: dict[str, list[float]], target: float | None = None) -> None:
    """Print one row a peer: median, spread, and the ratio of its median to that of the first peer."""
    first = statistics.median(next(iter(seconds.values())))
    for name, times in seconds.items():
        median = statistics.median(times)
        spread = f"{min(times):.4f} to {max(times):.4f}"
        wanted = f"<= {target}" if target and name != "transformers" else ""
        print(f"| {label} | {name} | {median:.4f} | {spread} | {median / first:.2f} | {wanted} |", flush=True)


def print_speed(layout: Layout, label: str, dtype: str, *, target: float, with_forward: bool) -> None:
    """Measure and print loading, one byte of every page after it, and the first forward pass."""
    loads = peers(layout, dtype)
    label = f"{label}, {dtype}:"
    touched = measure(loads, touch_every_page)
    print_rows(f"{label} load", {name: [load for load, _ in times] for name, times in touched.items()}, target)
    if dtype == "auto":  # what is cast is touched by that
        print_rows(f"{label} load and touch every page", {name: [*map(sum, times)] for name, times in touched.items()})
    if with_forward:
        forward = measure(loads, first_forward)
        print_rows(f"{label} load and first forward", {name: [*map(sum, times)] for name, times in forward.items()})


def memory_rows(directory: Path, architecture: str) -> list[str]:
    """Return the rows of the memory table for the checkpoints in a directory, each from a fresh process."""
    rows = []
    # The naive way knows tensors by their names in the file, and where parameters are made of several it has none.
    peers_here = ("transformers", "huggingface", "custom_mtp", *(() if architecture in MADE else ("naive",)))
    for dtype in TARGETS:
        for peer in peers_here:
            words = [sys.executable, __file__, "--peak", peer, dtype, str(directory)]
            output = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout
            rows.append(f"| {architecture}, {dtype} | {peer} | {' | '.join(output.split()[-3:])} |")
    return rows


def report_own_memory(peer: str, dtype: str, directory: Path) -> None:
    """Load in this process, touch every page, and print GB; the other end of `memory_rows`.

    Not `ru_maxrss`: a process inherits that from the one that started it.
    """
    layout = Layout(directory / "plain", directory / "own")
    model = naive(layout.plain, dtype) if peer == "naive" else peers(layout, dtype)[peer]()
    peak_loading = _status("VmHWM")
    touch_every_page(model)
    print(*(f"{size / 1e9:.2f}" for size in (peak_loading, _status("VmHWM"), _status("RssAnon"))))


def _status(field: str) -> int:
    return int(Path("/proc/self/status").read_text().split(f"{field}:")[1].split()[0]) * 1024


def versions() -> str:
    """Return what the figures depend on, in one line."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    processor = next((line.split(":", 1)[1].strip() for line in lines if "model name" in line), platform.machine())
    modules = (wmtp, torch, transformers, safetensors)
    packages = ", ".join(f"{module.__name__} {module.__version__}" for module in modules)
    return f"{packages}, Python {platform.python_version()}, {os.cpu_count()} x {processor}"


def run(directory: Path, architectures: list[str], *, quick: bool, keep: bool) -> None:
    """Measure these architectures and print it as markdown."""
    free, wanted = shutil.disk_usage(directory).free / 1e9, (16 if keep else 3) * (not quick)
    if free < wanted:
        sys.exit(f"error: {directory} has {free:.1f} GB free, the checkpoints need {wanted}\nhint: --scratch DIR")
    print(f"{versions()}\n\n| what | peer | median, s | spread, s | ratio | target |\n|---|---|---|---|---|---|")
    memory: list[str] = []
    for architecture in architectures:
        for num_shards in (1, 4):
            label = f"{architecture}, {'one file' if num_shards == 1 else f'{num_shards} shards'}"
            scratch = directory / f"{architecture}-{num_shards}"
            layout = write_checkpoints(scratch, architecture, num_shards=num_shards, quick=quick)
            for dtype, target in TARGETS.items():
                with_forward = architecture == "llama" and num_shards == 1
                target_here = MADE_TARGET if architecture in MADE else target
                print_speed(layout, label, dtype, target=target_here, with_forward=with_forward)
            if num_shards == 1 and sys.platform == "linux":
                memory += memory_rows(scratch, architecture)
            if not keep:
                shutil.rmtree(scratch)
    header = "\n| what | peer | peak while loading, GB | peak after every page, GB | private at the end, GB |"
    print("\n".join([header, "|---|---|---|---|---|", *memory]))
    print("\nWhat is not private are pages of files: shared by all who read them, given back when memory is short.")


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small shape")
    parser.add_argument("--only", nargs="+", choices=SHAPES, default=list(SHAPES), help="these architectures")
    parser.add_argument("--scratch", type=Path, metavar="DIR", help="where checkpoints are written for the time")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="where checkpoints are written and left")
    parser.add_argument("--peak", nargs=3, metavar=("PEER", "DTYPE", "DIR"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    transformers.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()
    if arguments.peak:
        report_own_memory(*arguments.peak[:2], Path(arguments.peak[2]))
    elif arguments.keep:
        arguments.keep.mkdir(parents=True, exist_ok=True)
        run(arguments.keep, arguments.only, quick=arguments.quick, keep=True)
    else:
        with TemporaryDirectory(dir=arguments.scratch) as scratch:
            run(Path(scratch), arguments.only, quick=arguments.quick, keep=False)


if __name__ == "__main__":
    main()
