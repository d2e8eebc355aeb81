"""Loading speed and memory of wmtp against transformers, and against the naive way, on a 1.1B model.

    python benchmarks/load.py            # minutes, 5 GB of disk, prints markdown
    python benchmarks/load.py --quick    # a small shape, to see that it runs

All peers of a table are measured in one run, interleaved, with a warm page cache: machines are noisy, so only ratios
within a run mean anything. Peak memory is that of a fresh process for each row.
"""

from __future__ import annotations

import argparse
import gc
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import safetensors
import torch
import transformers
from shapes import SHAPES, Layout, write_checkpoints
from transformers import AutoModelForCausalLM

import wmtp
from wmtp.manifest import sha256_bytes

REPEATS = 9
CASTING_REPEATS = 5
_PAGE_BYTES = 4096
_IDS = torch.arange(16).view(1, 16)

Load = Callable[[], torch.nn.Module]


def peers(layout: Layout, dtype: str) -> dict[str, Load]:
    """Return what is compared: transformers first, then both strategies of wmtp on the very same files."""
    own = {"modeling.py": sha256_bytes((layout.own / "modeling.py").read_bytes())}
    wanted = "auto" if dtype == "auto" else getattr(torch, dtype)
    return {
        "transformers": lambda: AutoModelForCausalLM.from_pretrained(layout.plain, dtype=wanted),
        "huggingface": lambda: wmtp.load_model(layout.plain, dtype=dtype),
        "custom_mtp": lambda: wmtp.load_model(layout.own, dtype=dtype, allow_code=own),
    }


def touch_every_page(model: torch.nn.Module) -> None:
    """Read one byte of every page of every parameter, so that nothing is left to be paid for later."""
    for parameter in model.parameters():
        parameter.data.reshape(-1).view(torch.uint8)[::_PAGE_BYTES].sum()


@torch.no_grad()
def first_forward(model: torch.nn.Module) -> None:
    """Run sixteen tokens through the model."""
    model(_IDS)


def measure(
    loads: dict[str, Load], then: Callable[[torch.nn.Module], None] | None, repeats: int
) -> dict[str, list[float]]:
    """Return seconds of each peer: one warm-up, then interleaved repetitions."""
    seconds: dict[str, list[float]] = {name: [] for name in loads}
    for repetition in range(repeats + 1):
        for name, load in loads.items():
            started = time.perf_counter()
            model = load()
            if then is not None:
                then(model)
            elapsed = time.perf_counter() - started
            del model
            gc.collect()
            if repetition:
                seconds[name].append(elapsed)
    return seconds


def print_rows(label: str, seconds: dict[str, list[float]]) -> None:
    """Print one row a peer: median, spread, and the ratio of its median to that of the first peer."""
    first = statistics.median(next(iter(seconds.values())))
    for name, times in seconds.items():
        median = statistics.median(times)
        spread = f"{min(times):.4f} to {max(times):.4f}"
        print(f"| {label} | {name} | {median:.4f} | {spread} | {median / first:.2f} |", flush=True)


def peak_memory(directory: Path, peer: str, dtype: str) -> tuple[float, float]:
    """Return GB at the peak, and what is private at the end, of a process that loads and touches every page (Linux)."""
    words = [sys.executable, __file__, "--peak", peer, dtype, str(directory)]
    output = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    resident, private = output.split()[-2:]
    return float(resident), float(private)


def report_own_peak(peer: str, dtype: str, directory: Path) -> None:
    """Load in this process and print its peak; the other end of `peak_memory`."""
    layout = Layout(directory / "plain", directory / "own")
    load = naive(layout.plain, dtype) if peer == "naive" else peers(layout, dtype)[peer]
    model = load()
    touch_every_page(model)
    print(_status("VmHWM") / 1e9, _status("RssAnon") / 1e9)


def naive(directory: Path, dtype: str) -> Load:
    """Return the textbook way: build with initialisation, read the file, copy."""

    def load() -> torch.nn.Module:
        from safetensors.torch import load_file

        model = AutoModelForCausalLM.from_config(transformers.AutoConfig.from_pretrained(directory))
        state_dict = {k: v for file in sorted(directory.glob("*.safetensors")) for k, v in load_file(file).items()}
        model.load_state_dict(state_dict)
        return model if dtype == "auto" else model.to(getattr(torch, dtype))

    return load


def _status(field: str) -> int:
    """Return a field of this process's status in bytes: VmHWM is its peak, RssAnon what it has to itself now.

    Not `ru_maxrss`: a process inherits that from the one that started it.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) * 1024


def versions() -> str:
    """Return what the figures depend on, in one line."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    packages = (
        f"torch {torch.__version__}, transformers {transformers.__version__}, safetensors {safetensors.__version__}"
    )
    return f"wmtp {wmtp.__version__}, {packages}, Python {platform.python_version()}, {os.cpu_count()} x {model}"


def run(scratch: Path, *, quick: bool) -> None:
    """Measure everything and print it as markdown."""
    print(f"{versions()}\n\n| what | peer | median, s | spread, s | ratio |\n|---|---|---|---|---|", flush=True)
    memory: list[str] = []
    for architecture in SHAPES:
        for num_shards in (1, 4):
            with TemporaryDirectory(dir=scratch) as directory:
                layout = write_checkpoints(Path(directory), architecture, num_shards=num_shards, quick=quick)
                label = f"{architecture}, {'one file' if num_shards == 1 else f'{num_shards} shards'}"
                loads = peers(layout, "auto")
                print_rows(f"{label}: load", measure(loads, None, REPEATS))
                print_rows(f"{label}: load and touch every page", measure(loads, touch_every_page, REPEATS))
                if num_shards > 1:
                    continue
                print_rows(f"{label}: load in float32", measure(peers(layout, "float32"), None, CASTING_REPEATS))
                if architecture == "llama":
                    print_rows(f"{label}: load and first forward", measure(loads, first_forward, CASTING_REPEATS))
                    memory += memory_rows(Path(directory))
    print("\n| dtype | peer | peak resident, GB | private at the end, GB |\n|---|---|---|---|")
    print("\n".join(memory))


def memory_rows(directory: Path) -> list[str]:
    """Return the rows of the memory table for the checkpoints in a directory."""
    rows = []
    for dtype in ("auto", "float32"):
        for peer in ("transformers", "huggingface", "custom_mtp", "naive"):
            resident, private = peak_memory(directory, peer, dtype)
            rows.append(f"| {dtype} | {peer} | {resident:.2f} | {private:.2f} |")
    return rows


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small shape")
    parser.add_argument("--scratch", type=Path, default=None, help="where the checkpoints are written for the time")
    parser.add_argument("--peak", nargs=3, metavar=("PEER", "DTYPE", "DIR"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()
    if arguments.peak:
        peer, dtype, directory = arguments.peak
        report_own_peak(peer, dtype, Path(directory))
    else:
        run(arguments.scratch, quick=arguments.quick)


if __name__ == "__main__":
    main()
