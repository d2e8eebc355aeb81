import json
import shutil
import sys

import pytest

import wmtp
from checkpoints import write_mtp_checkpoint
from launched import run_processes
from shard_runs import FSDP, TRAINING, is_close, run_alone, run_sharded, weights
from tiny_models import tiny_mtp
from wmtp.errors import TrainingError
from wmtp.publishing.publish import is_complete
from wmtp.training.saved_steps import published_checkpoints


@pytest.fixture
def base(tmp_path):
    return write_mtp_checkpoint(tmp_path / "base", tiny_mtp("llama", 3, "transformer", vocab_size=128))


PARTS = [{}, pytest.param({"trainable": "heads"}, marks=pytest.mark.slow)]
PARTS += [pytest.param({"heads_warmup_steps": 2, "gradient_checkpointing": True}, marks=pytest.mark.slow)]


@pytest.mark.parametrize("trained", PARTS)
def test_a_run_in_shards_writes_what_one_process_writes(tmp_path, base, trained):
    steps = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 2}
    found = run_sharded(tmp_path, base, **steps | trained)
    alone = run_alone(tmp_path, base, **trained)
    assert found["final_metrics"] == pytest.approx(alone.final_metrics, rel=1e-4)
    shards = tmp_path / "runs" / "shards"
    for name in ("step-2", "final", "final-next-token"):
        assert is_close(weights(shards / name), weights(alone.run_directory / name), 1e-5)
    assert all(is_complete(path) for path in published_checkpoints(shards))
    assert wmtp.load_model(shards / "final").num_heads == 3


def as_if_killed(run):
    """Leave of a finished run what it had after its second step; return what it ended with."""
    ended = weights(run / "final")
    for path in (run / "final", run / "final-next-token"):
        shutil.rmtree(path)
    return ended


def test_a_run_in_shards_goes_on_bit_for_bit_and_in_another_number_of_processes(tmp_path, base):
    adam = {"per_device_train_batch_size": 2, "optim": "adamw_torch", "save_total_limit": 1}
    run_sharded(tmp_path, base, **adam)
    run = tmp_path / "runs" / "shards"
    ended = as_if_killed(run)
    shutil.copytree(run, kept := tmp_path / "kept")
    run_sharded(tmp_path, base, "run.name", **adam)
    assert is_close(weights(run / "final"), ended, 0)
    shutil.rmtree(run)
    kept.rename(run)
    changed = ("world_size", "train.sharding", "train.per_device_train_batch_size")
    run_alone(tmp_path, base, *changed, name="shards", **adam | {"per_device_train_batch_size": 4})
    assert is_close(weights(run / "final"), ended, 1e-4)


@pytest.mark.skipif(sys.platform != "linux", reason="pages that were read are counted in /proc")
@pytest.mark.parametrize("count", [2, *(pytest.param(count, marks=pytest.mark.slow) for count in (1, 4))])
def test_every_process_reads_its_share_alone(tmp_path, count):
    model = tiny_mtp("llama", 3, "transformer", vocab_size=1 << 17, hidden_size=64)
    write_mtp_checkpoint(tmp_path / "base", model)
    run_processes(TRAINING / "sharing_process.py", tmp_path, count=count)
    shares = [json.loads((tmp_path / f"share-{rank}.json").read_text()) for rank in range(count)]
    total = shares[0]["total_bytes"]
    assert sum(share["kept_bytes"] for share in shares) == total
    for share in shares:
        assert share["kept_bytes"] <= total / count
        around = 1 << 18  # bytes of pages beside those asked for, which the system maps along
        assert share["kept_bytes"] <= share["resident"] <= share["kept_bytes"] + around * share["tensors"]


def test_shards_are_for_several_processes(tmp_path, base):
    with pytest.raises(TrainingError, match=r"train.sharding is 'fsdp', and this process is alone") as caught:
        run_alone(tmp_path, base, **FSDP)
    assert "--nproc-per-node 2" in caught.value.hint
