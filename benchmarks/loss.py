"""Memory and time of the loss: cross-entropy of every head and its gradients, against stacked logits.

    python benchmarks/loss.py               # ten minutes, 5 GB of memory, prints markdown
    python benchmarks/loss.py --quick       # a small shape, to see that it runs

Arms: `stacked` makes logits [tokens * heads, vocab] and calls F.cross_entropy; `torch` and `eager` are the two
backends of wmtp, and `even` is what `auto` does where every token of a head counts the same, as in baseline-mtp.
Times are of one process, all arms in turn after a warm-up. Memory is that of a fresh process for each figure, found
in two ways that know nothing of each other: every allocation that PyTorch makes, which is exact to the byte and the
same in every run, and the largest resident set, which sees what PyTorch does not allocate itself. (With `--quick` the
resident set says nothing: it is made of memory that was there before.)
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.nn.functional as F  # noqa: N812 - the name that everyone knows it by
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

import wmtp
from wmtp.models.losses import Backend, per_head_cross_entropy

REPEATS = 5
HEADS = (1, 2, 4, 8)
MAIN_HEADS = 4
LAYOUTS = {"shared": "one unembedding for all heads", "own": "one unembedding a head"}
LARGEST_MEMORY, LARGEST_TIME, LARGEST_DIFFERENCE = 0.2, 1.8, 1e-5


@dataclass(frozen=True)
class Size:
    """Tokens of a batch, what a hidden state has, and the vocabulary."""

    tokens: int
    dim: int
    vocab: int


FULL, QUICK = Size(1024, 576, 49152), Size(256, 64, 4096)


@dataclass(frozen=True)
class Inputs:
    """Leaves of the loss: a hidden state for each head, and one weight, or one for each head."""

    hidden: list[Tensor]
    weights: list[Tensor]
    targets: Tensor

    @classmethod
    def random(cls, size: Size, heads: int, layout: str) -> Inputs:
        """Return the same numbers for every arm."""
        made = torch.Generator().manual_seed(0)
        hidden = [torch.randn(4, size.tokens // 4, size.dim, generator=made) for _ in range(heads)]
        count = 1 if layout == "shared" else heads
        weights = [torch.randn(size.vocab, size.dim, generator=made) * 0.02 for _ in range(count)]
        targets = torch.randint(0, size.vocab, (4, size.tokens // 4, heads), generator=made)
        return cls([h.requires_grad_() for h in hidden], [w.requires_grad_() for w in weights], targets)

    def weight(self, k: int) -> Tensor:
        """Return the unembedding of head k, counted from 1."""
        return self.weights[(k - 1) % len(self.weights)]

    def clear(self) -> None:
        """Forget all gradients."""
        for leaf in (*self.hidden, *self.weights):
            leaf.grad = None


def stacked(inputs: Inputs) -> Tensor:
    """Make the logits of all heads, then their cross-entropy: the textbook way."""
    logits = torch.stack([F.linear(hidden, inputs.weight(k)) for k, hidden in enumerate(inputs.hidden, 1)], dim=2)
    ce = F.cross_entropy(logits.flatten(0, 2), inputs.targets.flatten(), reduction="none")
    return ce.view_as(inputs.targets)


def _ours(backend: Backend, *, is_even: bool = False) -> Callable[[Inputs], Tensor]:
    return lambda inputs: per_head_cross_entropy(
        inputs.hidden,
        lambda k: (inputs.weight(k), None),
        inputs.targets,
        backend,
        shares=[1.0] * len(inputs.hidden) if is_even else None,
    )


ARMS: dict[str, Callable[[Inputs], Tensor]] = {
    "stacked": stacked,
    "even": _ours("auto", is_even=True),
    "torch": _ours("torch"),
    "eager": _ours("eager"),
}


def allocated_peak(act: Callable[[], None]) -> int:
    """Return the most bytes that PyTorch had allocated at once for what is done, over what there was before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        act()
    with TemporaryDirectory() as directory:
        path = Path(directory) / "trace.json"
        recorded.export_chrome_trace(str(path))
        events = json.loads(path.read_text())["traceEvents"]
    steps = sorted((event["ts"], event["args"]["Bytes"]) for event in events if event.get("name") == "[memory]")
    held = most = 0
    for _, num_bytes in steps:
        held += num_bytes
        most = max(most, held)
    return most


def resident_peak(act: Callable[[], None]) -> int:
    """Return how far the resident set of this process rises above where it was; Linux only."""
    Path("/proc/self/clear_refs").write_text("5")  # begins a new maximum
    before = _status("VmRSS")
    act()
    return _status("VmHWM") - before


def _status(field: str) -> int:
    return int(Path("/proc/self/status").read_text().split(f"{field}:")[1].split()[0]) * 1024


def report_own_memory(arm: str, layout: str, heads: int, *, size: Size) -> None:
    """Print both peaks in MB, without the gradients of the weights; the other end of `memory`."""
    # What PyTorch sets up once is no cost of an arm: all have run once, on small inputs.
    for run in ARMS.values():
        run(Inputs.random(QUICK, 1, layout)).sum().backward()
    figures = []
    for measure in (resident_peak, allocated_peak):
        inputs = Inputs.random(size, heads, layout)
        peak = measure(lambda inputs=inputs: ARMS[arm](inputs).sum().backward())
        figures.append((peak - sum(weight.nbytes for weight in inputs.weights)) / 1e6)
    print(*figures)


