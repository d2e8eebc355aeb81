"""Mappings that do not fit, patterns made to burn time, and globs that let through too little."""

from __future__ import annotations

from hostile.case import refusals
from hostile.changes import file, mapping, strategy, tensors_named
from hostile.draft import WEIGHTS, Draft, container, random_tensor

refused = refusals("mapping")
M, PLACE = "metadata.json", "state_dict_mapping"
TRANSFORMS = f"{PLACE}.key_transforms"
_NO_PATTERNS = {
    "looks ahead": "(?=model)",
    "refers back": r"(model)\1",
    "is not closed": "(model",
    "grows without bound": "((a{100}){100}){100}",
    "counts to a million": "(x{1000}){1000}",
    "takes a tenth of a second to compile": r"(a|b){1,700}(\pL{1,200})",
    "is recursive": "(?R)",
    "is conditional": "(a)?(?(1)b|c)",
}
_NO_REPLACEMENTS = {"names no group": r"\1", "is the whole match": r"\0", "names a group": r"\g<0>", "ends open": "x\\"}

_NEVER_LEFT_OUT = (
    ("an adapter", "up_proj.lora_A.weight", "merge_and_unload"),
    ("a scale", "up_proj.weight_scale_inv", "dequantised"),
    ("a mask", "up_proj.weight_mask", "prune.remove"),
    ("half of a weight norm", "up_proj.parametrizations.weight.original0", "remove_parametrizations"),
)


def _many_tensors(count: int) -> dict[str, object]:
    return {f"model.layers.{n}.w": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for n in range(count)}


def _costly_rules(draft: Draft) -> None:
    rules = {f"(?i)(.*)(.*)(.*)(.*)(.*)x{n}$": r"\1" for n in range(256)}
    draft.strategy[PLACE] = {"key_transforms": rules}
    draft.files[WEIGHTS] = container(_many_tensors(20_000))


