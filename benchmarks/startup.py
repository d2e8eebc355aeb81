"""How long commands take that need no torch, against importing the two libraries that they cannot do without."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from shapes import write_checkpoints

REPEATS = 15


def measure(zoo: Path) -> dict[str, list[float]]:
    """Return seconds of each command: one warm-up, then interleaved repetitions."""
    program = ["-m", "wmtp.cli.main"]
    lines = {
        "python -c 'import pydantic, typer'": ["-c", "import pydantic, typer"],
        "wmtp --help": [*program, "--help"],
        "wmtp inspect": [*program, "inspect", str(zoo / "plain")],
        "wmtp ls": [*program, "ls", str(zoo)],
        "wmtp schema metadata": [*program, "schema", "metadata"],
    }
    seconds: dict[str, list[float]] = {name: [] for name in lines}
    for repetition in range(REPEATS + 1):
        for name, words in lines.items():
            started = time.perf_counter()
            subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
            if repetition:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def main() -> None:
    """Print a table of medians and ratios."""
    with TemporaryDirectory() as directory:
        write_checkpoints(Path(directory), "llama", num_shards=1, quick=True)
        seconds = measure(Path(directory))
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    print("| command | median, s | spread, s | ratio |\n|---|---|---|---|")
    for name, times in seconds.items():
        ratio = medians[name] / next(iter(medians.values()))
        print(f"| `{name}` | {medians[name]:.3f} | {min(times):.3f} to {max(times):.3f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
