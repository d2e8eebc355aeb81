import json
import os
import signal
import subprocess
import sys
import time

import pytest

from servers.faults import hung_up, status, then, unanswered
from tensor_files import tensors_as_bytes
from wmtp.checkpoint.contents import open_checkpoint
from wmtp.errors import ChangedError, FormatError, IntegrityError, MetadataError, NotFoundError, StorageError
from wmtp.manifest import Manifest
from wmtp.publishing.publish import verify_published
from wmtp.storage.objects import ObjectStore
from wmtp.storage.opening import open_store
from wmtp.transport.fetch import fetch_checkpoint
from wmtp.transport.push import push_checkpoint

URI, WEIGHTS = "s3://models/model", "model.safetensors"


def contents(directory):
    return {
        path.relative_to(directory).as_posix(): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }


def pushed(server):
    return {key.removeprefix("model/") for key in server.objects("models") if key.startswith("model/")}


def test_a_pushed_checkpoint_opens_and_comes_back_verified(s3_bucket, model, tmp_path):
    before = contents(model)
    report = push_checkpoint(model, f"s3://{s3_bucket}/model")
    assert contents(model) == before
    assert report.has_new_manifest
    assert open_checkpoint(f"s3://{s3_bucket}/model").metadata == open_checkpoint(model).metadata
    fetch_checkpoint(f"s3://{s3_bucket}/model", tmp_path / "new")
    manifest = verify_published(tmp_path / "new")
    assert {entry.path for entry in manifest.files} == set(before)


def test_a_large_file_arrives_whole(s3_bucket, large_model, tmp_path):
    push_checkpoint(large_model, f"s3://{s3_bucket}/model")
    fetch_checkpoint(f"s3://{s3_bucket}/model", tmp_path / "new")
    assert (tmp_path / "new" / WEIGHTS).read_bytes() == (large_model / WEIGHTS).read_bytes()


def test_metadata_is_written_last_and_the_manifest_before_it(server, model):
    push_checkpoint(model, URI)
    keys = [request.key for request in server.asked("PUT")]
    assert sorted(keys[:2]) == ["model/config.json", f"model/{WEIGHTS}"]
    assert keys[2:] == ["model/manifest.json", "model/metadata.json"]


@pytest.mark.parametrize("name", [WEIGHTS, "manifest.json"])
def test_kill_9_in_the_middle_leaves_no_metadata_and_a_second_push_succeeds(server, model, name):
    server.fault(unanswered(), method="PUT", key=f"model/{name}")
    command = [sys.executable, "-m", "wmtp.cli.main", "push", str(model), URI]
    with subprocess.Popen(command, env={**os.environ, "WMTP_TRANSFER_TIMEOUT": "60"}) as pushing:
        while not {"config.json", name} <= pushed(server):
            assert pushing.poll() is None
            time.sleep(0.01)
        pushing.send_signal(signal.SIGKILL)
    assert "metadata.json" not in pushed(server)
    server.heal()
    push_checkpoint(model, URI)
    assert pushed(server) == {"config.json", "manifest.json", "metadata.json", WEIGHTS}


@pytest.mark.parametrize("name", ["config.json", WEIGHTS, "manifest.json"])
def test_whatever_cannot_be_written_there_is_no_checkpoint_until_the_second_push(server, model, caplog, name):
    server.fault(status(403, "AccessDenied"), method="PUT", key=f"model/{name}")
    with pytest.raises(StorageError, match=name):
        push_checkpoint(model, URI)
    assert "metadata.json" not in pushed(server)
    assert f"{URI} has no metadata.json yet, so nothing loads it; the same command pushes it again" in caplog.text
    server.heal()
    push_checkpoint(model, URI)
    assert "metadata.json" in pushed(server)


@pytest.mark.parametrize("changed", ["config", "metadata"])
def test_another_checkpoint_that_stands_there_is_refused_by_name(server, model, changed):
    push_checkpoint(model, URI)
    document = json.loads((model / f"{changed}.json").read_text())
    (model / f"{changed}.json").write_text(json.dumps({**document, "provenance": {"of": "another"}}))
    before = server.objects("models")
    with pytest.raises(
        StorageError, match=r"another checkpoint stands there: 'config\.json', 'manifest\.json'"
    ) as caught:
        push_checkpoint(model, URI)
    assert caught.value.hint == "push to another address; --replace puts this one in its place"
    assert server.objects("models") == before


def test_a_push_whose_last_answer_was_lost_is_found_whole_by_the_second_one(server, model, given_up_soon):
    server.fault(hung_up(), method="PUT", key="model/metadata.json")
    with pytest.raises(StorageError, match=r"metadata\.json"), given_up_soon():
        push_checkpoint(model, URI)
    server.heal()
    report = push_checkpoint(model, URI)
    assert report.summary()[0].startswith(f"{model} was at {URI} already: 4 files, ")
    assert server.asked("PUT") == []
    (model / WEIGHTS).write_bytes(tensors_as_bytes({"w": ("F32", [3])}))
    with pytest.raises(StorageError, match="another checkpoint stands there"):
        push_checkpoint(model, URI)


def test_replace_removes_metadata_first_and_puts_it_back_last(model, monkeypatch):
    push_checkpoint(model, "memory://replaced/model")
    (model / "config.json").write_text('{"model_type": "llama", "more": 1}')
    put, delete, writes = ObjectStore.put, ObjectStore.delete, []
    monkeypatch.setattr(ObjectStore, "put", lambda *told: writes.append(("put", told[1])) or put(*told))
    monkeypatch.setattr(ObjectStore, "delete", lambda *told: writes.append(("delete", told[1])) or delete(*told))
    push_checkpoint(model, "memory://replaced/model", replace=True)
    assert (writes[0], writes[-1]) == (("delete", "metadata.json"), ("put", "metadata.json"))
    stored = open_store("memory://replaced/model").read_bytes("config.json", max_bytes=100)
    assert stored == (model / "config.json").read_bytes()


