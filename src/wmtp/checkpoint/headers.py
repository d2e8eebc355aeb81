"""The tensors of a checkpoint, read from safetensors headers alone and checked before anything trusts them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeGuard

from wmtp.checkpoint.index import INDEX_FILE, ShardIndex, check_index, read_index, size_notes
from wmtp.checkpoint.tensors import DTYPE_BYTES, TensorInfo
from wmtp.errors import FormatError, NotFoundError
from wmtp.storage.store import Store
from wmtp.untrusted import LFS_ADVICE, LFS_BEGINNING, parse_json_object, show, show_all

SINGLE_FILE = "model.safetensors"

_MAX_HEADER_BYTES = 100_000_000
_MAX_HEADERS_BYTES = 200_000_000  # of all shards; a model of a trillion parameters has a tenth of that
_FIRST_READ_BYTES = 64 << 10  # most headers are shorter: one request each
_MAX_NAME_BYTES = 512
_MAX_DIMENSIONS = 64  # as in torch; their product stays a number of a few hundred digits
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_OTHER_WEIGHTS = (".bin", ".pt", ".pth", ".ckpt")
_WRITE_AGAIN = "write the file again with safetensors"
_SIGNATURES = (
    (LFS_BEGINNING, "a Git LFS pointer", LFS_ADVICE),
    (b"<", "an HTML or XML page, perhaps an error page saved under this name", "download the file again"),
    (b"PK", "a zip archive, as torch.save writes", "write them as safetensors: 'wmtp convert DIR NEW'"),
    (b"\x80", "a Python pickle", "write them as safetensors: 'wmtp convert DIR NEW'"),
    (b"GGUF", "a GGUF file", "convert it with transformers: from_pretrained(..., gguf_file=...), then save_pretrained"),
    (b"\0" * 8, "filled with zeros, as an interrupted download leaves it", "download the file again"),
)


def read_tensors(store: Store) -> list[TensorInfo]:
    """Return every tensor of a checkpoint, from its headers; no weight is read.

    Raises:
        NotFoundError: If there are no weights.
        FormatError: If a header or the shard index breaks a rule of the format, or they contradict each other.
    """
    return read_tensors_and_notes(store)[0]


def read_tensors_and_notes(store: Store) -> tuple[list[TensorInfo], tuple[str, ...]]:
    """Return every tensor as `read_tensors` does, and what a reader should know of faults that do no harm."""
    if weights_name(store) == SINGLE_FILE:
        return _read_headers(store, [SINGLE_FILE]), ()
    index, tensors = read_shards(store)
    check_index(store, index, tensors)
    # Every tensor is proven by its header: a wrong sum says nothing of them. Other programs do not read it either.
    return tensors, tuple(size_notes(index, sum(tensor.num_bytes for tensor in tensors)))


def read_shards(store: Store) -> tuple[ShardIndex, list[TensorInfo]]:
    """Return the index and every tensor of the shards that it names, whether or not they agree with each other.

    Raises:
        NotFoundError: If a shard is missing.
        FormatError: If a header or the index breaks a rule of the format.
    """
    index = read_index(store)
    shards = index.shards
    if missing := [shard for shard in shards if not store.has(shard)]:
        raise NotFoundError(
            f"{store.uri / INDEX_FILE}: {len(missing)} of {len(shards)} shards are missing: "
            f"{', '.join(show_all(missing))}",
            hint="copy them beside the index, all from one version",
        )
    return index, _read_headers(store, shards)


def weights_name(store: Store) -> str:
    """Return which of the two forms the weights have: `model.safetensors`, or the index of its shards."""
    names = {info.name for info in store.list_files()}
    present = [name for name in (SINGLE_FILE, INDEX_FILE) if name in names]
    if len(present) == 2:
        raise FormatError(
            f"{store.uri}: both {SINGLE_FILE} and {INDEX_FILE} are there",
            hint="one of them is stale: remove it, so that there is no doubt which weights are meant",
        )
    if present:
        return present[0]
    for name in (SINGLE_FILE, INDEX_FILE):
        store.has(name)  # raises for a name that is there, and is no file
    other = sorted(name for name in names if name.endswith(_OTHER_WEIGHTS))
    if other:
        raise FormatError(
            f"{store.uri}: the weights are in {', '.join(show_all(other))}, which loading never opens",
            hint=f"write them as safetensors: 'wmtp convert {store.uri} NEW', then load that",
        )
    raise NotFoundError(
        f"{store.uri}: no {SINGLE_FILE} and no {INDEX_FILE}",
        hint="copy the weights beside metadata.json under that name",
    )


def weight_files(store: Store) -> list[str]:
    """Return the names of all files that hold weights, with the index where there is one."""
    if weights_name(store) == SINGLE_FILE:
        return [SINGLE_FILE]
    return [INDEX_FILE, *read_index(store).shards]


def _read_headers(store: Store, files: Sequence[str]) -> list[TensorInfo]:
    """Read the headers of many files in two rounds at most: where they are far away, each round takes a while."""
    sizes = {file: store.stat(file).size_bytes for file in files}
    starts = store.read_ranges([(file, 0, min(size, _FIRST_READ_BYTES)) for file, size in sizes.items()])
    lengths = {}
    for (file, size), start in zip(sizes.items(), starts, strict=True):
        length = lengths[file] = int.from_bytes(start[:8], "little")
        if not 0 < length <= min(size - 8, _MAX_HEADER_BYTES):
            raise _not_safetensors(store.where(file), start, length, size)
    if sum(lengths.values()) > _MAX_HEADERS_BYTES:
        raise FormatError(
            f"{store.uri}: the headers of {len(files)} shards claim {sum(lengths.values()):,} bytes together",
            hint=f"headers of a whole checkpoint have at most {_MAX_HEADERS_BYTES:,}: {_WRITE_AGAIN}",
        )
    headers = {file: start[8 : 8 + lengths[file]] for file, start in zip(files, starts, strict=True)}
    long = [file for file in files if len(headers[file]) < lengths[file]]
    headers |= zip(long, store.read_ranges([(file, 8, lengths[file]) for file in long]), strict=True)
    return [
        tensor
        for file in files
        for tensor in parse_header(headers.pop(file), where=store.where(file), file=file, size=sizes[file])
    ]


def parse_header(data: bytes, *, where: str, file: str, size: int) -> list[TensorInfo]:
    """Return the tensors of one safetensors file from the text of its header.

    Args:
        data: The header, without the eight bytes of its length.
        where: How errors name the file.
        file: Its name in the checkpoint.
        size: Its size in bytes, all of which the tensors must cover.

    Raises:
        FormatError: If the header breaks a rule of the format.
    """
    if not data.startswith(b"{"):
        raise FormatError(f"{where}: the header does not begin with '{{'", hint="this is not a safetensors file")
    header = parse_json_object(data, where=f"{where} (header)", error=FormatError, max_bytes=_MAX_HEADER_BYTES)
    notes = header.pop("__metadata__", None)
    notes = {} if notes is None else notes  # as the safetensors library reads null
    if not isinstance(notes, dict) or not all(isinstance(note, str) for note in notes.values()):
        raise FormatError(f"{where}: __metadata__ is {show(notes)}, not an object of strings", hint=_WRITE_AGAIN)
    base = 8 + len(data)
    tensors = [_parse_entry(where, file, name, entry, base) for name, entry in header.items()]
    _check_coverage(where, sorted(tensors, key=lambda tensor: (tensor.start, tensor.end)), base, size)
    return tensors


def _not_safetensors(where: str, start: bytes, length: int, size: int) -> FormatError:
    # A real header begins with its own length: only where that cannot be so is the file something else.
    text = start.removeprefix(_BYTE_ORDER_MARK).lstrip()
    for signature, what, hint in _SIGNATURES:
        if text.startswith(signature):
            return FormatError(f"{where}: this is {what}, not safetensors", hint=hint)
    return FormatError(
        f"{where}: the header claims {length:,} bytes, the file has {size:,}",
        hint=f"the file is cut short, or no safetensors file (their headers have at most {_MAX_HEADER_BYTES:,} bytes):"
        " copy it again",
    )


def _parse_entry(where: str, file: str, name: str, entry: object, base: int) -> TensorInfo:
    def fault(problem: str, hint: str = _WRITE_AGAIN) -> FormatError:
        return FormatError(f"{where}: tensor {show(name)} {problem}", hint=hint)

    if not name or not name.isprintable() or len(name.encode()) > _MAX_NAME_BYTES:
        raise fault(f"has a name that is empty, unprintable or longer than {_MAX_NAME_BYTES} bytes")
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise fault("does not have exactly dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        raise fault(f"has the dtype {show(dtype)}", hint=f"store it as one of {', '.join(DTYPE_BYTES)}")
    if not _is_shape(shape):
        raise fault(
            f"has the shape {show(shape)}, which is not a list of at most {_MAX_DIMENSIONS} sizes, or overflows"
        )
    if not _are_sizes(offsets, at_most=2) or len(offsets) != 2:
        raise fault(f"has the data_offsets {show(offsets)}, which are not a first byte and one past the last")
    needed = math.prod(shape) * DTYPE_BYTES[dtype]
    if offsets[1] - offsets[0] != needed:
        raise fault(f"has {offsets[1] - offsets[0]} bytes, {dtype} of shape {show(shape)} needs {show(needed)}")
    return TensorInfo(name, dtype, tuple(shape), file, base + offsets[0], base + offsets[1])


def _is_shape(value: object) -> bool:
    # A zero beside them does not make huge sizes fit into torch's numbers.
    return _are_sizes(value, at_most=_MAX_DIMENSIONS) and math.prod(filter(None, value)) < 1 << 63


def _are_sizes(value: object, *, at_most: int) -> TypeGuard[list[int]]:
    if not isinstance(value, list) or len(value) > at_most:
        return False
    return all(type(item) is int and 0 <= item < 1 << 63 for item in value)


def _check_coverage(where: str, tensors: list[TensorInfo], start: int, size: int) -> None:
    reached = start
    for tensor in tensors:
        if tensor.start != reached:
            what = "overlaps the one before it" if tensor.start < reached else "leaves a hole before it"
            raise FormatError(f"{where}: tensor {show(tensor.name)} at byte {tensor.start} {what}", hint=_WRITE_AGAIN)
        reached = tensor.end
    if reached != size:
        raise FormatError(
            f"{where}: the header describes {reached:,} bytes, the file has {size:,}",
            hint="the file is cut short or has something appended: copy it again",
        )
