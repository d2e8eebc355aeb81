"""Run by torchrun from test_trainer.py: trains as one of two processes and writes what came out."""

import json
import os
import sys
from pathlib import Path

import torch
from test_trainer import make_trainer, parameters_after

from native_threads import lasting_threads

directory, algorithm, *more = Path(sys.argv[1]), *sys.argv[2:]
engine, steps = more or ("ddp", "3")
torch.set_num_threads(1)
changes = {"optim": "sgd", "algorithm": algorithm, "max_steps": int(steps), "sharded": engine == "fsdp"}
trainer = make_trainer(directory, batch=4, accumulation=1, ddp_backend="gloo", **changes)
parameters = parameters_after(trainer)
logs = {"train": trainer.state.log_history[2], "eval": trainer.evaluate()}
if trainer.is_world_process_zero():
    torch.save(parameters, directory / "parameters.pt")
    (directory / "logs.json").write_text(json.dumps(logs))
trainer.end()
(directory / f"threads-{os.environ['RANK']}.txt").write_text("\n".join(lasting_threads("gloo")))