def memory(arm: str, layout: str, heads: int, *, quick: bool) -> tuple[float, float]:
    """Return resident and allocated peak of one arm in MB, from a fresh process."""
    words = [sys.executable, __file__, "--peak", arm, layout, str(heads), *(["--quick"] if quick else [])]
    quiet = {**os.environ, "KINETO_LOG_LEVEL": "5"}
    output = subprocess.run(words, check=True, capture_output=True, text=True, env=quiet).stdout
    resident, allocated = map(float, output.split()[-2:])
    return resident, allocated


def print_memory(*, quick: bool) -> None:
    """Print the peaks of every arm for each number of heads."""
    print("\n| unembedding | heads | arm | allocated, MB | of stacked | resident, MB | of stacked | target |")
    print("|---|---|---|---|---|---|---|---|")
    for layout, meaning in LAYOUTS.items():
        for heads in HEADS:
            found = {arm: memory(arm, layout, heads, quick=quick) for arm in ARMS}
            for arm, (resident, allocated) in found.items():
                of = [mine / base for mine, base in zip((resident, allocated), found["stacked"], strict=True)]
                wanted = f"<= {LARGEST_MEMORY}" if arm != "stacked" and heads == MAIN_HEADS else ""
                figures = f"{allocated:,.0f} | {of[1]:.3f} | {resident:,.0f} | {of[0]:.3f}"
                print(f"| {meaning} | {heads} | {arm} | {figures} | {wanted} |", flush=True)


def time_arms(inputs: Inputs) -> dict[str, list[float]]:
    """Return seconds of loss and gradients: one warm-up, then repetitions that each begin with another arm."""
    seconds: dict[str, list[float]] = {arm: [] for arm in ARMS}
    names = list(ARMS)
    for repetition in range(REPEATS + 1):
        names.append(names.pop(0))
        for name in names:
            inputs.clear()
            started = time.perf_counter()
            ARMS[name](inputs).sum().backward()
            if repetition:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def gradients(arm: str, inputs: Inputs) -> list[Tensor]:
    """Return the gradients of hidden states and weights, every pair with a weight of its own."""
    inputs.clear()
    factors = torch.rand(inputs.targets.shape, generator=torch.Generator().manual_seed(1)) * 2
    (ARMS[arm](inputs) * factors).sum().backward()
    return [leaf.grad for leaf in (*inputs.hidden, *inputs.weights) if leaf.grad is not None]


def difference(arm: str, inputs: Inputs) -> float:
    """Return how far an arm's gradients are from those of stacked logits, as a share of each one's largest value."""
    pairs = zip(gradients(arm, inputs), gradients("stacked", inputs), strict=True)
    return max(float((found - expected).abs().max() / expected.abs().max()) for found, expected in pairs)


def print_times(size: Size) -> None:
    """Print median, spread and ratio of every arm, and how far its gradients are off."""
    print("\n| unembedding | heads | arm | median, s | spread, s | ratio | target | gradients differ by | target |")
    print("|---|---|---|---|---|---|---|---|---|")
    for layout, meaning in LAYOUTS.items():
        inputs = Inputs.random(size, MAIN_HEADS, layout)
        seconds = time_arms(inputs)
        base = statistics.median(seconds["stacked"])
        for arm, times in seconds.items():
            median, own = statistics.median(times), arm != "stacked"
            spread, off = f"{min(times):.3f} to {max(times):.3f}", f"{difference(arm, inputs):.1e}" if own else ""
            time_wanted, off_wanted = (f"<= {LARGEST_TIME}", f"<= {LARGEST_DIFFERENCE:.0e}") if own else ("", "")
            figures = f"{median:.3f} | {spread} | {median / base:.2f} | {time_wanted} | {off} | {off_wanted}"
            print(f"| {meaning} | {MAIN_HEADS} | {arm} | {figures} |", flush=True)


def versions() -> str:
    """Return what the figures depend on, in one line."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    processor = next((line.split(":", 1)[1].strip() for line in lines if "model name" in line), platform.machine())
    packages = f"wmtp {wmtp.__version__}, torch {torch.__version__}, Python {platform.python_version()}"
    return f"{packages}, {torch.get_num_threads()} threads of {os.cpu_count()} x {processor}"


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="a small shape")
    parser.add_argument("--peak", nargs=3, metavar=("ARM", "LAYOUT", "HEADS"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    size = QUICK if chosen.quick else FULL
    if chosen.peak:
        arm, layout, heads = chosen.peak
        report_own_memory(arm, layout, int(heads), size=size)
        return
    print(
        f"{versions()}\n{size.tokens:,} tokens, hidden size {size.dim}, vocabulary {size.vocab:,}, float32", flush=True
    )
    print_times(size)
    if sys.platform == "linux":
        print_memory(quick=chosen.quick)


if __name__ == "__main__":
    main()
