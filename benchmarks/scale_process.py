"""Started by torchrun from scale.py: one process of a run, which says how much memory it took."""

import json
import os
import sys
from pathlib import Path

import torch

from wmtp.settings.config import load_config
from wmtp.settings.recipe import load_recipe
from wmtp.training.preparation import prepare
from wmtp.training.stopping import StopRequest


def status(field: str) -> int:
    """Return a number of bytes of /proc/self/status."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{field}:"))
    return 1024 * int(line.split()[1])


directory = Path(sys.argv[1])
torch.set_num_threads(1)
# What a process takes before it has a model: libraries, and what these set up at their first use.
torch.nn.functional.linear(torch.ones(8, 8, requires_grad=True), torch.ones(8, 8)).sum().backward()
before = status("VmRSS")
run = prepare(load_config(directory / "config.json"), load_recipe(directory / "recipe.json"), {})
loaded = status("VmRSS")
trainer = run.build_trainer([], StopRequest())
trainer.train()
facts = {"peak": status("VmHWM") - before, "loaded": loaded - before, "notes": run.base.receipt.notes}
(directory / f"process-{os.environ['RANK']}.json").write_text(json.dumps(facts))
trainer.end()
