"""Run by torchrun from test_sharding.py: loads a model, keeps a share of it, and writes what that took."""

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

import torch

import wmtp
from resident import resident_bytes
from wmtp.training.gathering import PlainCopy
from wmtp.training.sharding import shard_model

directory = Path(sys.argv[1])
torch.set_num_threads(1)
torch.distributed.init_process_group("gloo")
model = wmtp.load_model(directory / "base")
plain = PlainCopy(model, torch.float32)  # keeps the file mapped, so that the pages that were read can be counted
report = shard_model(model, torch.device("cpu"), torch.float32)
facts = asdict(report) | {"resident": resident_bytes("model.safetensors"), "tensors": len(list(model.parameters()))}
(directory / f"share-{os.environ['RANK']}.json").write_text(json.dumps(facts))
plain.update(model, directory)
if os.environ["RANK"] == "0":
    expected = wmtp.load_model(directory / "base").state_dict()
    found = plain.model.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
torch.distributed.barrier()
torch.distributed.destroy_process_group()
