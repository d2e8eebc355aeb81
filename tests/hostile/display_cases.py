"""Foreign text on its way to a terminal or a log: escapes, forged lines, and texts without end."""

from __future__ import annotations

import os
from pathlib import Path

from hostile.bases import MODELING, llama, own
from hostile.case import Change, refusals
from hostile.changes import config, entries, file, mapping, meta, strategy
from hostile.draft import INDEX, WEIGHTS, Draft, container, random_tensor
from hostile.link_cases import after

refused = refusals("display")
consented = refusals("display", base=own, consent=("modeling.py",))
M, C = "metadata.json", "config.json"
CLEAR, RED, FORGED = "\x1b[2J\x1b[H", "\x1b[31m", "x\nINFO wmtp: checkpoint verified\nx"
TURNED, HIDDEN, EIGHT = "\u202etxt.exe", "a\u200b\u2060\ufeffb", "\x9b31m\x85\x7f"
TAGS = "".join(chr(0xE0000 + ord(c)) for c in "trust me")
_TEXTS = {
    "a terminal escape": (CLEAR, "\\x1b[2J"),
    "a forged line": (FORGED, "\\nINFO"),
    "text turned around": (TURNED, "\\u202e"),
    "controls of eight bits": (EIGHT, "\\x9b"),
    "invisible tags": (TAGS, "\\U000e0074"),
    "invisible spaces": (HIDDEN, "\\u200b"),
}
_LONG = "long" * 200_000
_ONLY_CONFIG = strategy(required_files=[C])


def _tensor(name: str) -> bytes:
    return container({name: {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}})


def _only_file(name: str | bytes) -> Change:
    def step(directory: Path) -> None:
        (directory / WEIGHTS).unlink()
        (directory / os.fsdecode(name)).touch()

    return after(step)


def _parameter_with_escapes(draft: Draft) -> None:
    line = f"self.register_parameter({CLEAR + 'w'!r}, nn.Parameter(self.head.weight[0].clone()))"
    text = MODELING.replace("\n    def forward", f"        {line}\n\n    def forward", 1)
    draft.files["modeling.py"] = text.encode()


def _kept_parameter(draft: Draft) -> None:
    _parameter_with_escapes(draft)
    draft.strategy["state_dict_mapping"] = {"allow_missing": ["*w"]}


def _left_tensor(draft: Draft) -> None:
    draft.tensors["extra.\u6f22\u5b57"] = random_tensor("extra", (2,))
    draft.strategy["state_dict_mapping"] = {"allow_unexpected": ["extra.*"]}


def _code(text: str, **strategy_fields: str) -> Change:
    def change(draft: Draft) -> None:
        draft.files["modeling.py"] = (MODELING + text).encode()
        draft.strategy.update(strategy_fields)

    return change


