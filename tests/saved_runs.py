"""Small runs with saved steps, of which reports are made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import wmtp
from run_files import RunFiles

_SHORT = {"max_steps": 2, "save_steps": 1, "eval_steps": 1, "logging_steps": 1, "gradient_accumulation_steps": 1}


def train_saved(directory: Path, algorithm: str, **sections: Any) -> Path:
    """Train two steps, both saved, in batches that hold all that a report shows; return the run's directory."""
    files = RunFiles(directory, algorithm, train=_SHORT | {"per_device_train_batch_size": 32}, **sections)
    wmtp.train(*files.settings("runs"))
    return files.run("runs")