def _costly_globs(draft: Draft) -> None:
    draft.strategy[PLACE] = {"allow_unexpected": ["*" + "a*" * 500 + f"b{n}" for n in range(256)]}
    names = [f"{'a' * 500}{n}" for n in range(2_000)]
    draft.files[WEIGHTS] = container({name: {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for name in names})


def _doubling(draft: Draft) -> None:
    draft.strategy[PLACE] = {"key_transforms": {f"(?s)^(.*)${'' if n == 0 else f'|{n}'}": r"\1\1" for n in range(60)}}


def _extra(name: str) -> dict[str, object]:
    return {name: random_tensor(name, (3,))}


CASES = [
    refused(
        "a prefix that no tensor has",
        "PlanError",
        (PLACE, "remove_prefix 'modle.'", "matches no tensor"),
        mapping(remove_prefix="modle."),
    ),
    refused("a prefix of nothing", "MetadataError", (M, f"{PLACE}.remove_prefix"), mapping(remove_prefix="")),
    refused(
        "a new prefix that no parameter has",
        "PlanError",
        ("missing", "model.norm.weight", "x.model.norm.weight"[2:]),
        mapping(add_prefix="x."),
    ),
    refused(
        "a new prefix longer than any name may be",
        "PlanError",
        (PLACE, "longer than 512"),
        mapping(add_prefix="x" * 600),
    ),
    refused(
        "a transform that matches nothing",
        "PlanError",
        (PLACE, "key_transforms '^h'", "matches no tensor"),
        mapping(key_transforms={"^h": "layers"}),
    ),
    refused(
        "a transform that would burn any other engine",
        "PlanError",
        (PLACE, "matches no tensor"),
        mapping(key_transforms={"^(m+)+(o+)+x$": "y"}),
    ),
    refused(
        "a transform that makes two tensors one",
        "PlanError",
        (M, PLACE, "both become", "by key_transforms"),
        mapping(key_transforms={r"layers\.\d+": "layers.0"}),
    ),
    refused(
        "a transform that makes all names empty",
        "PlanError",
        (PLACE, "becomes a name that is empty"),
        mapping(key_transforms={"(?s).*": ""}),
    ),
    refused(
        "rules that each double a name", "PlanError", (M, PLACE, "longer than 512", "by key_transforms"), _doubling
    ),
    refused(
        "a transform that moves values to another parameter",
        "PlanError",
        (PLACE, "both become", "q_proj"),
        mapping(key_transforms={"q_proj|o_proj": "q_proj"}),
    ),
    *[
        refused(
            f"a pattern that {what}",
            "MetadataError",
            (M, TRANSFORMS, ascii(pattern)[1:-1], "RE2"),
            mapping(key_transforms={pattern: "x"}),
        )
        for what, pattern in _NO_PATTERNS.items()
    ],
    *[
        refused(
            f"a replacement that {what}",
            "MetadataError",
            (M, TRANSFORMS, ascii(text)[1:-1]),
            mapping(key_transforms={"model": text}),
        )
        for what, text in _NO_REPLACEMENTS.items()
    ],
    refused(
        "a replacement that is a number",
        "MetadataError",
        (M, f"{TRANSFORMS}.model", "1"),
        mapping(key_transforms={"model": 1}),
    ),
    refused(
        "257 transforms",
        "MetadataError",
        (M, TRANSFORMS, "257"),
        mapping(key_transforms={f"m{n}": "x" for n in range(257)}),
    ),
    refused(
        "a pattern of more than a kibibyte",
        "MetadataError",
        (M, TRANSFORMS, "1024"),
        mapping(key_transforms={"m" * 1025: "x"}),
    ),
    refused(
        "a pattern that is long in bytes only",
        "MetadataError",
        (M, TRANSFORMS, "1024"),
        mapping(key_transforms={"\u6f22" * 400: "x"}),
    ),
    refused(
        "a pattern with a terminal escape",
        "MetadataError",
        (M, TRANSFORMS, "\\x1b"),
        mapping(key_transforms={"(\x1b[31m": "x"}),
    ),
    refused("256 costly rules over twenty thousand tensors", "PlanError CheckpointError", (PLACE,), _costly_rules),
    refused("256 globs made of stars over two thousand tensors", "PlanError", "unexpected", _costly_globs),
    refused("257 globs", "MetadataError", (M, f"{PLACE}.allow_missing"), mapping(allow_missing=["*"] * 257)),
    refused("a glob of nothing", "MetadataError", (M, f"{PLACE}.allow_unexpected.0"), mapping(allow_unexpected=[""])),
    refused(
        "a glob that is not a list", "MetadataError", (M, f"{PLACE}.allow_missing is '*'"), mapping(allow_missing="*")
    ),
    refused(
        "a tensor that no glob lets through",
        "PlanError",
        ("unexpected", "model.extra"),
        tensors_named(_extra("model.extra")),
        mapping(allow_unexpected=["extra", "model.extr?x"]),
    ),
    *[
        refused(
            f"{what} that would be left out in silence",
            "PlanError",
            ("unexpected", f"model.layers.0.mlp.{name}", remedy),
            tensors_named(_extra(f"model.layers.0.mlp.{name}")),
        )
        for what, name, remedy in _NEVER_LEFT_OUT
    ],
    refused(
        "a causal model offered as a trunk",
        "PlanError",
        ("missing", "embed_tokens.weight", "remove_prefix", "lm_head.weight"),
        strategy(transformers_class="AutoModel"),
    ),
    refused("a mapping that is a list", "MetadataError", (M, PLACE, "["), strategy(state_dict_mapping=[])),
    refused("transforms that are pairs", "MetadataError", (M, TRANSFORMS, "["), mapping(key_transforms=[["a", "b"]])),
    refused(
        "a mapping over weights that are none",
        "PlanError",
        (PLACE, "matches no tensor"),
        mapping(remove_prefix="model."),
        file(WEIGHTS, container({})),
    ),
]
