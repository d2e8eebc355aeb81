"""A bucket on a test server of this machine, and checkpoints in it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shapes import write_checkpoints

from wmtp.manifest import MANIFEST_FILE, Manifest

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from servers.seaweed import ACCESS_KEY, REGION, SECRET_KEY, SeaweedServer


@dataclass
class Bucket:
    """A bucket of the test server, and checkpoints in it."""

    client: Any
    name: str
    manifests: dict[str, bytes] = field(default_factory=dict)

    def upload(self, directory: Path, prefix: str) -> int:
        """Put the files of a directory below a prefix; returns the bytes of the weights."""
        for path in directory.iterdir():
            self.client.upload_file(str(path), self.name, f"{prefix}/{path.name}")
        names = [path.name for path in directory.iterdir()]
        self.manifests[prefix] = Manifest.of_directory(directory, names).model_dump_json().encode()
        return sum(path.stat().st_size for path in directory.glob("*.safetensors"))

    def set_manifest(self, prefix: str, *, is_there: bool) -> None:
        """Put or remove what says the digest of every file."""
        where = {"Bucket": self.name, "Key": f"{prefix}/{MANIFEST_FILE}"}
        if is_there:
            self.client.put_object(**where, Body=self.manifests[prefix])
        else:
            self.client.delete_object(**where)


def put_catalogue(bucket: Bucket, num_models: int, scratch: Path) -> str:
    """Put many tiny models below one prefix; returns its address."""
    import obstore
    from obstore.store import S3Store

    plain = write_checkpoints(scratch / "tiny", "llama", num_shards=1, quick=True).plain
    files = {path.name: path.read_bytes() for path in plain.iterdir() if path.suffix == ".json"}
    header = (plain / "model.safetensors").read_bytes()[:4096]  # listing reads no weights
    store = S3Store(
        bucket.name,
        endpoint=os.environ["AWS_ENDPOINT_URL_S3"],
        virtual_hosted_style_request=False,
        client_options={"allow_http": True},
    )
    for number in range(num_models):
        for name, data in {**files, "model.safetensors": header}.items():
            obstore.put(store, f"catalogue/model-{number:04d}/{name}", data)
    return f"s3://{bucket.name}/catalogue"


@contextmanager
def started_server() -> Iterator[SeaweedServer]:
    """A server that answers while the block runs, to which every client of this process and its children is pointed."""
    server = SeaweedServer()
    for name in [name for name in os.environ if name.startswith(("AWS_", "WMTP_"))]:
        del os.environ[name]
    os.environ |= {
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_ENDPOINT_URL_S3": server.endpoint,
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
        "HF_HUB_OFFLINE": "1",
    }
    try:
        yield server
    finally:
        server.stop()
