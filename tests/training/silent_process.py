"""Run by torchrun from test_trainer.py: one of two processes, the second of which has nothing to learn in any row."""

import json
import os
import sys
from pathlib import Path

import torch
from test_trainer import make_trainer

directory, rank = Path(sys.argv[1]), os.environ["RANK"]
torch.set_num_threads(1)
trainer = make_trainer(directory, batch=2, accumulation=1, ddp_backend="gloo", max_steps=3, logging_steps=1)
collate = trainer.data_collator
if rank == "1":
    trainer.data_collator = lambda rows: (batch := collate(rows)) | {"labels": torch.full_like(batch["labels"], -100)}
trainer.train()
logs = [{name: entry[name] for name in ("ce_1", "share_valid_1")} for entry in trainer.state.log_history[:3]]
(directory / f"logs-{rank}.json").write_text(json.dumps(logs))
trainer.end()
