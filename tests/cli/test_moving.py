"""fetch, push."""

import json

import pytest


@pytest.fixture
def uri(request):
    return f"memory://moving/{request.node.name}"


def test_push_then_fetch_gives_a_checkpoint_that_validates(wmtp, llama, uri, tmp_path):
    pushed = wmtp("push", llama, uri)
    assert pushed.exit_code == 0, pushed.output
    assert pushed.stdout.startswith(f"{llama} is now at {uri}: 7 files, ")
    fetched = wmtp("fetch", uri, tmp_path / "new")
    assert fetched.exit_code == 0, fetched.output
    assert fetched.stdout.startswith(f"{uri} is now in {tmp_path}/new\n7 files, ")
    assert "\n5 files as manifest.json says, byte for byte\n" in fetched.stdout
    assert wmtp("validate", tmp_path / "new", "--deep").exit_code == 0


def test_both_give_one_json_document(wmtp, llama, uri, tmp_path):
    pushed = json.loads(wmtp("push", llama, uri, "--json").stdout)
    assert (pushed["uri"], pushed["path"], pushed["has_new_manifest"]) == (uri, str(llama), True)
    fetched = json.loads(wmtp("fetch", uri, "--json").stdout)
    assert fetched["is_cached"]
    assert fetched["num_bytes"] == pushed["num_bytes"]
    weights = next(file for file in fetched["files"] if file["name"] == "model.safetensors")
    assert weights["verified_by"] == ["manifest.json"]
    assert weights["sha256"] == next(file["sha256"] for file in pushed["files"] if file["name"] == weights["name"])


def test_a_lock_is_held_and_its_breach_named(wmtp, llama, uri, tmp_path):
    wmtp("push", llama, uri)
    wmtp("lock", uri, "--output", tmp_path / "lock.json")
    fetched = wmtp("fetch", uri, tmp_path / "new", "--lock", tmp_path / "lock.json")
    assert "7 files as the lock says, byte for byte" in fetched.stdout.splitlines()
    (llama / "generation_config.json").write_text("{}")
    assert wmtp("push", llama, uri, "--replace").exit_code == 0
    refused = wmtp("fetch", uri, tmp_path / "newer", "--lock", tmp_path / "lock.json")
    assert refused.exit_code == 1
    assert "error: " in refused.stderr
    assert not (tmp_path / "newer").exists()


def test_nothing_is_overwritten(wmtp, llama, uri, tmp_path):
    wmtp("push", llama, uri)
    (llama / "generation_config.json").write_text("{}")
    again = wmtp("push", llama, uri)
    assert again.exit_code == 1
    assert f"error: {uri}: another checkpoint stands there: 'config.json'" in again.stderr
    (tmp_path / "new").mkdir()
    refused = wmtp("fetch", uri, tmp_path / "new", "--json")
    assert json.loads(refused.stdout)["error"]["problem"] == f"{tmp_path}/new: already exists, and is not overwritten"


def test_nothing_that_stands_nowhere_is_fetched(wmtp, uri, tmp_path):
    refused = wmtp("fetch", uri, tmp_path / "new")
    assert refused.exit_code == 1
    assert f"error: {uri}: nothing is stored below it" in refused.stderr
    assert not list(tmp_path.glob("new*"))
