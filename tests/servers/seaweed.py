"""A real S3 server of this machine: SeaweedFS in a process of its own, in a directory of its own."""

from __future__ import annotations

import atexit
import http.client
import itertools
import json
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

# Of this process alone: a server that another run of the tests has started does not answer to them.
ACCESS_KEY, SECRET_KEY, REGION = f"key-{secrets.token_hex(4)}", secrets.token_hex(16), "us-east-1"
_HOST = "127.0.0.1"
_START_SECONDS = 300
# The shell outlives nobody: when this process is gone, however it went, the pipe on its input ends.
_WATCHED = 'directory=$1; shift; "$@" & read _; kill -9 $!; rm -rf "$directory"'
# Each bucket has volumes of its own, by default seven at once.
_SETTINGS = {"WEED_MASTER_VOLUME_GROWTH_COPY_1": "1"}


class SeaweedServer:
    """Started by the first use of `endpoint`, stopped by `stop`, and in any case when this process ends.

    Identities: `ACCESS_KEY` with `SECRET_KEY`, which may do everything.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._directory: Path | None = None
        self._port = 0

    @property
    def endpoint(self) -> str:
        """`http://127.0.0.1:port`, where an S3 server answers."""
        if self._process is None:
            self._start()
        return f"http://{_HOST}:{self._port}"

    def client(self) -> Any:
        """Return boto3's client of this server, as an independent witness."""
        return s3_client(self.endpoint)

    def create_bucket(self) -> str:
        """Create an empty bucket and return its name."""
        name = f"bucket-{secrets.token_hex(4)}"
        self.client().create_bucket(Bucket=name)
        return name

    def delete_bucket(self, name: str) -> None:
        """Delete a bucket with all that is in it."""
        client = self.client()
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=name):
            for item in page.get("Contents", ()):
                client.delete_object(Bucket=name, Key=item["Key"])
        client.delete_bucket(Bucket=name)

    def log(self) -> str:
        """Return the end of what the server wrote."""
        return (self._directory / "log").read_text(errors="replace")[-3000:] if self._directory else ""

    def stop(self) -> None:
        """Kill the server and remove its files; the next use starts an empty one."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
        self._process = self._directory = None

    def _start(self) -> None:
        atexit.register(self.stop)
        for _ in range(3):  # a port that was free may be taken by the time that the server wants it
            self._directory = Path(tempfile.mkdtemp(prefix="weed"))
            self._port, command = _command(self._directory)
            with (self._directory / "log").open("wb") as log:
                self._process = subprocess.Popen(
                    ["/bin/sh", "-c", _WATCHED, "sh", str(self._directory), *command],
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # Ctrl-C is for pytest, which then stops this in order
                    env={**os.environ, **_SETTINGS},
                )
            if self._answers():
                return
            said = self.log()
            self.stop()
        raise RuntimeError(f"SeaweedFS does not start:\n{said}")

    def _answers(self) -> bool:
        """Wait until a bucket can be made, an object written and read: the parts of the server start one by one."""
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            if self._listens() and self._stores():
                return True
            time.sleep(0.1)
        return False

    def _listens(self) -> bool:
        connection = http.client.HTTPConnection(_HOST, self._port, timeout=30)
        try:
            connection.request("GET", "/")
            return connection.getresponse().status < 500
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _stores(self) -> bool:
        from botocore.exceptions import BotoCoreError, ClientError

        client = s3_client(f"http://{_HOST}:{self._port}")
        try:
            client.create_bucket(Bucket="first")
            client.put_object(Bucket="first", Key="key", Body=b"body")
            client.delete_object(Bucket="first", Key="key")
            client.delete_bucket(Bucket="first")
        except (BotoCoreError, ClientError):
            return False
        return True


def s3_client(endpoint: str) -> Any:
    """Return boto3's client for a server of this machine."""
    import boto3
    from botocore.config import Config

    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        region_name=REGION,
        config=Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}),
    )


def upload_directory(client: Any, bucket: str, prefix: str, directory: Path) -> str:
    """Put every file of a directory below a key prefix; returns the prefix' address.

    Args:
        client: As `SeaweedServer.client` or `s3_client` gives it.
        bucket: A bucket that exists.
        prefix: Where to, without a trailing slash; empty for the bucket's root.
        directory: What to upload, subdirectories included.
    """
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            key = "/".join(filter(None, (prefix, path.relative_to(directory).as_posix())))
            client.put_object(Bucket=bucket, Key=key, Body=path.read_bytes())
    return f"s3://{bucket}/{prefix}".rstrip("/")


def _command(directory: Path) -> tuple[int, list[str]]:
    s3, master, volume, filer, volume_grpc, s3_grpc = free_ports(6)
    credentials = [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}]
    identity = {"name": "tests", "credentials": credentials, "actions": ["Admin", "Read", "Write", "List", "Tagging"]}
    (directory / "s3.json").write_text(json.dumps({"identities": [identity]}))
    (directory / "data").mkdir()
    options = {
        "dir": directory / "data",
        "ip": _HOST,
        "ip.bind": _HOST,
        "master.port": master,
        "master.peers": "none",
        "master.telemetry": "false",
        "master.volumeSizeLimitMB": 256,
        "volume.port": volume,
        "volume.port.grpc": volume_grpc,
        "volume.max": 200,
        "volume.minFreeSpace": "100MiB",
        "filer.port": filer,
        "filer.localSocket": directory / "filer.sock",
        "s3.port": s3,
        "s3.port.grpc": s3_grpc,
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "s3.localSocket": directory / "s3.sock",
        "s3.config": directory / "s3.json",
        "s3.autoCreateBucket": "false",
    }
    weed = Path(sys.executable).parent / "weed"
    return s3, [
        str(weed),
        "-logtostderr=true",
        "server",
        "-filer",
        "-s3",
        *(f"-{name}={value}" for name, value in options.items()),
    ]


def free_ports(count: int) -> list[int]:
    """Return ports that are free now, with the one 10,000 above each, and outside of what systems hand out."""
    # Not random's own numbers: tests seed them, so that two runs at once would want the same ports.
    candidates = random.SystemRandom().sample(range(10_000, 22_000), 200)
    return list(itertools.islice((port for port in candidates if _is_free(port) and _is_free(port + 10_000)), count))


def _is_free(port: int) -> bool:
    with socket.socket() as tried:
        try:
            tried.bind((_HOST, port))
        except OSError:
            return False
    return True
