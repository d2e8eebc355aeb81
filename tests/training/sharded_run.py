"""Run by torchrun from test_sharding.py: one process of a whole run whose settings stand in files."""

import json
import logging
import os
import sys
from pathlib import Path

import torch

from wmtp.settings.config import Config
from wmtp.settings.recipe import Recipe
from wmtp.training.run import train

directory, *allowed = Path(sys.argv[1]), *sys.argv[2:]
torch.set_num_threads(1)
logging.basicConfig(level=logging.INFO, filename=directory / f"log-{os.environ['RANK']}.txt")
config = Config.model_validate_json((directory / "config.json").read_text())
recipe = Recipe.model_validate_json((directory / "recipe.json").read_text())
result = train(config, recipe, resume=bool(allowed), allow_change=allowed)
if os.environ["RANK"] == "0":
    (directory / "result.json").write_text(json.dumps(result.to_dict()))
