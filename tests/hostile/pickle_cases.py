"""Pickles, which can run anything: under every name that weights have, and beside them."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from hostile.case import CAUSAL, Case, refusals
from hostile.changes import strategy
from hostile.draft import INDEX, WEIGHTS, Draft, sharded
from hostile.good import tokenizer_files

refused = refusals("pickles", peer=CAUSAL)


class Payload:
    """Touches a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, (f"open({str(self.marker)!r}, 'a').close()",)


def payload(marker: Path, protocol: int = 2) -> bytes:
    """A pickle of a state dict that runs its payload first."""
    return pickle.dumps({"model.norm.weight": Payload(marker)}, protocol)


def archive(marker: Path) -> bytes:
    """The same as torch.save writes it since 1.6."""
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as members:
        members.writestr("archive/data.pkl", payload(marker))
        members.writestr("archive/version", b"3\n")
        members.writestr("archive/byteorder", b"little")
    return held.getvalue()


def _tar(marker: Path) -> bytes:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as members:
        member = tarfile.TarInfo("pickle")
        member.size = len(payload(marker))
        members.addfile(member, io.BytesIO(payload(marker)))
    return held.getvalue()


Pickled = Callable[[Path], bytes]


def _instead(name: str, form: Pickled) -> Callable[[Draft], None]:
    def change(draft: Draft) -> None:
        draft.files |= {WEIGHTS: None, name: form(draft.marker)}
        draft.strategy["required_files"] = ["config.json"]

    return change


def _as_safetensors(form: Pickled) -> Callable[[Draft], None]:
    return lambda draft: draft.files.update({WEIGHTS: form(draft.marker)})


def _sharded_pickles(draft: Draft) -> None:
    draft.files |= {WEIGHTS: None, "pytorch_model-00001-of-00001.bin": archive(draft.marker)}
    weight_map = dict.fromkeys(draft.tensors, "pytorch_model-00001-of-00001.bin")
    draft.files["pytorch_model.bin.index.json"] = json.dumps({"metadata": {}, "weight_map": weight_map}).encode()
    draft.strategy["required_files"] = ["config.json"]


def _index_of_pickles(draft: Draft) -> None:
    _sharded_pickles(draft)
    draft.files[INDEX] = draft.files.pop("pytorch_model.bin.index.json")


def _one_shard(draft: Draft) -> None:
    sharded(draft)
    draft.files["model-00002-of-00002.safetensors"] = archive(draft.marker)


def _tokenizer(draft: Draft) -> None:
    tokenizer_files(draft)
    draft.files |= {"tokenizer.json": None, "vocab.json": None, "vocab.pkl": payload(draft.marker)}
    draft.files["tokenizer.model"] = payload(draft.marker)


def _instead_case(
    name: str, form: Pickled = archive, *, errors: str = "FormatError", peer: str | None = CAUSAL
) -> Case:
    return refused(f"pickled weights in {name}", errors, f"'{name}'", _instead(name, form), peer=peer)


CASES = [
    _instead_case("pytorch_model.bin"),
    refused(
        "pickled weights of the oldest form",
        "FormatError",
        "'pytorch_model.bin'",
        _instead("pytorch_model.bin", payload),
    ),
    refused("pickled weights in a tar file", "FormatError", "'pytorch_model.bin'", _instead("pytorch_model.bin", _tar)),
    refused(
        "pickled weights of protocol zero",
        "FormatError",
        "'pytorch_model.bin'",
        _instead("pytorch_model.bin", lambda m: payload(m, 0)),
    ),
    _instead_case("model.pt", peer=None),
    _instead_case("consolidated.00.pth", peer=None),
    _instead_case("last.ckpt", peer=None),
    refused("pickled weights in shards", "FormatError", "pytorch_model-00001-of-00001.bin", _sharded_pickles),
    refused(
        "an index of safetensors that names pickles",
        "FormatError",
        (INDEX, "pytorch_model-00001-of-00001.bin", ".safetensors"),
        _index_of_pickles,
    ),
    refused(
        "an archive of torch under the name of safetensors",
        "FormatError",
        (WEIGHTS, "zip archive"),
        _as_safetensors(archive),
    ),
    refused(
        "a pickle under the name of safetensors", "FormatError", (WEIGHTS, "Python pickle"), _as_safetensors(payload)
    ),
    refused(
        "a pickle of protocol five under the name of safetensors",
        "FormatError",
        (WEIGHTS, "Python pickle"),
        _as_safetensors(lambda m: payload(m, 5)),
    ),
    refused(
        "a pickle of protocol zero under the name of safetensors",
        "FormatError",
        (WEIGHTS,),
        _as_safetensors(lambda m: payload(m, 0)),
    ),
    refused(
        "an archive of torch among the shards",
        "FormatError",
        ("model-00002-of-00002.safetensors", "zip archive"),
        _one_shard,
    ),
    refused(
        "a pickle required by name",
        "FormatError NotFoundError MetadataError",
        "pytorch_model.bin",
        strategy(required_files=["config.json", "pytorch_model.bin"]),
        _instead("pytorch_model.bin", archive),
    ),
    refused(
        "weights of another framework only",
        "NotFoundError FormatError",
        WEIGHTS,
        _instead("tf_model.h5", archive),
        peer=None,
    ),
    refused(
        "a tokenizer that is a pickle",
        "CheckpointError FormatError TrustError",
        "tokenizer.model",
        _tokenizer,
        call="tokenizer",
        peer=None,
    ),
]
