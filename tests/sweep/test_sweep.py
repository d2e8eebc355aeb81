"""Every architecture that transformers offers, built tiny, saved, drafted, loaded and held to `from_pretrained`.

What came of it stands in docs/models.md, and here is held to be true.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import pytest
from transformers.models.auto import modeling_auto

from sweep.exceptions import ANSWER_NO_TOKENS_ALONE, NEEDS_MORE, NOT_BUILT, WRONG_IN_TRANSFORMERS

pytestmark = pytest.mark.slow

TESTS = Path(__file__).parent.parent
DOCUMENT = TESTS.parent / "docs" / "models.md"
OFFERED = {
    "causal": modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    "reward": modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    "image-text": modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    "trunk": modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
}
ENOUGH = {"causal": 0.97, "reward": 1.0, "image-text": 0.97, "trunk": 0.8}
_PER_PROCESS = 50  # beginning one takes as long as some architectures; their memory stays within 2 GB


def _rows(root: Path, mode: str, task: str, seed: str) -> Iterator[dict]:
    waiting = iter(OFFERED[task])
    chunks = list(iter(lambda: list(islice(waiting, _PER_PROCESS)), []))
    environment = {**os.environ, "PYTHONPATH": str(TESTS), "PYTHONHASHSEED": seed, "OMP_NUM_THREADS": "1"}

    def run(chunk: list[str]) -> str:
        command = [sys.executable, "-m", "sweep.child", str(root), mode, task, *chunk]
        return subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout

    with ThreadPoolExecutor(2) as pool:
        for output in pool.map(run, chunks):
            yield from map(json.loads, output.splitlines())


@pytest.mark.parametrize("task", OFFERED)
def test_what_transformers_offers_loads_by_its_draft_bit_by_bit(tmp_path, task):
    rows = list(_rows(tmp_path, "first", task, "0"))
    again = list(_rows(tmp_path, "again", task, "1"))
    outcomes = {row["type"]: row["outcome"] for row in rows}
    for name in WRONG_IN_TRANSFORMERS.keys() & outcomes.keys():
        outcomes[name] = outcomes[name].replace("differs", "equal but where transformers is wrong", 1)
    counts = Counter(outcome.partition(":")[0] for outcome in outcomes.values())
    summary = "\n".join(f"{name}: {outcome}" for name, outcome in outcomes.items() if outcome != "equal")
    sys.stdout.write(f"{task}: {dict(counts)}\n{summary}\n")

    assert [row for row in again if row.get("same") is False] == []  # on another seed of hashes
    assert counts["crashed"] + counts["differs"] == 0, summary
    built = len(rows) - counts["not built"] - counts["none"]
    loaded = counts["equal"] + counts["equal but where transformers is wrong"]
    assert loaded >= ENOUGH[task] * built, summary
    unknown = {name for name, outcome in outcomes.items() if outcome.startswith("not built")} - NOT_BUILT - NEEDS_MORE
    assert unknown == set(), summary
    assert f"| {task} | {len(rows)} | {built} | {loaded} |" in DOCUMENT.read_text()
    if task in ("causal", "reward"):
        assert_written(list(_rows(tmp_path, "write", task, "0")))
    if task == "causal":
        assert_grown(list(_rows(tmp_path, "grow", task, "0")))
        packed = list(_rows(tmp_path, "pack", task, "0"))
        assert_packed(packed)
        assert_losses(packed)


def assert_written(rows: list[dict]) -> None:
    """What is loaded and written comes back, and a change of a parameter stays where it is stored."""
    for kind in ("same", "changed"):
        wrong = [f"{row['type']}: {row[kind]}" for row in rows if row.get(kind, "equal") != "equal"]
        sys.stdout.write(f"written, {kind}: {len(rows) - len(wrong)} of {len(rows)}\n" + "\n".join(wrong) + "\n")
        assert wrong == []


def assert_grown(rows: list[dict]) -> None:
    """Heads stand on a model and it loads again bit by bit, or a refusal says why not."""
    for head_type in ("linear", "transformer"):
        outcomes = {row["type"]: row[head_type] for row in rows if head_type in row}
        counts = Counter(outcome.partition(":")[0] for outcome in outcomes.values())
        refused = "\n".join(f"{name}: {outcome}" for name, outcome in outcomes.items() if outcome != "equal")
        sys.stdout.write(f"grow, {head_type}: {dict(counts)}\n{refused}\n")
        assert counts.keys() <= {"equal", "refused"}, refused
        silent = sum("it raised" in outcome for outcome in outcomes.values())
        row = f"| {head_type} | {len(outcomes)} | {counts['equal']} | {silent} | {counts['refused'] - silent} |"
        assert row in DOCUMENT.read_text()


def assert_packed(rows: list[dict]) -> None:
    """What `models/packing.py` says of packed documents is what each model does with them."""
    asked = {row["type"]: (row["said"], row["found"]) for row in rows if "found" in row}
    silent = {name: found for name, (_, found) in asked.items() if found.startswith("unknown")}
    wrong = {name: pair for name, pair in asked.items() if name not in silent and pair[0] != pair[1]}
    sys.stdout.write(f"packing: {dict(Counter(asked.values()))}\n")
    assert wrong == {}
    assert silent.keys() == ANSWER_NO_TOKENS_ALONE, silent
    counts = Counter(found for name, (_, found) in asked.items() if name not in silent)
    assert f"In {counts['apart']} documents stay apart; in {counts['mixed']} they do not" in DOCUMENT.read_text()


def assert_losses(rows: list[dict]) -> None:
    """Losses that are made without logits of a batch are those of the logits."""
    asked = {row["type"]: row["losses"] for row in rows if "losses" in row}
    counts = Counter(found.partition(":")[0] for found in asked.values())
    sys.stdout.write(f"losses: {dict(counts)}\n")
    assert {name: found for name, found in asked.items() if found.startswith("differ")} == {}
    assert counts["from its body"] > counts["from its logits"] * 4
