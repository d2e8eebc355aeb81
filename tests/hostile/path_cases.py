"""File names that lead elsewhere, and shard indexes that say what is not so."""

from __future__ import annotations

import json

from hostile.bases import own
from hostile.case import CAUSAL, refusals
from hostile.changes import OUTSIDE, entries, file, index, meta, shard_at, strategy
from hostile.draft import INDEX, WEIGHTS, Draft, safetensors, sharded

refused = refusals("paths")
shards = refusals("paths", peer=CAUSAL)
M = "metadata.json"
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
_NAMES = {
    "climbs": ("../config.json", "'..'"),
    "climbs out and in again": ("sub/../../checkpoint/config.json", "'..'"),
    "is absolute": ("/etc/passwd", "absolute"),
    "is a home directory": ("~/id_rsa", "tilde"),
    "has a drive": ("C:config.json", "colon"),
    "has a backslash": ("sub\\config.json", "backslash"),
    "is an address": ("file:///etc/passwd", "part ''"),
    "is an object in a bucket": ("s3://bucket/config.json", "part ''"),
    "has a dot for a part": ("./config.json", "'.'"),
    "has an empty part": ("sub//config.json", "part ''"),
    "ends in a slash": ("config.json/", "part ''"),
    "is hidden": (".git/config", "hidden"),
    "is escaped": ("%2e%2e/config.json", "percent"),
    "has a NUL": ("config.json\0.png", "unprintable"),
    "has a line in it": ("config\n.json", "unprintable"),
    "has a terminal escape": ("\x1b[2Jconfig.json", "unprintable"),
    "turns the text around": ("gnp.\u202enosj.gifnoc", "unprintable"),
    "has an invisible space": ("config\u200b.json", "unprintable"),
    "is not in normal form": ("cafe\u0301.json", "NFC"),
    "is empty": ("", "empty"),
    "is endless": ("a/" * 2000 + "a", "longer"),
}
_MODULES = {
    "climbs": ("../modeling.py", "'..'"),
    "is absolute": ("/tmp/modeling.py", "absolute"),
    "is a library": ("modeling.so", ".py"),
    "is bytecode": ("modeling.pyc", ".py"),
    "is hidden": (".modeling.py", "hidden"),
    "has a stream": ("modeling.py:evil.py", "colon"),
}
_SHARDS = {
    "climbs": f"{OUTSIDE}/second.safetensors",
    "is hidden": ".second.safetensors",
    "has a dot for a part": "./second.safetensors",
    "is escaped": "%2e%2e%2fsecond.safetensors",
    "has a backslash": "..\\second.safetensors",
    "has a terminal escape": "\x1b[31msecond.safetensors",
    "is a pickle by name": "pytorch_model-00002.bin",
}


def _both_forms(draft: Draft) -> None:
    whole = safetensors(draft.tensors)
    sharded(draft)
    draft.files[WEIGHTS] = whole


