"""One of two processes of a run that is stopped, or gone on with: prints how it ended.

`python one_of_two.py CONFIG RECIPE PLACE SIGNAL_AT`: the second of the two sends itself SIGTERM at so many forward
passes in training; at 0 the run goes on from a checkpoint of one process instead.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
from typing import Any

import torch

import wmtp

config, recipe, place, signal_at = sys.argv[1:]
passes = itertools.count(1)


def count(module: torch.nn.Module, _: Any) -> None:
    is_pass = type(module).__name__ == "MTPForCausalLM" and module.training
    if is_pass and next(passes) == int(signal_at) and os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGTERM)


torch.set_num_threads(1)
torch.nn.modules.module.register_module_forward_pre_hook(count)
settings = wmtp.load_config(config, [f"paths.output_dir={place}"]), wmtp.load_recipe(recipe)
changes = () if int(signal_at) else ("world_size", "train.per_device_train_batch_size")
try:
    ended = wmtp.train(*settings, resume=bool(changes), allow_change=changes).steps
except SystemExit as error:
    ended = f"exit {error.code}"
sys.stdout.write(str(ended))
