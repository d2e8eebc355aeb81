"""Which files of a directory are its pickled weights, and which go along unchanged. Names only; nothing is opened."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from wmtp.checkpoint.headers import SINGLE_FILE
from wmtp.checkpoint.index import INDEX_FILE
from wmtp.checkpoint.meta_release import PARAMS_FILE, read_params
from wmtp.errors import CheckpointError, FormatError, NotFoundError
from wmtp.storage.store import FileInfo, Store
from wmtp.untrusted import (
    LFS_ADVICE,
    LFS_BEGINNING,
    MAX_INDEX_BYTES,
    parse_json_object,
    plain,
    relative_name_fault,
    show,
    show_all,
)

PICKLES = (".bin", ".pt", ".pth", ".ckpt")
_INDEX_FILE = "pytorch_model.bin.index.json"
_PARALLEL = re.compile(r"consolidated\.(\d\d)\.pth")
_OTHER_PICKLES = (".pkl", ".pickle", ".joblib")
# What trainers leave beside weights: pickles as well, and no weights.
_NO_WEIGHTS = re.compile(r"(training_args|optimizer|scheduler|scaler|rng_state\w*)\.(bin|pt|pth)")
_COPIED_ENDINGS = (".json", ".txt", ".model", ".py", ".md", ".jinja", ".tiktoken")
_COPIED_WORDS = ("LICENSE", "LICENCE", "README", "NOTICE", "USE_POLICY")
# Written anew or carried over with changes; or true of the old files only.
# What is written anew, or while it is made.
_NOT_COPIED = ("metadata.json", "manifest.json", "receipt.json", SINGLE_FILE, INDEX_FILE, "parts")
_MAX_COPIED_BYTES = MAX_INDEX_BYTES
_ZIP, _PICKLE = b"PK\x03\x04", b"\x80\x02"
_SIGNATURES = (
    (LFS_BEGINNING, "a Git LFS pointer", LFS_ADVICE),
    (b"<", "an HTML or XML page, perhaps an error page saved under this name", "download the file again"),
    (b"\0" * 8, "filled with zeros, as an interrupted download leaves it", "download the file again"),
    (b"GGUF", "a GGUF file", "convert it with transformers: from_pretrained(..., gguf_file=...), then save_pretrained"),
)
_NAME_ONE = "keep one form of the weights in the directory, and move the others away"


@dataclass(frozen=True)
class PickledWeights:
    """The pickled weights of a directory.

    Attributes:
        files: Their names, in order.
        index: The index of the shards, where there is one.
        expected: The tensors that the index names, by shard.
        parallel: The files are tensor-parallel shards, each with a piece of every weight.
    """

    files: tuple[str, ...]
    index: str | None = None
    expected: dict[str, tuple[str, ...]] | None = None
    parallel: bool = False


def find_weights(store: Store) -> PickledWeights:
    """Return which files to convert.

    Raises:
        NotFoundError: If there are none, or a shard is missing.
        FormatError: If the index is malformed.
        CheckpointError: If it is not clear which files are meant.
    """
    names = [info.name for info in store.list_files() if "/" not in info.name]
    if ready := [name for name in names if name.endswith((".safetensors", ".safetensors.index.json"))]:
        raise CheckpointError(
            f"{store.uri}: has safetensors already: {', '.join(show_all(ready))}",
            hint="nothing in them is to be mended: use them as they are ('wmtp init DIR'), or move them away if the"
            " pickles are what you mean",
        )
    found = [name for name in names if name.endswith(PICKLES) and not _NO_WEIGHTS.fullmatch(name)]
    if _INDEX_FILE in names:
        return _sharded(store, found)
    if found and all(map(_PARALLEL.fullmatch, found)):
        return _parallel(store, found)
    if not found:
        raise NotFoundError(
            f"{store.uri}: no weights in {', '.join(PICKLES)}", hint="name the directory that holds the weights"
        )
    if len(found) > 1:
        raise CheckpointError(f"{store.uri}: not clear which are the weights: {_listed(found)}", hint=_NAME_ONE)
    return PickledWeights((found[0],))


def check_beginnings(store: Store, weights: PickledWeights) -> None:
    """Raise FormatError for a file that begins like nothing that torch.save writes."""
    for name in weights.files:
        start = store.read_range(name, 0, min(store.stat(name).size_bytes, 64))
        if start.startswith((_ZIP, _PICKLE)):
            continue
        what, hint = f"begins with {start[:16]!r}", "copy the file again from its source"
        for signature, known, next_step in _SIGNATURES:
            if start.startswith(signature):
                what, hint = f"this is {known}", next_step
        raise FormatError(
            f"{store.uri / name}: {what}, neither a zip archive nor a pickle of protocol 2, as torch.save writes",
            hint=hint,
        )


def files_to_copy(store: Store, weights: PickledWeights, required: Sequence[str]) -> list[str]:
    """Return the small files that go along: configuration, tokenizer, code, texts, and any that metadata requires.

    Raises:
        CheckpointError: If metadata requires a pickle that is not converted.
    """
    converted = (*weights.files, weights.index)
    if pickles := [n for n in required if n.endswith((*PICKLES, *_OTHER_PICKLES)) and n not in converted]:
        raise CheckpointError(
            f"{store.uri}: metadata.json requires {_listed(pickles)}, which is no part of the weights",
            hint="take it out of loading_strategy.required_files if loading does not need it",
        )
    # By its first part: a directory may have the name of a file that is written.
    taken = (*converted, *_NOT_COPIED)
    return [
        info.name
        for info in store.list_files()
        if not {info.name, info.name.partition("/")[0]} & set(taken) and (_is_small(info) or info.name in required)
    ]


def merge_sizes(store: Store) -> dict[str, int]:
    """Return the sizes of params.json by which tensor-parallel shards are merged.

    Raises:
        NotFoundError: If it is not there.
        FormatError: If it is malformed, or lacks `dim`.
    """
    where = f"{store.uri / PARAMS_FILE}"
    if not store.has(PARAMS_FILE):
        raise NotFoundError(f"{where}: no such file, and it says how to merge shards", hint="copy it beside the shards")
    document = read_params(store)
    keys = ("dim", "vocab_size", "n_heads", "n_kv_heads")
    # LLaMA 2's files say -1 where the tokenizer is to be asked.
    sizes = {key: value for key in keys if type(value := document.get(key)) is int and value > 0}
    if "dim" not in sizes:
        raise FormatError(f"{where}: dim is {show(document.get('dim'))}", hint="copy params.json again from its source")
    return sizes


def _sharded(store: Store, found: list[str]) -> PickledWeights:
    where = f"{store.uri / _INDEX_FILE}"
    data = store.read_bytes(_INDEX_FILE, max_bytes=MAX_INDEX_BYTES)
    weight_map = parse_json_object(data, where=where, error=FormatError, max_bytes=MAX_INDEX_BYTES).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise FormatError(f"{where}: weight_map is {show(weight_map)}, not an object", hint="fetch the index again")
    expected: dict[str, list[str]] = {}
    for tensor, shard in weight_map.items():
        if (not isinstance(shard, str) or shard not in expected) and (fault := _shard_fault(shard)):
            raise FormatError(
                f"{where}: weight_map.{plain(tensor)}: the shard name {show(shard)} {fault}",
                hint="a shard is named relative to the checkpoint: fetch the index again from where you trust it",
            )
        expected.setdefault(shard, []).append(tensor)
    if missing := sorted(shard for shard in expected if not store.has(shard)):
        raise NotFoundError(f"{where}: shards are missing: {_listed(missing)}", hint="copy them beside the index")
    if others := [name for name in found if name not in expected]:
        raise CheckpointError(f"{where}: does not name these weights: {_listed(others)}", hint=_NAME_ONE)
    return PickledWeights(
        tuple(sorted(expected)), _INDEX_FILE, {shard: tuple(tensors) for shard, tensors in expected.items()}
    )


def _shard_fault(shard: Any) -> str | None:
    if not isinstance(shard, str):
        return "is not a string"
    return relative_name_fault(shard) or (None if shard.endswith(PICKLES) else f"ends in none of {', '.join(PICKLES)}")


def _parallel(store: Store, found: list[str]) -> PickledWeights:
    wanted = [f"consolidated.{number:02d}.pth" for number in range(max(int(name[13:15]) for name in found) + 1)]
    if missing := [name for name in wanted if name not in found]:
        raise NotFoundError(f"{store.uri}: shards are missing: {_listed(missing)}", hint="copy all of them there")
    return PickledWeights(tuple(wanted), parallel=len(wanted) > 1)


def _is_small(info: FileInfo) -> bool:
    base = info.name.rpartition("/")[2]
    is_text = base.endswith(_COPIED_ENDINGS) or ("." not in base and base.startswith(_COPIED_WORDS))
    return is_text and not base.endswith(".index.json") and info.size_bytes <= _MAX_COPIED_BYTES


def _listed(names: Sequence[str]) -> str:
    return ", ".join(show_all(names))
