"""A program that trains in processes of its own, which are ended where they are told to, and go on.

Each line of stdin is `[directory, place, resume, event, count]` in JSON: one process trains in `directory/place`, as
config.json and recipe.json there say, from the begin or from a checkpoint, and something happens to it. "forward": it
is killed at so many forward passes in training; "file": when so many files of the run's directory were touched;
"SIGTERM", "SIGINT", "SIGTERM twice": it gets these at so many forward passes; "": nothing. Each answers with a line:
what became of it, how often each was counted, and its figures. Processes are forked: imports are paid for once.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from contextlib import suppress
from importlib import import_module
from typing import Any

import torch

from wmtp.errors import WmtpError
from wmtp.settings.config import load_config
from wmtp.settings.recipe import load_recipe
from wmtp.training.run import train
from wmtp.training.trainer import WMTPTrainer  # noqa: F401  imported before processes are forked

_LIBRARIES = ("wmtp.", "transformers.", "torch.", "accelerate.", "tokenizers.", "safetensors.")
_TOUCHES = ("open", "os.rename", "os.mkdir", "os.rmdir", "os.remove")


class Counter:
    """Counts events of this process, and kills it at one of them."""

    def __init__(self, event: str, count: int, directory: str) -> None:
        self.event, self.count, self.seen = event, count, {"forward": 0, "file": 0}
        torch.nn.modules.module.register_module_forward_pre_hook(self._forward)
        sys.addaudithook(lambda name, arguments: self._touched(name, arguments, directory))

    def _forward(self, module: torch.nn.Module, _: Any) -> None:
        if type(module).__name__ == "MTPForCausalLM" and module.training:
            self._saw("forward")

    def _touched(self, name: str, arguments: tuple[Any, ...], directory: str) -> None:
        if name in _TOUCHES and directory in str(arguments[0]) and not (name == "open" and arguments[1] in ("r", "rb")):
            self._saw("file")

    def _saw(self, event: str) -> None:
        self.seen[event] += 1
        name, _, twice = self.event.partition(" ")
        is_signal = name.startswith("SIG")
        if self.seen[event] == self.count and event == ("forward" if is_signal else name):
            for _ in range(1 + bool(twice)):
                os.kill(os.getpid(), getattr(signal, name) if is_signal else signal.SIGKILL)


def run(order: list[Any], answers: int) -> None:
    """Train, and write the answer to a descriptor."""
    directory, place, resume, event, count = order
    config = load_config(f"{directory}/config.json", [f"paths.output_dir={directory}/{place}"])
    recipe = load_recipe(f"{directory}/recipe.json")
    counter = Counter(event, count, f"{config.paths.output_dir}/{recipe.run.name}")
    try:
        result = train(config, recipe, resume=resume)
        answer = {"ended": "finished", "final": result.final_metrics, "explained": result.explained_variance}
    except (WmtpError, SystemExit, KeyboardInterrupt) as error:
        answer = {"ended": f"{type(error).__name__}: {error}"}
    modules = sorted(name for name in sys.modules if name.startswith(_LIBRARIES))
    os.write(answers, json.dumps({**answer, "seen": counter.seen, "modules": modules}).encode())


def main() -> None:
    """Carry out every order."""
    torch.set_num_threads(1)
    logging.disable(logging.INFO)
    for line in sys.stdin:
        read, write = os.pipe()
        if (child := os.fork()) == 0:
            run(json.loads(line), write)
            os._exit(0)
        os.close(write)
        with os.fdopen(read) as answers:
            text = answers.read()
        _, status = os.waitpid(child, 0)
        answer = json.loads(text) if text else {"ended": f"by signal {os.WTERMSIG(status)}"}
        for name in answer.pop("modules", ()):  # what it has imported on the way: the next need not
            with suppress(ImportError):
                import_module(name)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
