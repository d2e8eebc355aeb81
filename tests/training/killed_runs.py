"""A program that trains in processes of its own, which are killed where they are told to, and go on.

`python killed_runs.py CONFIG RECIPE`, each line of stdin `[resume, event, count]` in JSON: one process trains, from the
begin or from a checkpoint, and kills itself at so many events: "forward" of the model, "file" touched in the run's
directory, or "" for none. Each answers with a line: what became of it, how often each event came, and its figures.
Processes are forked, so that imports are paid for once; in none of them but this are threads.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from wmtp.settings.config import Config
from wmtp.settings.recipe import Recipe
from wmtp.training.run import train
from wmtp.training.trainer import WMTPTrainer  # noqa: F401  imported before processes are forked

_TOUCHES = ("open", "os.rename", "os.mkdir", "os.rmdir", "os.remove")


class Counter:
    """Counts events of this process, and kills it at one of them."""

    def __init__(self, event: str, count: int, directory: str) -> None:
        self.event, self.count, self.seen = event, count, {"forward": 0, "file": 0}
        torch.nn.modules.module.register_module_forward_pre_hook(self._forward)
        sys.addaudithook(lambda name, arguments: self._touched(name, arguments, directory))

    def _forward(self, module: torch.nn.Module, _: Any) -> None:
        if type(module).__name__ == "MTPForCausalLM":
            self._saw("forward")

    def _touched(self, name: str, arguments: tuple[Any, ...], directory: str) -> None:
        if name in _TOUCHES and directory in str(arguments[0]) and not (name == "open" and arguments[1] in ("r", "rb")):
            self._saw("file")

    def _saw(self, event: str) -> None:
        self.seen[event] += 1
        if event == self.event and self.seen[event] == self.count:
            os.kill(os.getpid(), signal.SIGKILL)


def run(settings: tuple[Config, Recipe], order: list[Any], answers: int) -> None:
    """Train, and write the answer to a descriptor."""
    config, recipe = settings
    resume, event, count = order
    counter = Counter(event, count, f"{config.paths.output_dir}/{recipe.run.name}")
    try:
        result = train(config, recipe, resume=resume)
        answer = {"ended": "finished", "final": result.final_metrics, "explained": result.explained_variance}
    except Exception as error:
        answer = {"ended": f"{type(error).__name__}: {error}"}
    os.write(answers, json.dumps({**answer, "seen": counter.seen}).encode())


def main() -> None:
    """Carry out every order."""
    torch.set_num_threads(1)
    logging.disable(logging.INFO)
    config, recipe = (Path(name).read_bytes() for name in sys.argv[1:])
    settings = Config.model_validate_json(config), Recipe.model_validate_json(recipe)
    for line in sys.stdin:
        read, write = os.pipe()
        if (child := os.fork()) == 0:
            run(settings, json.loads(line), write)
            os._exit(0)
        os.close(write)
        with os.fdopen(read) as answers:
            text = answers.read()
        os.waitpid(child, 0)
        print(text or json.dumps({"ended": "killed"}), flush=True)


if __name__ == "__main__":
    main()
