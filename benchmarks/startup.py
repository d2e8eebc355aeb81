"""How long commands take that need no torch, against importing the two libraries that they cannot do without."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

REPEATS = 15


def main() -> None:
    """Print a table of medians and ratios; the argument is a directory that `wmtp demo` has made."""
    zoo = Path(sys.argv[1] if len(sys.argv) > 1 else "demo-zoo")
    program = ["-m", "wmtp.cli.main"]
    lines = {
        "python -c 'import pydantic, typer'": ["-c", "import pydantic, typer"],
        "wmtp --help": [*program, "--help"],
        "wmtp inspect": [*program, "inspect", str(zoo / "llama-mtp")],
        "wmtp ls": [*program, "ls", str(zoo)],
        "wmtp schema metadata": [*program, "schema", "metadata"],
    }
    seconds: dict[str, list[float]] = {name: [] for name in lines}
    for _ in range(REPEATS + 1):
        for name, words in lines.items():
            started = time.perf_counter()
            subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
            seconds[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(times[1:]) for name, times in seconds.items()}
    print("| command | median, s | spread, s | ratio |\n|---|---|---|---|")
    for name, times in seconds.items():
        ratio = medians[name] / next(iter(medians.values()))
        print(f"| `{name}` | {medians[name]:.3f} | {min(times[1:]):.3f} to {max(times[1:]):.3f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
