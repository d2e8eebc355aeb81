"""Pushing onto the Hub: the real client, a small Hub of this machine."""

import json
import shutil

import pytest
from huggingface_hub import constants

from checkpoints import write_mtp_checkpoint
from servers.hub import Repository, hub_server
from tensor_files import tensors_as_bytes
from tiny_models import tiny_mtp
from wmtp.errors import ChangedError, IntegrityError, NotFoundError, StorageError, URIError
from wmtp.manifest import Manifest
from wmtp.publishing.exports.targets import export
from wmtp.storage.requests.hub_writer import HubWriter
from wmtp.transport.fetch import fetch_checkpoint
from wmtp.transport.push_hub import push_to_hub

URI, WEIGHTS = "hf://org/new", "model.safetensors"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with hub_server(monkeypatch, tmp_path / "home") as server:
        monkeypatch.setenv("HF_TOKEN", "hf_writer")
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        yield server


@pytest.fixture
def model(model):
    """The same with weights that are large to the Hub of this machine, and a card."""
    (model / WEIGHTS).write_bytes(tensors_as_bytes({"w": ("F32", [1000])}))
    (model / "README.md").write_text("---\nlicense: mit\n---\n# x\n")
    return model


def standing(hub, name="org/new", branch="main"):
    repository = hub.repositories[name]
    return repository.commits[repository.revisions[branch]]