CASES = [
    *[
        refused(f"{what} in a value of the metadata", "MetadataError", (M, "wmtp_type", shown), meta(wmtp_type=text))
        for what, (text, shown) in _TEXTS.items()
    ],
    *[
        refused(f"{what} in an unknown field", "MetadataError", (M, shown), meta(**{text: 1}))
        for what, (text, shown) in _TEXTS.items()
    ],
    *[
        refused(f"{what} in the configuration", "CheckpointError", (C, shown), config(hidden_act=text))
        for what, (text, shown) in _TEXTS.items()
    ],
    *[
        refused(
            f"{what} in a key of the configuration",
            "TrustError",
            (C, shown),
            config(**{text: {"auto_map": {text: text}}}),
        )
        for what, (text, shown) in _TEXTS.items()
    ],
    *[
        refused(f"{what} in the name of a tensor", "FormatError", (WEIGHTS, shown), file(WEIGHTS, _tensor(f"w{text}")))
        for what, (text, shown) in _TEXTS.items()
    ],
    refused("a terminal escape in the type of the model", "MetadataError", (C, "\\x1b"), config(model_type=CLEAR)),
    refused("a terminal escape in the architecture", "MetadataError", (M, "\\x1b"), meta(base_architecture=CLEAR)),
    refused("a terminal escape in an algorithm", "MetadataError", (M, "\\x1b"), meta(algorithm_compatibility=[CLEAR])),
    refused("a terminal escape in the class", "MetadataError", (M, "\\x1b"), strategy(transformers_class=RED)),
    refused("a terminal escape in a prefix", "PlanError", ("remove_prefix", "\\x1b"), mapping(remove_prefix=RED)),
    refused(
        "a terminal escape in the name of a shard",
        "FormatError",
        (INDEX, "\\x1b"),
        entries(lm_head__weight=f"{RED}.safetensors"),
    ),
    refused(
        "a terminal escape in a tensor of the index",
        "FormatError",
        (INDEX, "\\x1b"),
        entries(**{RED: "model-00001-of-00002.safetensors"}),
    ),
    refused(
        "a terminal escape in the notes of a header",
        "FormatError",
        (WEIGHTS, "\\u001b"),
        file(WEIGHTS, container({"__metadata__": {CLEAR: [CLEAR]}})),
    ),
    refused(
        "a terminal escape in the type of a tensor",
        "FormatError",
        (WEIGHTS, "\\x1b"),
        file(WEIGHTS, container({"w": {"dtype": CLEAR, "shape": [], "data_offsets": [0, 0]}})),
    ),
    refused(
        "a terminal escape in the name of a file", "FormatError", ("\\x1b",), _ONLY_CONFIG, _only_file(f"{CLEAR}.bin")
    ),
    refused(
        "a forged line in the name of a file",
        "FormatError",
        ("\\nhint",),
        _ONLY_CONFIG,
        _only_file("x\nhint: run it with trust_remote_code.bin"),
    ),
    refused("a name of a file that is no text", "FormatError", ("\\udcff",), _ONLY_CONFIG, _only_file(b"\xff\xfe.bin")),
    refused(
        "a name of a file of many characters",
        "FormatError",
        ("\\u6f22",),
        _ONLY_CONFIG,
        _only_file("\u6f22" * 80 + ".bin"),
    ),
    refused(
        "letters of another alphabet in a required file",
        "NotFoundError",
        ("\\u0441onfig.json",),
        strategy(required_files=["\u0441onfig.json"]),
    ),
    refused(
        "letters of another alphabet in a tensor",
        "PlanError",
        ("\\u0435",),
        file(WEIGHTS, _tensor("mod\u0435l.norm.weight")),
    ),
    refused(
        "letters of another alphabet in the name of the code",
        "TrustError MetadataError",
        ("m\\xf6deling.py",),
        strategy(custom_module_file="m\xf6deling.py", required_files=[C]),
        file("m\xf6deling.py", MODELING),
        base=own,
    ),
    refused(
        "a command for a shell in the name of the code",
        "TrustError",
        ("--allow-code '$(touch x);m.py=sha256:",),
        strategy(custom_module_file="$(touch x);m.py", required_files=[C]),
        file("$(touch x);m.py", MODELING),
        base=own,
    ),
    refused(
        "imports with a terminal escape in the code",
        "TrustError",
        ("modeling.py", "imports"),
        file("modeling.py", f"import os\n'''{CLEAR}'''\nimport sy\u0455\n"),
        base=own,
    ),
    refused("a text without end in a value", "MetadataError", (M, "wmtp_type", "..."), meta(wmtp_type=_LONG)),
    refused(
        "a text without end in a list",
        "MetadataError",
        (M, "algorithm_compatibility.0", "..."),
        meta(algorithm_compatibility=[_LONG]),
    ),
    refused("a text without end in the configuration", "CheckpointError", (C, "..."), config(hidden_act=_LONG)),
    refused("a text without end in a refused key", "TrustError", (C, "auto_map", "..."), config(auto_map={"A": _LONG})),
    refused("a text without end in a transform", "MetadataError", (M, "..."), mapping(key_transforms={_LONG: "x"})),
    refused(
        "four thousand refused keys",
        "TrustError",
        (C, "and 3,980 more"),
        config(**{f"sub{n}": {"auto_map": {"A": "x" * 100}} for n in range(4000)}),
    ),
    consented(
        "a class that forges its name",
        "PlanError TrustError",
        ("missing", "\\x1b"),
        _code(f"\n\nOwnModel.__qualname__ = {CLEAR + 'x'!r}\n"),
        lambda d: d.tensors.pop("head.weight"),
    ),
    consented(
        "code that forges where it stands",
        "TrustError",
        ("modeling.py", "model_class_name"),
        _code(f"\n\n__file__ = {CLEAR!r}\n", model_class_name="Absent"),
    ),
    consented(
        "code that forges the names it defines",
        "TrustError",
        ("modeling.py", "\\x1b"),
        _code(f"\n\nglobals()[{CLEAR!r}] = OwnModel\n", model_class_name="Absent"),
    ),
    consented("a parameter that is named by escapes", "PlanError TrustError", ("\\x1b",), _parameter_with_escapes),
    consented(
        "a receipt with a parameter that is named by escapes", "Summary", ("\\x1b",), _kept_parameter, call="receipt"
    ),
    consented(
        "a receipt of a class that forges its name",
        "Summary",
        ("\\x1b",),
        _code(f"\n\nOwnModel.__qualname__ = {CLEAR + 'x'!r}\n"),
        call="receipt",
    ),
    refused(
        "a receipt with letters of another alphabet", "Summary", ("\\u6f22",), _left_tensor, call="receipt", base=llama
    ),
]
