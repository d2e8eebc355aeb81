"""The file: it asks nobody for anything, and whatever a run's documents and settings say stands in it as text."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser

import pytest

import wmtp.report
from wmtp.errors import TrainingError
from wmtp.report import XRayOptions, write_report
from wmtp.report.page import as_script

EVIL = "</script><img src=x onerror=alert(1)><!--"


class Outline(HTMLParser):
    """Elements with their attributes, and what scripts hold."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.scripts, self.policy = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        if self.elements and self.elements[-1][0] == "script":
            self.scripts.append(data)


@pytest.fixture
def evil_run(rho1_run, tmp_path):
    """A run whose settings are what an attacker would write."""
    shutil.copytree(rho1_run, tmp_path / "run")
    path = tmp_path / "run" / "run.json"
    document = json.loads(path.read_text())
    document["recipe"]["train"]["algo"] = document["recipe"]["rho1"][EVIL] = EVIL
    document["plan"]["notes"] = [EVIL]
    document["plan"]["cost"] = document["config"]["paths"] = EVIL
    path.write_text(json.dumps(document))
    return tmp_path / "run"


def test_one_file_that_names_no_other_and_is_small(rho1_run, critic_run, tmp_path):
    written = write_report([rho1_run, critic_run], tmp_path / "r.html", xray=XRayOptions(documents=2))
    text = written.path.read_text()
    outline = Outline(text)
    assert written.num_bytes == len(text.encode()) < 1_000_000
    loaded = [each for each in outline.elements if {"src", "srcset", "data"} & set(each[1]) or each[0] == "link"]
    assert loaded == []
    (policy,) = [a["content"] for tag, a in outline.elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy.partition("style-src")[0]
    assert written.steps == ((1, 2), (1, 2))


def test_facts_of_a_run_are_in_it(rho1_run, tmp_path):
    text = write_report([rho1_run], tmp_path / "r.html").path.read_text()
    for fact in ("rho1-wmtp", "keep_ratio = 0.5", str(rho1_run.parents[1] / "ref"), "head 2: held-out cross-entropy"):
        assert fact in text
    assert re.search(r"base model: model\.safetensors</th><td>[0-9a-f:sh]{64,}", text)
    assert re.search(r"optimizer steps</th><td>2</td><td>2</td>", text)
    assert re.search(r"tokens trained on</th><td>([\d,]+)</td><td>\1</td>", text)
    assert re.search(
        r"memory</th><td>[\d.]+ \w?B for weights[^<]+</td><td>[\d.]+ [MG]B at most, of the whole process", text
    )


def test_what_an_attacker_writes_stands_as_text_and_without_tokens_no_model_is_needed(evil_run, tmp_path):
    shutil.rmtree(evil_run / "step-1")
    (evil_run / "final" / "model.safetensors").unlink()
    text = write_report([evil_run], tmp_path / "r.html").path.read_text()
    outline = Outline(text)
    assert [tag for tag, _ in outline.elements if tag == "img"] == []
    assert sum(tag == "script" for tag, _ in outline.elements) == 6
    assert text.count("&lt;/script&gt;&lt;img") >= 3
    assert json.loads(outline.scripts[0])["runs"][0]["algorithm"] == EVIL


def test_nothing_in_json_ends_a_script():
    value = {"text": [EVIL, "\u2028&amp;"]}
    text = as_script(value)
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == value


def test_runs_of_one_name_are_told_apart(rho1_run, critic_run, tmp_path):
    written = write_report([rho1_run, critic_run, rho1_run], tmp_path / "r.html")
    assert len(set(written.runs)) == 3
    assert written.runs[1].endswith("/runs/run")


def test_a_report_goes_into_the_directory_of_its_run_and_of_several_beside_them(evil_run):
    assert write_report([evil_run]).path == evil_run / "report.html"
    shutil.copytree(evil_run, evil_run.with_name("other"))
    assert write_report([evil_run, evil_run.with_name("other")]).path == evil_run.parent / "report.html"


def test_a_directory_that_is_no_runs_is_refused(tmp_path):
    with pytest.raises(TrainingError, match=r"run\.json: No such file or directory") as refused:
        write_report([tmp_path])
    assert "<paths.output_dir>/<run.name>" in refused.value.hint
    (tmp_path / "run.json").write_text('{"wmtp": "0.1", "recipe": {}, "konfig": {}}')
    with pytest.raises(TrainingError, match=r"2 faults") as refused:
        write_report([tmp_path])
    assert any("konfig is not a known field" in fault for fault in refused.value.faults)


def test_an_unknown_name_of_the_room_is_refused():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        wmtp.report.nothing  # noqa: B018
