"""Every error is explained, and the example of each is what wmtp prints."""

import inspect
import json
import re
import shutil

import pytest

import wmtp as library
from checkpoints import change_tensors, write_custom, write_llama_checkpoint
from wmtp import errors
from wmtp.cli.output import Output
from wmtp.explanations import errors_page, explanations
from wmtp.extras import refuse_missing
from wmtp.storage.opening import open_store
from wmtp.transport.claims import Claims
from wmtp.transport.target import check_arrived

CLASSES = {name: cls for name, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, errors.WmtpError)}
_FENCE = re.compile(r"```(console|pycon)\n(?:\$|>>>) (.*?)\n(.*?)\n```", re.DOTALL)
_NOT_BY_COMMAND = (
    "WmtpError",
    "ChangedError",
    "ArrivalError",
    "UnknownNameError",
    "MissingPackageError",
    "InternalError",
)


def example(code: str) -> tuple[str, str]:
    """The line that is typed, and what is printed."""
    found = _FENCE.search(explanations()[code])
    assert found is not None, code
    return found[2], found[3]


def is_said(said: str, shown: str) -> bool:
    """Whether a text is what an example shows, where `…` stands for anything."""
    return re.fullmatch(".*".join(map(re.escape, shown.split("…"))), said, re.DOTALL) is not None


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    """The files on which the commands of the examples run."""
    room = tmp_path_factory.mktemp("examples")
    models = room / "models"
    models.mkdir()
    llama = write_llama_checkpoint(models / "llama")
    for name in ("other", "old", "zip", "lacking", "tampered"):
        shutil.copytree(llama, models / name)
    document = json.loads((llama / "metadata.json").read_text())
    (models / "old/metadata.json").write_text(json.dumps({**document, "storage_version": "1.0"}))
    (models / "zip/model.safetensors").write_bytes(b"PK\x03\x04" + bytes(100))
    change_tensors(models / "lacking", lambda tensors: tensors.pop("model.norm.weight"))
    (models / "tampered/generation_config.json").write_text("{}")
    write_custom(models / "own")
    (room / "data.jsonl").write_text('{"txt": "a"}\n')
    (room / "config.yaml").write_text("paths: {models: {base: [models/llama]}, output_dir: runs}\n")
    (room / "recipe.yaml").write_text(
        "run: {name: first}\ndata: {train: {files: [data.jsonl], text: txt}}\n"
        "train: {algo: baseline-mtp, max_steps: 2}\n"
    )
    return room


def test_every_error_is_explained_in_the_order_of_the_tree():
    tree = errors_page().partition("```text\n")[2].partition("```")[0]
    assert re.findall(r"(?:── |^)(\w+Error)(?=\(|$)", tree, re.MULTILINE) == list(explanations())
    assert set(explanations()) == set(CLASSES)


@pytest.mark.parametrize("code", CLASSES)
def test_an_explanation_says_what_it_means_shows_one_and_says_what_to_do(code):
    meaning, example_and_steps = explanations()[code].split("```", 1)
    assert len(meaning) > 60
    assert "hint: " in example_and_steps
    assert example_and_steps.rpartition("```")[2].strip().startswith("- ")


@pytest.mark.parametrize("code", [code for code in CLASSES if code not in _NOT_BY_COMMAND])
def test_an_example_is_what_its_command_prints(code, room, wmtp, monkeypatch):
    monkeypatch.chdir(room)
    wmtp("lock", "models/llama", "--output", "llama.lock")
    line, shown = example(code)
    said = wmtp(*line.removeprefix("wmtp ").split()).stderr
    said = said[said.index("error: ") :].removesuffix(f"\nmore: wmtp explain {code}\n")
    assert is_said(said, shown), said


def test_the_example_of_an_unknown_name_is_what_python_raises():
    line, shown = example("UnknownNameError")
    with pytest.raises(errors.UnknownNameError) as caught:
        eval(line, {"wmtp": library})
    assert str(caught.value) == shown


def test_the_example_of_what_the_system_refuses(wmtp, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied", "models/closed")

    monkeypatch.setattr("wmtp.storage.opening.open_store", refuse)
    line, shown = example("WmtpError")
    assert wmtp(*line.split()[1:]).stderr == f"{shown}\nmore: wmtp explain WmtpError\n"


def test_the_examples_of_bytes_that_change_and_that_arrive_damaged(tmp_path):
    store = open_store("memory://models/llama")
    store.put("config.json", b"{}")
    with pytest.raises(errors.ChangedError) as changed:
        check_arrived(store, {})
    assert is_said(f"error: {changed.value}".replace("memory:", "s3:"), example("ChangedError")[1])
    (tmp_path / "model.safetensors").write_bytes(b"x")
    digest = {"path": "model.safetensors", "size": 1, "sha256": "0" * 64}
    (tmp_path / "manifest.json").write_text(json.dumps({"files": [digest]}))
    with pytest.raises(errors.ArrivalError) as arrived:
        Claims(open_store(tmp_path)).check("model.safetensors", "1" * 64)
    said = f"error: {arrived.value}".replace(str(tmp_path), "s3://models/llama")
    assert is_said(said, example("ArrivalError")[1])


def test_the_example_of_a_package_that_is_missing():
    with pytest.raises(errors.MissingPackageError) as caught:
        refuse_missing(ModuleNotFoundError("No module named 'torch'", name="torch"))
    assert f"error: {caught.value}" == example("MissingPackageError")[1]


def test_the_example_of_a_fault_of_wmtp_itself(capsys):
    Output().fail_unexpectedly(ZeroDivisionError, ZeroDivisionError("by zero"))
    assert capsys.readouterr().err == f"{example('InternalError')[1]}\nmore: wmtp explain InternalError\n"


def test_an_error_of_a_plug_in_has_the_code_of_the_class_that_it_is_made_from():
    class LabError(errors.DataError):
        """An error of somebody else's package."""

    assert LabError("x", hint="y").code == "DataError"
    assert errors.ArrivalError("x", hint="y").code == "ArrivalError"


def test_every_command_that_is_named_exists(wmtp):
    named = set(re.findall(r"[`']wmtp ([a-z]+)", errors_page()))
    assert {"validate", "grow", "upgrade"} <= named
    assert all(wmtp(verb, "--help").exit_code == 0 for verb in named)
