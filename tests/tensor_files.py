"""safetensors files and shard indexes by hand, for what no library would write."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def safetensors_bytes(header: Any, data: bytes = b"", *, length: int | None = None) -> bytes:
    """A safetensors file by hand: a header as JSON values or raw bytes, and whatever follows it."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor_entry(dtype: str, shape: Sequence[int], start: int, end: int) -> dict[str, Any]:
    """One tensor of a safetensors header."""
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}


def tensors_as_bytes(tensors: Mapping[str, tuple[str, Sequence[int]]]) -> bytes:
    """A safetensors file of zeros: `{"w": ("F32", [2, 3])}`, one tensor after the other."""
    sizes = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "U8": 1, "BOOL": 1}
    header, end = {}, 0
    for name, (dtype, shape) in tensors.items():
        start, end = end, end + math.prod(shape) * sizes[dtype]
        header[name] = tensor_entry(dtype, shape, start, end)
    return safetensors_bytes(header, b"\0" * end)


def write_index(directory: Path, weight_map: Mapping[str, Any], **metadata: Any) -> None:
    """A shard index beside its shards."""
    index = {"metadata": metadata, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
