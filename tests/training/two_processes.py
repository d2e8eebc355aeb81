"""Run by torchrun from test_trainer.py: trains as one of two processes and writes what came out.

`two_processes.py DIRECTORY ENGINE STEPS ALGORITHM ...`: parameters and logs stand in a directory for each algorithm, by
its number.
"""

import json
import os
import sys
from pathlib import Path

import torch
from test_trainer import make_trainer, parameters_after

from native_threads import lasting_threads

directory, engine, steps, *algorithms = Path(sys.argv[1]), *sys.argv[2:]
torch.set_num_threads(1)
for number, algorithm in enumerate(algorithms):
    changes = {"optim": "sgd", "algorithm": algorithm, "max_steps": int(steps), "sharded": engine == "fsdp"}
    trainer = make_trainer(directory, batch=4, accumulation=1, ddp_backend="gloo", **changes)
    parameters = parameters_after(trainer)
    logs = {"train": trainer.state.log_history[2], "eval": trainer.evaluate()}
    if trainer.is_world_process_zero():
        (directory / str(number)).mkdir()
        torch.save(parameters, directory / str(number) / "parameters.pt")
        (directory / str(number) / "logs.json").write_text(json.dumps(logs))
trainer.end()
(directory / f"threads-{os.environ['RANK']}.txt").write_text("\n".join(lasting_threads("gloo")))
