"""The real S3 server keeps what is put into it, and is gone when it is to be gone."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from servers.seaweed import SeaweedServer, free_ports, upload_directory


def test_a_directory_is_uploaded_below_a_prefix(seaweed: SeaweedServer, s3_bucket: str, tmp_path: Path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a").write_bytes(b"abc")
    client = seaweed.client()
    assert upload_directory(client, s3_bucket, "model", tmp_path) == f"s3://{s3_bucket}/model"
    assert client.get_object(Bucket=s3_bucket, Key="model/sub/a")["Body"].read() == b"abc"
    assert os.environ["AWS_ENDPOINT_URL_S3"] == seaweed.endpoint


def test_each_test_has_an_empty_bucket(seaweed: SeaweedServer, s3_bucket: str):
    assert seaweed.client().list_objects_v2(Bucket=s3_bucket)["KeyCount"] == 0


@pytest.mark.slow
def test_no_server_and_no_file_outlives_a_test_run_that_was_killed():
    program = "import servers.seaweed as s, time; a = s.SeaweedServer(); print(a.endpoint, a._directory, flush=True)"
    command = [sys.executable, "-c", f"{program}; time.sleep(600)"]
    path = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=path) as process:
        assert process.stdout
        endpoint, directory = process.stdout.readline().split()
        process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 300
    while Path(directory).exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(directory).exists()
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(endpoint)


def test_two_runs_that_seed_random_alike_want_other_ports_and_buckets(seaweed):
    wanted = []
    for _ in range(2):
        random.seed(42)
        wanted.append((free_ports(6), seaweed.create_bucket()))
    assert wanted[0][0] != wanted[1][0]
    assert wanted[0][1] != wanted[1][1]
    for _, name in wanted:
        seaweed.delete_bucket(name)