def files_of(directory):
    return {p.relative_to(directory).as_posix(): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def test_a_checkpoint_becomes_a_private_repository_in_one_commit(hub, model):
    report = push_to_hub(model, URI)
    repository = hub.repositories["org/new"]
    assert repository.is_private
    assert len(repository.commits) == 2  # the Hub's own first one, and ours
    assert repository.messages == ["wmtp push: 5 files"]
    assert {**standing(hub), ".gitattributes": b""} == {
        **files_of(model),
        "manifest.json": standing(hub)["manifest.json"],
        ".gitattributes": b"",
    }
    assert report.commit == repository.revisions["main"]
    assert report.summary()[0].startswith(f"{model} is now at {URI}: 5 files, ")
    assert f"private repository, made for it; commit {report.commit}" in report.summary()
    assert any("/info/lfs/objects/batch" in path for path in hub.asked("POST"))


def test_what_was_pushed_comes_back_verified(hub, model, tmp_path):
    push_to_hub(model, URI)
    fetch_checkpoint(URI, tmp_path / "back")
    back = files_of(tmp_path / "back")
    assert {name: back[name] for name in files_of(model)} == files_of(model)
    assert {entry.path for entry in Manifest.read(tmp_path / "back" / "manifest.json").files} == set(files_of(model))


def test_the_second_push_of_the_same_does_nothing(hub, model):
    first = push_to_hub(model, URI)
    hub.requests.clear()
    again = push_to_hub(model, URI)
    assert (again.commit, again.is_new) == (first.commit, False)
    assert again.summary()[0].startswith(f"{model} was at {URI} already: ")
    assert hub.asked("POST") == hub.asked("PUT") == []


def test_an_upload_that_broke_off_goes_on_with_what_is_missing(hub, model):
    for letter in "ab":
        (model / f"{letter}.txt").write_text(letter * 5000)
    hub.uploads_left = 1
    with pytest.raises(StorageError, match=r"the upload of a large file broke off \(status 400\)") as caught:
        push_to_hub(model, URI)
    assert "the same command goes on with what is missing" in caught.value.hint
    assert set(standing(hub)) == {".gitattributes"}
    (arrived,) = hub.blobs
    hub.uploads_left = None
    hub.requests.clear()
    push_to_hub(model, URI)
    assert len(hub.asked("PUT")) == 2
    assert f"/{arrived}" not in hub.asked("PUT")
    assert set(standing(hub)) == {*files_of(model), "manifest.json", ".gitattributes"}


def test_a_repository_that_holds_something_else_is_refused_unless_asked(hub, model):
    hub.repositories["org/new"] = old = Repository(is_private=True)
    old.commit({"pytorch_model.bin": b"old", "README.md": b"# old", ".gitattributes": b"x"})
    with pytest.raises(StorageError, match=r"something else stands there: 'README.md', 'pytorch_model.bin'") as caught:
        push_to_hub(model, URI)
    assert "--replace puts this in its place, and history keeps what was" in caught.value.hint
    assert hub.asked("PUT") == []
    report = push_to_hub(model, URI, replace=True)
    assert set(standing(hub)) == {*files_of(model), "manifest.json", ".gitattributes"}
    assert "no longer there: 'pytorch_model.bin'" in report.summary()
    assert len(old.commits) == 2


def test_what_everybody_may_read_is_pushed_to_only_when_that_is_said(hub, model):
    report = push_to_hub(model, URI, public=True)
    assert not hub.repositories["org/new"].is_private
    assert f"public repository, made for it; commit {report.commit}" in report.summary()
    (model / "more.txt").write_text("x")
    with pytest.raises(StorageError, match="everybody may read this repository") as caught:
        push_to_hub(model, URI, replace=True)
    assert "--public" in caught.value.hint
    assert "more.txt" not in standing(hub)


def test_a_branch_is_pushed_to_alone(hub, model):
    hub.repositories["org/new"] = repository = Repository(is_private=True)
    repository.commit({".gitattributes": b"x"})
    repository.commit({".gitattributes": b"x"}, "v2")
    push_to_hub(model, f"{URI}@v2")
    assert WEIGHTS in standing(hub, branch="v2")
    assert set(standing(hub)) == {".gitattributes"}
    with pytest.raises(StorageError, match="has no branch v3") as caught:
        push_to_hub(model, f"{URI}@v3")
    assert "hf repos branch create org/new v3" in caught.value.hint


def test_a_run_means_its_final_checkpoint(hub, model, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.json").write_text("{}")
    with pytest.raises(NotFoundError, match=r"a run without final/, so it is not over"):
        push_to_hub(run, URI)
    shutil.copytree(model, run / "final")
    assert push_to_hub(run, URI).path == str(run / "final")
    assert standing(hub)[WEIGHTS] == (model / WEIGHTS).read_bytes()


def test_an_export_without_metadata_is_pushed_by_its_manifest(hub, tmp_path):
    write_mtp_checkpoint(tmp_path / "mtp", tiny_mtp("llama", 2, "linear"))
    heads = export(tmp_path / "mtp", tmp_path / "heads", to="vllm-medusa")
    push_to_hub(heads, URI)
    assert standing(hub)["README.md"] == (heads / "README.md").read_bytes()
    (heads / "config.json").write_text("{}")
    with pytest.raises(IntegrityError, match=r"config\.json has 2 bytes, manifest\.json says"):
        push_to_hub(heads, "hf://org/other")
    assert "org/other" not in hub.repositories


@pytest.mark.parametrize(
    ("token", "said", "hint"),
    [
        (None, "nothing is written to the Hub without a token, and none is set", "hf auth login"),
        ("revoked", "the Hub does not accept the token", "make a new one"),
        ("hf_reader", "the Hub does not allow this to this token", "what the token may do"),
    ],
)
def test_a_token_that_will_not_do_is_named_in_our_words(hub, model, monkeypatch, token, said, hint):
    monkeypatch.delenv("HF_TOKEN")
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(StorageError, match=said) as caught:
        push_to_hub(model, URI)
    assert hint in caught.value.hint
    assert (token or "hf_") not in str(caught.value)


def test_offline_nothing_is_asked(hub, model, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(StorageError, match="HF_HUB_OFFLINE is set, and forbids to push"):
        push_to_hub(model, URI)
    assert hub.requests == []


def test_front_matter_that_the_hub_refuses_is_said_with_its_reason(hub, model):
    (model / "README.md").write_text("---\nlicense: [1]\n---\n")
    with pytest.raises(StorageError, match=r'the Hub refuses README\.md: .*"license" must be text'):
        push_to_hub(model, URI)
    assert set(standing(hub)) == {".gitattributes"}


def test_somebody_who_commits_meanwhile_is_noticed(hub, model, monkeypatch):
    upload = HubWriter.upload

    def meanwhile(*arguments):
        hub.repositories["org/new"].commit({".gitattributes": b"x", "theirs": b"1"})
        return upload(*arguments)

    monkeypatch.setattr(HubWriter, "upload", meanwhile)
    with pytest.raises(ChangedError, match="somebody else has committed there meanwhile"):
        push_to_hub(model, URI)
    assert WEIGHTS not in standing(hub)


def test_a_file_that_changes_while_it_is_uploaded_is_not_committed(hub, model, monkeypatch):
    upload = HubWriter.upload

    def changing(*arguments):
        additions = upload(*arguments)
        (model / "config.json").write_text('{"model_type": "gpt2"}')
        return additions

    monkeypatch.setattr(HubWriter, "upload", changing)
    with pytest.raises(ChangedError, match=r"changed while it was pushed: 'config\.json'"):
        push_to_hub(model, URI)
    assert set(standing(hub)) == {".gitattributes"}


def test_a_place_within_a_repository_is_no_place_for_a_checkpoint(hub, model):
    with pytest.raises(URIError, match="is not a repository on the Hub"):
        push_to_hub(model, "hf://org/new/sub")


def test_the_command_pushes_and_reports(wmtp, hub, model):
    pushed = json.loads(wmtp("push", model, URI, "--json").stdout)
    assert (pushed["is_new"], pushed["is_private"], pushed["deleted"]) == (True, True, [])
    again = wmtp("push", model, URI)
    assert f"{model} was at {URI} already: " in again.stdout
    refused = wmtp("push", model, "s3://bucket/key", "--public")
    assert refused.exit_code == 2
    assert "--public is for repositories of the Hub" in refused.stderr
