"""Run by torchrun from tests of shards: one process of a whole run whose settings stand in files.

`sharded_run.py DIRECTORY [ALLOWED ...]`: goes on with a run where keys are named that may differ. `read-RANK.json` says
how many bytes of the files of models the process had in memory when the run was prepared, and of how many tensors.
"""

import json
import logging
import os
import sys
from pathlib import Path

import torch

from resident import resident_bytes
from wmtp.settings.config import load_config
from wmtp.settings.recipe import load_recipe
from wmtp.training import run

directory, *allowed = Path(sys.argv[1]), *sys.argv[2:]
prepare = run.prepare


def prepared_and_looked_at(*arguments):
    prepared = prepare(*arguments)
    if sys.platform == "linux":
        facts = {"resident": resident_bytes(".safetensors"), "tensors": len(prepared.base.receipt.parameters)}
        (directory / f"read-{os.environ['RANK']}.json").write_text(json.dumps(facts))
    return prepared


run.prepare = prepared_and_looked_at
torch.set_num_threads(1)
logging.basicConfig(level=logging.INFO, filename=directory / f"log-{os.environ['RANK']}.txt")
config, recipe = load_config(directory / "config.json"), load_recipe(directory / "recipe.json")
result = run.train(config, recipe, resume=bool(allowed), allow_change=allowed)
if os.environ["RANK"] == "0":
    (directory / "result.json").write_text(json.dumps(result.to_dict()))
