"""The process around the pickle: what it is given, and that nothing it answers is believed unseen.

In place of what it would run stand a few lines of Python, as if a pickle had taken it over.
"""

import json

import pytest
import torch

from hostile_pickles import save
from tensor_files import safetensors_bytes, tensor_entry
from wmtp.authoring.convert import convert
from wmtp.authoring.pickles import confined
from wmtp.authoring.pickles.confined import Job, run_confined
from wmtp.confinement.limits import Limits
from wmtp.errors import CheckpointError, TrustError

GOOD = {
    "kind": "written",
    "tensors": [{"name": "a", "dtype": "F32", "shape": [2], "part": 1}],
    "same": {},
    "dropped": [],
    "unwrapped": None,
    "network_cut": True,
    "writes_confined": True,
    "memory_limited": True,
}
PART = safetensors_bytes({"a": tensor_entry("F32", [2], 0, 8)}, bytes(8))


@pytest.fixture
def answers(monkeypatch, tmp_path):
    """Let the process run other code, and return its reply."""

    def run(code: str, *, seconds: int = 300):
        monkeypatch.setattr(confined, "_START", code)
        limits = Limits(memory_bytes=1000, seconds=seconds, output_bytes=1000)
        return run_confined(Job((), str(tmp_path), None, None, 1000, limits), where="d")

    return run


def test_it_is_given_no_secret_no_input_and_a_directory_of_its_own(answers, monkeypatch, tmp_path):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    facts = "{'env': dict(os.environ), 'stdin': sys.stdin.read(), 'cwd': os.getcwd(), 'path': sys.path[:1]}"
    code = "import os, sys, json; print(json.dumps({'kind': 'failed', 'file': '', 'error': 'CheckpointError', "
    with pytest.raises(CheckpointError) as told:
        answers(f"{code}'problem': json.dumps({facts}), 'hint': ''}}))")
    found = told.value.problem
    assert "secret" not in found
    assert "/nowhere" not in found
    assert '"stdin": ""' in found
    assert "wmtp-convert-" in found.partition('"cwd": ')[2]


@pytest.mark.parametrize(
    "answer",
    [
        "no JSON",
        "[]",
        "{}",
        json.dumps({**GOOD, "kind": "other"}),
        json.dumps({**GOOD, "extra": 1}),
        json.dumps({**GOOD, "tensors": [{"name": 1}]}),
        json.dumps({**GOOD, "network_cut": 1}),
        '{"kind": "failed", "kind": "written"}',
        "[" * 100_000,
    ],
)
def test_an_answer_that_is_not_in_the_form_is_not_believed(answers, answer):
    with pytest.raises(TrustError, match="d: the answer of the process that opened it"):
        answers(f"print({answer!r})" if len(answer) < 1000 else "print('[' * 100_000)")


def test_an_end_by_a_signal_is_told(answers):
    with pytest.raises(CheckpointError, match="was ended by SIGABRT after saying 'the end'"):
        answers("import os, sys; print('the end', file=sys.stderr, flush=True); os.abort()")


def test_an_end_without_an_answer_is_told(answers):
    with pytest.raises(CheckpointError, match="ended with status 0"):
        answers("pass")


def test_a_process_that_only_waits_is_ended(answers, monkeypatch):
    monkeypatch.setattr(confined, "_STARTING_SECONDS", 0)
    with pytest.raises(CheckpointError, match="took more than 1 seconds"):
        answers("import time; time.sleep(60)", seconds=1)


def taken_over(monkeypatch, tmp_path, reply, *also):
    """Convert with a process that writes one file, does more, and answers what it likes."""
    lines = [
        "import json, os",
        "os.chdir(json.load(open('job.json'))['directory'])",
        f"open('part-00001.safetensors', 'wb').write({PART!r})",
        *also,
        f"print({json.dumps(reply)!r})",
    ]
    monkeypatch.setattr(confined, "_START", "\n".join(lines))
    return convert(save(tmp_path / "source", {"a": torch.zeros(2)}), tmp_path / "made")


def test_what_is_true_is_taken_over(monkeypatch, tmp_path):
    report = taken_over(monkeypatch, tmp_path, GOOD)
    assert (report.num_tensors, report.num_bytes, report.weights) == (1, 8, ("model.safetensors",))


@pytest.mark.parametrize(
    ("changes", "also"),
    [
        ({"tensors": [{"name": "b", "dtype": "F32", "shape": [2], "part": 1}]}, ""),
        ({"tensors": [{"name": "a", "dtype": "I32", "shape": [2], "part": 1}]}, ""),
        ({"tensors": [{"name": "a", "dtype": "F32", "shape": [1, 2], "part": 1}]}, ""),
        ({"tensors": [{"name": "a", "dtype": "F32", "shape": [2], "part": 0}]}, ""),
        ({"tensors": [{"name": "a", "dtype": "F32", "shape": [2], "part": 9_999_999}]}, ""),
        ({"same": {"b": "c"}}, ""),
        ({}, "open('more', 'w')"),
        ({}, "os.remove('part-00001.safetensors'); os.symlink('/dev/zero', 'part-00001.safetensors')"),
        ({}, "os.remove('part-00001.safetensors'); os.mkdir('part-00001.safetensors')"),
    ],
)
def test_what_is_not_true_is_not_and_nothing_is_left(monkeypatch, tmp_path, changes, also):
    with pytest.raises(TrustError, match="the process that opened the pickles reported"):
        taken_over(monkeypatch, tmp_path, GOOD | changes, *filter(None, [also]))
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