@pytest.mark.parametrize("replace", [True, False])
def test_what_this_checkpoint_does_not_have_is_named_and_nothing_is_written(server, model, replace):
    if replace:
        push_checkpoint(model, URI)
    server.put("models", "model/modeling.py", b"stale")
    before = server.objects("models")
    with pytest.raises(StorageError, match=r"1 file there that this checkpoint does not have: 'modeling\.py'"):
        push_checkpoint(model, URI, replace=replace)
    assert server.objects("models") == before


def test_a_sibling_whose_name_begins_alike_is_no_obstacle(server, model):
    server.put("models", "model-old/metadata.json", b"{}")
    push_checkpoint(model, URI)
    assert server.objects("models")["model-old/metadata.json"] == b"{}"


def test_a_directory_that_is_not_what_its_manifest_says_is_not_pushed(server, model):
    (model / "manifest.json").write_text(Manifest.of_directory(model, contents(model)).model_dump_json())
    weights = (model / WEIGHTS).read_bytes()
    (model / WEIGHTS).write_bytes(bytes([*weights[:-1], weights[-1] ^ 1]))
    with pytest.raises(IntegrityError, match=rf"{WEIGHTS}: it has sha256:\w+, manifest\.json says sha256:"):
        push_checkpoint(model, URI)
    assert server.asked("PUT") == []


def test_a_manifest_is_pushed_as_it_is_and_what_it_lacks_is_named(server, model):
    (model / "manifest.json").write_text(Manifest.of_directory(model, contents(model)).model_dump_json())
    (model / "README.md").write_text("later")
    report = push_checkpoint(model, URI)
    assert server.objects("models")["model/manifest.json"] == (model / "manifest.json").read_bytes()
    assert report.summary()[1:] == [
        "2 files as manifest.json says, byte for byte",
        "not in manifest.json, so that no fetch can verify them: 'README.md'",
    ]


def test_metadata_that_was_edited_after_publication_is_pushed(server, model):
    (model / "manifest.json").write_text(Manifest.of_directory(model, contents(model)).model_dump_json())
    document = json.loads((model / "metadata.json").read_text())
    (model / "metadata.json").write_text(json.dumps({**document, "algorithm_compatibility": []}))
    push_checkpoint(model, URI)
    assert open_checkpoint(URI).metadata.algorithm_compatibility == []


def test_hidden_and_ill_named_files_stay_and_are_named(server, model):
    (model / ".git").mkdir()
    (model / ".git" / "config").touch()
    (model / "100%.txt").touch()
    report = push_checkpoint(model, URI)
    assert report.left_out == (".git/", "100%.txt")
    assert pushed(server) == {"config.json", "manifest.json", "metadata.json", WEIGHTS}


def test_a_link_out_of_the_directory_is_pushed_only_on_request(server, model, tmp_path):
    (tmp_path / "notes.txt").write_text("secret")
    (model / "notes.txt").symlink_to(tmp_path / "notes.txt")
    with pytest.raises(StorageError, match=r"notes\.txt: a symbolic link to"):
        push_checkpoint(model, URI)
    assert server.asked("PUT") == []
    push_checkpoint(model, URI, allow_symlinks=True)
    assert server.objects("models")["model/notes.txt"] == b"secret"


def test_a_file_that_changes_while_it_is_pushed_leaves_no_checkpoint(server, model):
    change = then(lambda: (model / "config.json").write_text('{"model_type": "gpt2"}'))
    server.fault(change, method="PUT", key="model/manifest.json")
    with pytest.raises(ChangedError, match=r"changed while it was pushed: 'config\.json'"):
        push_checkpoint(model, URI)
    assert "metadata.json" not in pushed(server)


@pytest.mark.parametrize("key", ["config.json", "other.json"])
def test_somebody_who_writes_there_meanwhile_is_noticed(server, model, key):
    server.fault(then(lambda: server.put("models", f"model/{key}", b"x")), method="PUT", key="model/manifest.json")
    with pytest.raises(ChangedError, match=key):
        push_checkpoint(model, URI)
    assert "metadata.json" not in pushed(server)


def test_what_is_no_checkpoint_is_not_pushed(server, model):
    (model / WEIGHTS).write_bytes(b"PK\x03\x04")
    with pytest.raises(FormatError, match=WEIGHTS):
        push_checkpoint(model, URI)
    (model / "metadata.json").write_text("{}")
    with pytest.raises(MetadataError):
        push_checkpoint(model, URI)
    (model / "metadata.json").unlink()
    with pytest.raises(NotFoundError, match=r"metadata\.json: no such file"):
        push_checkpoint(model, URI)
    assert server.requests == []


@pytest.mark.parametrize(
    ("uri", "instead"), [("hf://org/name", "push_to_hub, and 'wmtp push'"), ("/new", "wmtp fetch DIR NEW")]
)
def test_where_push_does_not_go_it_says_what_does(model, uri, instead):
    with pytest.raises(StorageError, match="push puts checkpoints into object stores only") as caught:
        push_checkpoint(model, uri)
    assert instead in caught.value.hint


def test_a_bucket_that_is_not_there_is_named(server, model):
    with pytest.raises(NotFoundError, match="none-such"):
        push_checkpoint(model, "s3://none-such/model")
