"""What each process of a run in shards reads of its model: from a disk, from a bucket, of experts stored one by one."""

import json
import sys

import pytest

from checkpoints import llama_metadata, write_llama_checkpoint, write_mtp_checkpoint
from native_files import write_native
from native_models import native
from servers.relay import Relay
from servers.seaweed import upload_directory
from shard_runs import is_close, run_alone, run_sharded, weights
from tiny_models import tiny_mtp
from wmtp.authoring.init import init_metadata
from wmtp.metadata.file import write_metadata

COUNTS = [2, *(pytest.param(count, marks=pytest.mark.slow) for count in (1, 4))]
ONE_STEP = {"max_steps": 1, "save_steps": 1}


def write_base(directory, **changes):
    return write_mtp_checkpoint(directory, tiny_mtp("llama", 3, "transformer", **changes))


def shares_of(directory, count):
    """What the receipt of a run's checkpoint says of each process, once that is found to be no more than its part."""
    receipt = json.loads((directory / "runs" / "shards" / "final" / "receipt.json").read_text())
    shares, total = receipt["shares"], receipt["num_bytes"]
    assert [share["rank"] for share in shares] == list(range(count))
    replicated = shares[0]["replicated_bytes"]  # buffers, of which some stand in files
    assert total <= sum(share["read_bytes"] for share in shares) <= total + (count - 1) * replicated
    assert all(share["kept_bytes"] <= total / count for share in shares)
    assert all(share["read_bytes"] <= share["kept_bytes"] + replicated for share in shares)
    return shares


@pytest.mark.skipif(sys.platform != "linux", reason="pages that were read are counted in /proc")
@pytest.mark.parametrize("count", COUNTS)
def test_from_a_disk_each_process_reads_its_rows(tmp_path, count):
    base = write_base(tmp_path / "base", vocab_size=1 << 17, hidden_size=64)
    run_sharded(tmp_path, base, count=count, per_device_train_batch_size=1, **ONE_STEP)
    around = 1 << 18  # bytes of pages beside those asked for, which the system maps along
    for share in shares_of(tmp_path, count):
        seen = json.loads((tmp_path / f"read-{share['rank']}.json").read_text())
        assert share["read_bytes"] <= seen["resident"] <= share["read_bytes"] + around * seen["tensors"]


@pytest.mark.parametrize("count", COUNTS)
def test_from_a_bucket_a_machine_fetches_the_model_once_and_each_process_reads_its_rows(
    tmp_path, s3_bucket, seaweed, monkeypatch, count
):
    base = write_base(tmp_path / "base", vocab_size=1 << 14)
    uri = upload_directory(seaweed.client(), s3_bucket, "base", base)
    with Relay(seaweed.endpoint) as relay:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", relay.endpoint)
        run_sharded(tmp_path, uri, count=count, per_device_train_batch_size=4 // count, **ONE_STEP)
    shares_of(tmp_path, count)
    size = (base / "model.safetensors").stat().st_size
    assert size <= relay.sent < 1.2 * size  # the rest are small files, and answers without any


def test_a_run_that_goes_on_reads_rows_of_its_checkpoint_and_none_of_the_base_model(tmp_path):
    base = write_base(tmp_path / "base", vocab_size=1 << 14)
    few = {"max_steps": 2, "save_steps": 1, "per_device_train_batch_size": 2}
    run_sharded(tmp_path, base, **few)
    run = tmp_path / "runs" / "shards"
    for name in ("final", "final-next-token"):
        (run / name).rename(tmp_path / name)
    run_sharded(tmp_path, base, "run.name", **few)
    shares_of(tmp_path, 2)
    assert is_close(weights(run / "final"), weights(tmp_path / "final"), 0)


@pytest.mark.slow
def test_a_model_that_is_run_before_it_is_cut_is_read_whole_and_the_receipt_says_so(tmp_path):
    base = write_llama_checkpoint(tmp_path / "base")
    write_metadata(base, llama_metadata(wmtp_type="base_model", algorithm_compatibility=["baseline-mtp"]))
    run_sharded(tmp_path, base, export=False, per_device_train_batch_size=2, **ONE_STEP)
    receipt = json.loads((tmp_path / "runs" / "shards" / "final" / "receipt.json").read_text())
    assert [share["read_bytes"] for share in receipt["shares"]] == [receipt["num_bytes"]] * 2
    assert sum(share["kept_bytes"] for share in receipt["shares"]) == receipt["num_bytes"]


def test_experts_stored_one_by_one_are_read_by_the_processes_that_keep_them(tmp_path):
    write_native(tmp_path / "base", "glm4_moe", model=native("glm4_moe", config={"vocab_size": 128}), vocab_size=128)
    init_metadata(tmp_path / "base")
    few = {"max_steps": 2, "save_steps": 1}
    run_sharded(tmp_path, tmp_path / "base", per_device_train_batch_size=2, **few)
    shares = shares_of(tmp_path, 2)
    assert shares[0]["read_bytes"] == shares[1]["read_bytes"]
    alone = run_alone(tmp_path, tmp_path / "base", **few)
    assert is_close(weights(tmp_path / "runs" / "shards" / "final"), weights(alone.run_directory / "final"), 1e-5)
