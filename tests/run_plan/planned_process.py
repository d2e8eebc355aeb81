"""Run by torchrun from test_scale_measured.py: one process of a whole run, which writes down what it has in memory."""

import json
import os
import sys
from pathlib import Path

import torch
from torch.distributed.tensor import DTensor
from transformers import TrainerCallback

from wmtp.settings.config import Config
from wmtp.settings.recipe import Recipe
from wmtp.training.preparation import prepare
from wmtp.training.stopping import StopRequest

directory = Path(sys.argv[1])
torch.set_num_threads(1)
config = Config.model_validate_json((directory / "config.json").read_text())
recipe = Recipe.model_validate_json((directory / "recipe.json").read_text())


def own_bytes(tensors):
    locals_ = (tensor.to_local() if isinstance(tensor, DTensor) else tensor for tensor in tensors)
    return sum(tensor.nbytes for tensor in locals_)


class Measured(TrainerCallback):
    def __init__(self):
        self.gradients = 0

    def on_pre_optimizer_step(self, *_, model, **__):
        self.gradients = own_bytes(each.grad for each in model.parameters() if each.grad is not None)


run, measured = prepare(config, recipe, {}), Measured()
trainer = run.build_trainer([measured], StopRequest())
run.fit_values(StopRequest())
trainer.train()
state = [value for kept in trainer._plain_optimizer.state.values() for value in kept.values()]
facts = {
    "weights": own_bytes(trainer.model.parameters()),
    "gradients": measured.gradients,
    "optimizer": own_bytes(value for value in state if value.dim()),
    "notes": run.base.receipt.notes,
    "num_bytes": run.base.receipt.num_bytes,
}
(directory / f"measured-{os.environ['RANK']}.json").write_text(json.dumps(facts))
trainer.end()
