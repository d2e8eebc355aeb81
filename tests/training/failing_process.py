"""One of two processes whose run stops: prints what stopped it, and which threads of gloo it has left."""

import json
import sys
from pathlib import Path

import torch

from native_threads import lasting_threads
from wmtp.errors import TrainingError
from wmtp.settings.config import Config
from wmtp.settings.recipe import Recipe
from wmtp.training.run import train

torch.set_num_threads(1)
config, recipe = (Path(name).read_bytes() for name in sys.argv[1:])
try:
    train(Config.model_validate_json(config), Recipe.model_validate_json(recipe))
except TrainingError as error:
    sys.stdout.write(json.dumps({"problem": error.problem, "threads": lasting_threads("gloo")}))
