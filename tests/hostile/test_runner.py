"""The runner is not blind: what must never happen is done on purpose, and seen."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hostile.case import Case, refusals
from hostile.changes import meta
from hostile.good import CASES as GOOD
from hostile.runner import Outcome, Zygote, faults_of, run_case
from hostile.tree import remove

HOSTILE = refusals("metadata")("no such type", "MetadataError", ("metadata.json", "wmtp_type"), meta(wmtp_type="x"))


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    with Zygote() as started:
        yield started


@pytest.fixture
def work() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp()).resolve()
    yield directory
    remove(directory)


def faults(zygote: Zygote, work: Path, case: Case = HOSTILE, **call: Any) -> list[str]:
    return faults_of(case, run_case(zygote, case, work, **call))


def doing(call: str, **keywords: Any) -> dict[str, Any]:
    return {"call": call, "keywords": keywords}


def test_a_refusal_that_keeps_every_rule_has_no_fault(zygote, work):
    assert faults(zygote, work) == []


def test_a_process_that_hangs_is_killed_and_the_next_case_runs(zygote, work):
    assert faults(zygote, work, seconds=1, **doing("hang")) == ["not refused but: hang"]
    assert faults(zygote, work / "next") == []


def test_a_process_that_crashes_is_reported_and_the_next_case_runs(zygote, work):
    assert faults(zygote, work, **doing("crash")) == ["not refused but: signal 11"]
    assert faults(zygote, work / "next") == []


def test_work_and_memory_are_seen_though_the_refusal_is_right(zygote, work, monkeypatch):
    monkeypatch.setattr("hostile.runner.MAX_EFFORT", 10)
    assert "units of work" in str(faults(zygote, work, **doing("burn", units=30)))
    # Far over the bound: pages of libraries count in what there was before, and some kernels give a child none of them.
    assert "grew by" in str(faults(zygote, work / "next", **doing("eat", num_bytes=1500 << 20)))


def test_memory_without_bound_ends_as_an_untyped_error_and_not_on_this_machine(zygote, work):
    assert "raised MemoryError" in str(faults(zygote, work, **doing("eat", num_bytes=1 << 40)))


def test_a_payload_that_runs_is_seen(zygote, work):
    assert faults(zygote, work, **doing("write", path=str(work / "marker"))) == ["the payload ran"]


@pytest.mark.parametrize("name", ["new.txt", "config.json", "../beside.txt"])
def test_a_file_that_is_written_or_changed_is_seen(zygote, work, name):
    found = faults(zygote, work, **doing("write", path=str(work / "checkpoint" / name)))
    assert found[0].startswith("changed on disk: ['")
    assert Path(name).name in found[0]


def test_a_file_that_is_read_outside_is_seen(zygote, work):
    (work / "outside").mkdir()
    (work / "outside" / "secret").write_text("s")
    assert faults(zygote, work, **doing("read", path=str(work / "outside" / "secret"))) == [
        "did: ['opened outside/secret']"
    ]


def test_what_is_printed_or_left_behind_is_seen(zygote, work):
    assert faults(zygote, work, **doing("print")) == ["printed: 'hello\\n'"]
    (fault,) = faults(zygote, work / "next", **doing("meddle"))
    assert "torch's default dtype" in fault


@pytest.mark.parametrize("error", ["KeyError", "SystemExit"])
def test_an_error_that_is_not_ours_is_seen_though_its_text_is_right(zygote, work, error):
    (fault,) = faults(zygote, work, **doing("raise", error=error, text="metadata.json: wmtp_type"))
    assert fault.startswith(f"raised {error}: ")


@pytest.mark.parametrize(
    ("problem", "hint", "fault"),
    [
        ("metadata.json: wmtp_type", " ", "has no hint"),
        ("metadata.json: wmtp_typ", "h", "does not name ['wmtp_type']"),
        ("metadata.json: wmtp_type \x1b[2J", "h", "shows ['\\x1b']"),
        ("metadata.json: wmtp_type \u202e", "h", "shows ['\\u202e']"),
        ("metadata.json: wmtp_type", "\u0441", "shows ['\u0441']"),
        ("metadata.json: wmtp_type" + "x" * 9000, "h", "has 2 lines, the longest of 9024 characters"),
        ("metadata.json: wmtp_type" + "\n" * 100, "h", "has 102 lines"),
    ],
    ids=["no hint", "no name", "escape", "turned", "alphabet", "long", "many"],
)
def test_a_refusal_that_breaks_a_rule_of_its_text_is_seen(zygote, work, problem, hint, fault):
    case = dataclasses.replace(HOSTILE, errors=frozenset({"WmtpError"}))
    found = faults(zygote, work, case, **doing("refuse", problem=problem, hint=hint))
    assert any(each.startswith(fault) for each in found)


def test_a_refusal_by_another_class_or_none_at_all_is_seen(zygote, work):
    case = dataclasses.replace(HOSTILE, errors=frozenset({"TrustError"}))
    assert faults(zygote, work, case)[0].startswith("refused with MetadataError, not ['TrustError']")
    loaded = dataclasses.replace(GOOD[0], errors=frozenset({"TrustError"}))
    assert faults(zygote, work / "next", loaded) == ["not refused but: loaded"]


def test_a_secret_that_is_repeated_is_seen(zygote, work):
    case = dataclasses.replace(HOSTILE, hiding=("'x'",))
    assert faults(zygote, work, case)[0].startswith("repeats [\"'x'\"]")


def test_a_good_checkpoint_that_is_refused_is_seen(zygote, work):
    case = dataclasses.replace(HOSTILE, errors=frozenset())
    assert faults(zygote, work, case)[0].startswith("a good checkpoint was not loaded")


def test_values_that_stand_nowhere_in_the_checkpoint_are_seen(zygote, work):
    answer = run_case(zygote, GOOD[0], work, **doing("invent")).answer
    assert answer["homeless"] == ["weight"]
    assert answer["from_outside"] == []
    outcome = Outcome({**answer, "printed": ""}, effort=0, has_run=False, changed=[], written={})
    assert faults_of(GOOD[0], outcome) == ["values that stand nowhere in the checkpoint: ['weight']"]


def test_other_values_than_were_written_are_seen(zygote, work):
    outcome = run_case(zygote, GOOD[0], work)
    assert faults_of(GOOD[0], outcome) == []
    assert len(outcome.written) == 21
    swapped = dataclasses.replace(outcome, written={**outcome.written, "lm_head.weight": "0"})
    assert faults_of(GOOD[0], swapped) == ["other values than were written: ['lm_head.weight']"]
