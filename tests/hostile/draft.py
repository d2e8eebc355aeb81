"""Good checkpoints in memory, tiny but whole, to be changed in one place and written; only the standard library."""

from __future__ import annotations

import json
import math
import random
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

WIDTH, INNER, VOCAB, LAYERS = 8, 16, 32, 2
BYTES_EACH = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "U8": 1, "I8": 1, "BOOL": 1}
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


class Tensor(NamedTuple):
    """A tensor as it stands in a file."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes


@dataclass
class Draft:
    """A checkpoint that is not written yet.

    Attributes:
        metadata: metadata.json.
        config: config.json.
        tensors: What model.safetensors holds, in this order.
        files: Other files, or other bytes for the three above; None leaves one out.
        after: Run on the directory when everything is written: links, directories, devices.
        marker: What a payload touches.
    """

    metadata: dict[str, Any]
    config: dict[str, Any]
    tensors: dict[str, Tensor]
    files: dict[str, bytes | None] = field(default_factory=dict)
    after: list[Callable[[Path], None]] = field(default_factory=list)
    marker: Path = Path("/nonexistent")

    @property
    def strategy(self) -> dict[str, Any]:
        """`loading_strategy` of metadata.json."""
        found: dict[str, Any] = self.metadata["loading_strategy"]
        return found

    def write(self, directory: Path) -> None:
        """Write every file, then do what comes after."""
        contents: dict[str, bytes | None] = {
            "metadata.json": json.dumps(self.metadata, indent=1).encode(),
            "config.json": json.dumps(self.config, indent=1).encode(),
        }
        if WEIGHTS not in self.files:
            contents[WEIGHTS] = safetensors(self.tensors)
        for name, data in {**contents, **self.files}.items():
            if data is not None:
                (directory / name).parent.mkdir(parents=True, exist_ok=True)
                (directory / name).write_bytes(data)
        for step in self.after:
            step(directory)


def container(header: Any, data: bytes = b"", *, length: int | None = None) -> bytes:
    """A safetensors file by hand: a header as JSON values or raw bytes, with any length claimed, and what follows."""
    text = header if isinstance(header, bytes) else json.dumps(header, separators=(",", ":")).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def header_of(tensors: dict[str, Tensor]) -> dict[str, Any]:
    """The header of tensors that stand one after the other."""
    header, end = {}, 0
    for name, tensor in tensors.items():
        start, end = end, end + len(tensor.data)
        header[name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [start, end]}
    return header


def safetensors(tensors: dict[str, Tensor], **notes: str) -> bytes:
    """The bytes of a safetensors file as most writers leave it: notes first, header padded to eight bytes."""
    header = {"__metadata__": {"format": "pt", **notes}, **header_of(tensors)}
    text = json.dumps(header, separators=(",", ":")).encode()
    return container(text + b" " * (-len(text) % 8), b"".join(tensor.data for tensor in tensors.values()))


@cache
def random_tensor(name: str, shape: tuple[int, ...], dtype: str = "F32") -> Tensor:
    """Values between -1 and 1 that no other name has, the same in every run."""
    numbers = random.Random(name)
    values = [numbers.uniform(-1, 1) for _ in range(math.prod(shape))]
    full = struct.pack(f"<{len(values)}f", *values)
    if dtype == "BF16":
        return Tensor(dtype, shape, b"".join(full[i + 2 : i + 4] for i in range(0, len(full), 4)))
    return Tensor(dtype, shape, full)


def zeros(dtype: str, *shape: int) -> Tensor:
    """A tensor of zeros."""
    return Tensor(dtype, shape, b"\0" * (math.prod(shape) * BYTES_EACH[dtype]))


def tensors_of(shapes: dict[str, tuple[int, ...]], dtype: str = "F32") -> dict[str, Tensor]:
    """Random tensors of these names and shapes."""
    return {name: random_tensor(name, shape, dtype) for name, shape in shapes.items()}


def sharded(
    draft: Draft, names: Sequence[str] = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
) -> dict[str, Any]:
    """Spread the tensors over shards; returns the index, for a case to change before it is written with `index`."""
    parts: dict[str, dict[str, Tensor]] = {name: {} for name in names}
    for number, (name, tensor) in enumerate(draft.tensors.items()):
        parts[names[number * len(names) // len(draft.tensors)]][name] = tensor
    draft.files |= {WEIGHTS: None, **{name: safetensors(held) for name, held in parts.items()}}
    draft.strategy["required_files"] = ["config.json", INDEX]
    weight_map = {tensor: name for name, held in parts.items() for tensor in held}
    total = sum(len(tensor.data) for tensor in draft.tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    draft.files[INDEX] = json.dumps(index).encode()
    return index
