"""Pickled weights in, safetensors files out: the work of the limited process, where all limits are set already.

`torch.load` reads with `weights_only=True`, which knows tensors and plain values only. What it does not look at is
checked here: whether the data of an archive is as long as the pickle says, and what the tensors are.
"""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wmtp.authoring.pickles.confined import part_name
from wmtp.authoring.pickles.parallel import Pending, merged
from wmtp.authoring.pickles.state_dicts import check_expected, find_state_dict
from wmtp.errors import FormatError
from wmtp.load_plan.parameters import DTYPE_NAMES
from wmtp.publishing.write import same_tensors, split_into_shards, write_shard
from wmtp.untrusted import plain, show

_ZIP = b"PK\x03\x04"  # what torch itself goes by


class Work:
    """One job: what has been written, and what the report will say.

    Args:
        job: A `confined.Job` as plain values.
        at: Its `file` is kept at the name of what is open, for whoever tells of an error.
    """

    def __init__(self, job: Mapping[str, Any], at: dict[str, str]) -> None:
        self._job = job
        self._at = at
        self.directory = Path(job["directory"])
        self.max_shard_bytes: int = job["max_shard_bytes"]
        self.bytes_left: int = job["limits"]["output_bytes"]
        self.key: str | None = job["key"]
        self.parts = 0
        self.tensors: list[dict[str, Any]] = []
        self.same: dict[str, str] = {}
        self.dropped: dict[str, None] = {}
        self.unwrapped: str | None = None

    @torch.no_grad()
    def run(self) -> None:
        """Open every file, and write its tensors."""
        if self._job["merge"] is not None:
            shards = [self._tensors_of(file) for file in self._job["files"]]
            self._at["file"] = ""
            self._write(merged(shards, self._job["merge"]))
            return
        for file in self._job["files"]:
            tensors = self._tensors_of(file)
            if file["expected"] is not None:
                check_expected(tensors, file["expected"])
            self._write(self._pending(tensors))

    def _tensors_of(self, file: Mapping[str, Any]) -> dict[str, Tensor]:
        self._at["file"] = file["name"]
        with Path(file["path"]).open("rb") as opened:
            is_zip = opened.read(4) == _ZIP
        records = _records(file["path"]) if is_zip else None
        # Mapped where the format allows it: then only what is written is ever in memory.
        loaded = torch.load(file["path"], map_location="cpu", weights_only=True, mmap=is_zip)
        found = find_state_dict(loaded, self.key)
        self.unwrapped = found.unwrapped
        self.dropped |= dict.fromkeys(found.dropped)
        if records is not None:
            _check_storages(found.tensors, records)
        return found.tensors

    def _write(self, pending: Mapping[str, Pending]) -> None:
        sizes = {name: tensor.num_bytes for name, tensor in pending.items()}
        self.bytes_left -= sum(sizes.values())
        if self.bytes_left < 0:
            raise FormatError(
                f"its tensors take {-self.bytes_left:,} bytes more than may be written",
                hint="the pickle claims more data than it holds: get the weights from a source that you trust",
            )
        for names in filter(None, split_into_shards(sizes, self.max_shard_bytes)):
            self.parts += 1
            made = {name: pending[name].make() for name in names}
            write_shard(self.directory / part_name(self.parts), made)
            self.tensors += [
                {"name": n, "dtype": DTYPE_NAMES[t.dtype], "shape": list(t.shape), "part": self.parts}
                for n, t in made.items()
            ]

    def _pending(self, tensors: Mapping[str, Tensor]) -> dict[str, Pending]:
        # Each tensor once; what overlaps another is copied when it is written.
        same = same_tensors(tensors)
        self.same |= same
        kept = {name: tensor for name, tensor in tensors.items() if name not in same}
        holders = Counter(tensor.untyped_storage().data_ptr() for tensor in kept.values())
        shared = {name for name, t in kept.items() if holders[t.untyped_storage().data_ptr()] > 1}
        return {name: Pending(t.nbytes, t.clone if name in shared else t.contiguous) for name, t in kept.items()}


def _records(path: str) -> Counter[int]:
    """Return how many data records of each size an archive has.

    torch maps what is said to be there without looking whether it is compressed or how long it is.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    # NotImplementedError is what zipfile raises for a version or compression that it does not know.
    except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError) as error:
        raise FormatError(
            f"not a whole zip archive ({plain(str(error))})", hint="the file is cut short: copy it again"
        ) from error
    if any(entry.filename.endswith("/constants.pkl") for entry in entries):
        raise FormatError(
            "a TorchScript archive, which is a program and no state dict",
            hint="load it where it comes from, and save its state_dict() with torch.save",
        )
    packed = [entry.filename for entry in entries if entry.compress_type != zipfile.ZIP_STORED]
    if packed:
        raise FormatError(
            f"the record {show(packed[0])} is compressed, which torch.save never does",
            hint="unpack it and save it again with torch.save; a small archive can claim endless data this way",
        )
    return Counter(entry.file_size for entry in entries if "/data/" in entry.filename)


def _check_storages(tensors: Mapping[str, Tensor], records: Counter[int]) -> None:
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors.values() if t.numel()}
    if wrong := Counter(storages.values()) - records:
        raise FormatError(
            f"the pickle claims a storage of {next(iter(wrong)):,} bytes, and no record left in the archive has that"
            " size",
            hint="the file is damaged, or made to deceive: get the weights from a source that you trust",
        )
