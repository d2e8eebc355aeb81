"""Foreign text in what commands print of checkpoints that load, or that only half do."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hostile.bases import MODELING, llama, own
from hostile.case import Case, Change, refusals
from hostile.changes import file, meta, strategy
from hostile.code_cases import TOUCH, neighbour
from hostile.display_cases import CLEAR, EIGHT, FORGED, TURNED
from hostile.draft import WEIGHTS, Draft, container, random_tensor
from hostile.link_cases import after

shown = refusals("commands", call="command")
M, C = "metadata.json", "config.json"
_DESCRIPTIVE = (
    "model_size",
    "created_by",
    "standardization_date",
    "original_format",
    "source_path",
    "dtype",
    "$schema",
)


def _case(sentence: str, words: str, naming: tuple[str, ...] | str, *changes: Change, **how: Any) -> Case:
    return shown(sentence, "Summary", naming, *changes, keywords={"words": words.split()}, **how)


def _described(draft: Draft) -> None:
    for name, text in zip(_DESCRIPTIVE, (CLEAR, FORGED, TURNED, EIGHT, CLEAR, FORGED, TURNED), strict=True):
        draft.metadata[name] = text
    draft.metadata |= {"extra": {CLEAR: [FORGED]}, "provenance": {TURNED: CLEAR}}


def _odd_files(draft: Draft) -> None:
    def put(directory: Path) -> None:
        for name in (f"{CLEAR}.txt", "x\nINFO: verified", f"{TURNED}.md", os.fsdecode(b"\xff\xfe.md")):
            (directory / name).write_text("x")

    draft.after.append(put)


def _odd_tensor(draft: Draft) -> None:
    draft.tensors["extra.\u6f22"] = random_tensor("extra", (2,))
    draft.strategy["state_dict_mapping"] = {"allow_unexpected": ["extra.*"]}


def _older(draft: Draft) -> None:
    del draft.metadata["storage_version"]
    draft.metadata |= {"wmtp_type": "mtp_model", "created_by": CLEAR, CLEAR: FORGED}


def _two_models(directory: Path) -> None:
    (directory / f"b{CLEAR}").mkdir()
    for name in (M, C, WEIGHTS):
        (directory / f"b{CLEAR}" / name).write_bytes((directory / name).read_bytes())
    (directory / "broken").mkdir()
    (directory / "broken" / M).write_text('{"' + "x" * 100 + '\\u001b[2J": 1}')


def _deep_code(text: Callable[[str], str] = str) -> Change:
    return file("modeling.py", text(f"import os\nimport sys\n'''{TURNED}'''\n{MODELING}"))


CASES = [
    _case("descriptions that are inspected", "inspect {uri}", ("exit status 0", "LlamaForCausalLM"), _described),
    _case("descriptions that are inspected as JSON", "inspect {uri} --json", ("exit status 0", "\\u001b"), _described),
    _case(
        "names of files that are inspected", "inspect {uri}", ("exit status 0", "\\x1b", "\\n", "\\udcff"), _odd_files
    ),
    _case("names of tensors that are inspected", "inspect {uri} --tensors", ("exit status 0", "\\u6f22"), _odd_tensor),
    _case("models in a directory that are listed", "ls {uri}", ("exit status", "\\x1b"), after(_two_models)),
    _case(
        "models in a directory that are listed as JSON",
        "ls {uri} --json",
        ("exit status", "\\u001b"),
        after(_two_models),
    ),
    _case("a model that is validated", "validate {uri}", "exit status 0", _described, _odd_files),
    _case(
        "a model that is validated to its last byte", "validate {uri} --deep", "exit status 0", _described, _odd_tensor
    ),
    _case("a broken model that is validated", "validate {uri}", ("exit status 1", M, "\\x1b"), meta(wmtp_type=CLEAR)),
    _case(
        "code that is validated without consent",
        "validate {uri}",
        ("exit status", "modeling.py"),
        neighbour("modeling.py", TOUCH + MODELING),
        base=own,
    ),
    _case(
        "code that is shown to whom it may concern",
        "trust {uri}",
        ("exit status", "modeling.py"),
        _deep_code(),
        base=own,
    ),
    _case("a model that is loaded", "load {uri}", ("exit status 0", "\\u6f22"), _odd_tensor),
    _case(
        "code that is loaded without consent",
        "load {uri}",
        ("exit status 1", "--allow-code"),
        neighbour("modeling.py", TOUCH + MODELING),
        base=own,
    ),
    _case(
        "a draft for a configuration with escapes",
        "init {uri}",
        "exit status",
        file(M, None),
        lambda d: d.config.update(model_type=CLEAR, architectures=[FORGED]),
    ),
    _case("older metadata with escapes", "upgrade {uri}", ("exit status", M), _older),
    _case("an error as JSON", "load {uri} --json", ("exit status 1", "\\u001b[2J|\\\\x1b[2J"), meta(wmtp_type=CLEAR)),
    _case(
        "a tensor that is no tensor",
        "inspect {uri}",
        ("exit status 1", WEIGHTS, "\\x1b"),
        file(WEIGHTS, container({CLEAR: {}})),
    ),
    _case(
        "a class that is a command",
        "inspect {uri}",
        ("exit status 1", M),
        strategy(transformers_class="$(touch x)"),
        base=llama,
    ),
]