def _in_two_shards(draft: Draft) -> None:
    sharded(draft)
    names = list(draft.tensors)
    second = {name: draft.tensors[name] for name in [names[0], *names[len(names) // 2 + len(names) % 2 :]]}
    draft.files[SECOND] = safetensors(second)


def _not_in_the_index(draft: Draft) -> None:
    found = sharded(draft)
    del found["weight_map"]["lm_head.weight"]
    draft.files[INDEX] = json.dumps(found).encode()


def _twice_in_the_index(draft: Draft) -> None:
    text = json.dumps(sharded(draft)["weight_map"])
    doubled = text[:-1] + f', "\\u006cm_head.weight": "{FIRST}"' + "}"
    draft.files[INDEX] = b'{"weight_map": ' + doubled.encode() + b"}"


def _many_entries(draft: Draft) -> None:
    found = sharded(draft)
    found["weight_map"] |= {f"model.layers.{n}.w": SECOND for n in range(200_000)}
    draft.files[INDEX] = json.dumps(found).encode()


def _many_shards(draft: Draft) -> None:
    found = sharded(draft)
    found["weight_map"] |= {f"w{n}": f"absent-{n}.safetensors" for n in range(20_000)}
    draft.files[INDEX] = json.dumps(found).encode()


CASES = [
    *[
        refused(
            f"a required file whose name {what}",
            "MetadataError",
            (M, "required_files.1", fault),
            strategy(required_files=["config.json", name]),
        )
        for what, (name, fault) in _NAMES.items()
    ],
    *[
        refused(
            f"a module whose name {what}",
            "MetadataError",
            (M, "custom_module_file", fault),
            strategy(custom_module_file=name),
            base=own,
        )
        for what, (name, fault) in _MODULES.items()
    ],
    *[
        shards(f"a shard whose name {what}", "FormatError", (INDEX, "weight_map.", ascii(name)[1:-1]), shard_at(name))
        for what, name in _SHARDS.items()
    ],
    shards(
        "a shard that is absolute",
        "FormatError",
        (INDEX, "weight_map.lm_head.weight", "absolute"),
        entries(lm_head__weight="/etc/x.safetensors"),
    ),
    shards(
        "a shard in a bucket",
        "FormatError",
        (INDEX, "weight_map.lm_head.weight", "s3:"),
        entries(lm_head__weight="s3://bucket/x.safetensors"),
    ),
    shards(
        "a shard that is a number", "FormatError", (INDEX, "weight_map.lm_head.weight", "3"), entries(lm_head__weight=3)
    ),
    shards(
        "a shard that is null",
        "FormatError",
        (INDEX, "weight_map.lm_head.weight", "null"),
        entries(lm_head__weight=None),
    ),
    shards(
        "a shard that is the index itself",
        "FormatError",
        (INDEX, "weight_map.lm_head.weight"),
        entries(lm_head__weight=INDEX),
    ),
    shards(
        "a shard that is absent",
        "NotFoundError",
        (INDEX, "'absent.safetensors'"),
        entries(lm_head__weight="absent.safetensors"),
    ),
    shards(
        "a tensor said to be in the wrong shard",
        "FormatError",
        (INDEX, "'lm_head.weight'", FIRST),
        entries(lm_head__weight=FIRST),
    ),
    shards(
        "a tensor that its shard does not hold",
        "FormatError",
        (INDEX, "'lm_head.bias'", SECOND),
        entries(lm_head__bias=SECOND),
    ),
    shards(
        "a tensor in two shards",
        "FormatError",
        (INDEX, "'model.embed_tokens.weight'", "two shards", SECOND),
        _in_two_shards,
    ),
    shards(
        "a tensor that the index leaves out",
        "FormatError",
        (INDEX, "'lm_head.weight'", "not in the index"),
        _not_in_the_index,
    ),
    shards(
        "a tensor twice in the index by an escape",
        "FormatError",
        (INDEX, "'lm_head.weight'", "twice"),
        _twice_in_the_index,
    ),
    shards("an index and a single file", "FormatError", (WEIGHTS, INDEX), _both_forms),
    shards(
        "an index of three hundred thousand shards",
        "FormatError",
        (INDEX, "weight_map names more than 50,000 shards"),
        index(weight_map={f"w{n}": f"{n}.safetensors" for n in range(300_000)}),
    ),
    shards("an index without a map", "FormatError", (INDEX, "weight_map is null"), index(weight_map=None)),
    shards("an index with an empty map", "FormatError", (INDEX, "weight_map is {}"), index(weight_map={})),
    shards(
        "an index whose map is a list",
        "FormatError",
        (INDEX, "weight_map is ["),
        index(weight_map=[["lm_head.weight", FIRST]]),
    ),
    shards("an index whose metadata is a list", "FormatError", (INDEX, "metadata is ["), index(metadata=[])),
    shards(
        "two hundred thousand tensors that are not there",
        "FormatError",
        (INDEX, "200000 tensors", "more"),
        _many_entries,
    ),
    shards(
        "twenty thousand shards that are not there",
        "NotFoundError",
        (INDEX, "'absent-0.safetensors'", "more"),
        _many_shards,
    ),
    shards("an index that is an error page", "FormatError", INDEX, index(), file(INDEX, b"<html>404</html>")),
    shards(
        "an index that is a pointer of Git LFS",
        "FormatError",
        INDEX,
        index(),
        file(INDEX, b"version https://git-lfs.github.com/spec/v1\n"),
    ),
    refused("an index that is required and absent", "NotFoundError", INDEX, strategy(required_files=[INDEX])),
    refused("provenance that looks like a path", "MetadataError", (M, "source_path"), meta(source_path=["../../etc"])),
]
