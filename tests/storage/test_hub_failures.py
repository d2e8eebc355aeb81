import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import constants

import wmtp
from checkpoints import write_llama_checkpoint
from servers.hub import SIGNATURE, Repository, hub_server
from wmtp.errors import NotFoundError, StorageError, URIError
from wmtp.storage.hub import HubStore, open_hub
from wmtp.storage.uri import parse_uri

LARGE = bytes(range(256)) * 20
SHA256 = hashlib.sha256(LARGE).hexdigest()
FILES = {"config.json": b"{}", "model.safetensors": LARGE}


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with hub_server(monkeypatch, tmp_path) as server:
        server.repositories["org/name"] = Repository()
        server.repositories["org/name"].commit(FILES)
        yield server


@pytest.fixture
def repository(hub):
    return hub.repositories["org/name"]


def opened(uri="hf://org/name", **options):
    return open_hub(parse_uri(uri), **options)


def failure(uri="hf://org/name", act=HubStore.list_files):
    with pytest.raises(StorageError) as caught:
        act(opened(uri))
    text = "".join(map(str, (caught.value, repr(caught.value), caught.value.__cause__)))
    assert "hf_secret" not in text
    assert SIGNATURE not in text
    return caught.value


def test_a_repository_that_is_not_there_or_private_says_what_a_token_would_change(hub, repository, monkeypatch):
    repository.token = "another"
    error = failure()
    assert isinstance(error, NotFoundError)
    assert "no such repository, or a private one that requests without a token may not see" in error.problem
    assert "set HF_TOKEN or run 'hf auth login'" in error.hint
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert "or a private one that this token may not see" in failure().problem


def test_a_gated_repository_says_that_access_has_to_be_asked_for(hub, repository):
    repository.is_gated = True
    error = failure()
    assert not isinstance(error, NotFoundError)
    assert "access to this repository has not been granted" in error.problem
    assert "ask for access" in error.hint


def test_a_token_that_the_hub_does_not_take_is_said_to_be_that(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "revoked")
    assert "the Hub does not accept the token (status 401)" in failure().problem


def test_missing_revisions_and_files_are_named(hub):
    error = failure("hf://org/name@v9")
    assert (type(error), error.problem) == (NotFoundError, "hf://org/name@v9: no such revision")
    error = failure(act=lambda store: store.stat("absent.json"))
    assert (type(error), error.problem) == (NotFoundError, "hf://org/name/absent.json: no such object")
    assert not opened().has("absent.json")


def test_a_name_that_the_hub_does_not_allow_is_refused_without_a_request(hub):
    with pytest.raises(URIError, match="the Hub has no such names"):
        opened("hf://org/two--dashes").list_files()
    assert hub.requests == []


def test_a_hub_that_fails_for_a_moment_is_asked_again(hub):
    hub.failing = [503]
    assert opened().has("config.json")


def test_a_hub_that_fails_says_with_which_status(hub):
    hub.failing = [500] * 9
    assert failure().problem == "hf://org/name: the Hub fails (status 500)"


def test_a_network_that_is_down_hints_at_what_is_in_the_cache(hub):
    hub.stop()
    error = failure()
    assert "127.0.0.1 cannot be reached: ConnectError" in error.problem
    assert "HF_HUB_OFFLINE=1" in error.hint


def test_a_download_that_fails_is_our_own_error_without_the_signed_address(hub):
    store = opened()
    store.list_files()
    hub.blobs.clear()
    hub._servers[1].RequestHandlerClass.answer = lambda handler, *_: handler.send(403)
    error = failure(act=lambda _: store.local_paths(["model.safetensors"]))
    assert "the Hub does not allow this" in error.problem


def test_a_download_that_xet_fails_names_the_other_way(hub, monkeypatch):
    hub.has_xet = True
    error = failure(act=lambda store: store.local_paths(["model.safetensors"]))
    assert "model.safetensors: the Hub's storage does not give it to hf_xet" in error.problem
    assert "HF_HUB_DISABLE_XET=1" in error.hint
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    assert opened().local_paths(["model.safetensors"])["model.safetensors"].read_bytes() == LARGE


@pytest.mark.parametrize("body", [b"<html>sign in</html>", b'{"sha": "main"}', b"[]"])
def test_what_is_no_hub_is_said_to_be_none(hub, body):
    hub._servers[0].RequestHandlerClass.answer = lambda handler, *_: handler.send(200, body)
    assert failure().problem == "hf://org/name: what answers is not a Hub"


def test_a_listing_without_an_end_ends_in_time(hub, repository, monkeypatch):
    monkeypatch.setenv("WMTP_TRANSFER_TIMEOUT", "0.3")
    repository.commit(FILES | {f"shard-{number}": b"x" for number in range(12)})
    hub.next_page = f"{hub.endpoint}/api/models/org/name/tree/{repository.revisions['main']}?cursor=0"
    assert failure().problem == "hf://org/name: its listing does not end"


def test_a_connection_that_breaks_off_again_and_again_is_given_up_in_time(hub, monkeypatch):
    monkeypatch.setenv("WMTP_TRANSFER_TIMEOUT", "0.3")
    hub.broken[SHA256] = [700, *[0] * 1000]
    error = failure(act=lambda store: store.read_range("model.safetensors", 0, 1000))
    assert "model.safetensors: 300 bytes are still missing: RemoteProtocolError" in error.problem


def test_offline_a_snapshot_is_read_without_a_request(hub, monkeypatch):
    opened().local_paths(["config.json", "model.safetensors"])
    hub.requests.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    store = opened()
    assert (str(store.uri), [info.name for info in store.list_files()]) == (
        "hf://org/name",
        ["config.json", "model.safetensors"],
    )
    assert store.read_range("model.safetensors", 1, 3) == LARGE[1:4]
    assert hub.requests == []


def test_offline_a_file_is_followed_into_what_the_repositories_of_a_cache_share_and_nowhere_else(hub, monkeypatch):
    opened().local_paths(["config.json", "model.safetensors"])
    cache = Path(constants.HF_HUB_CACHE)
    own, shared = cache / f"models--org--name/blobs/{SHA256}", cache / "blobs/ab/abcd"
    shared.parent.mkdir(parents=True)
    own.rename(shared)
    own.symlink_to("../../blobs/ab/abcd")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert opened().read_range("model.safetensors", 1, 3) == LARGE[1:4]
    own.unlink()
    own.symlink_to(cache / "elsewhere")
    (cache / "elsewhere").write_bytes(LARGE)
    with pytest.raises(StorageError, match="outside the checkpoint"):
        opened().read_range("model.safetensors", 1, 3)


def test_offline_a_revision_that_is_not_in_the_cache_is_named_with_the_ways_out(hub, monkeypatch):
    opened().local_paths(["config.json"])
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(NotFoundError) as caught:
        opened("hf://org/name@v2")
    assert "hf://org/name@v2: not in huggingface_hub's cache, and HF_HUB_OFFLINE forbids" in caught.value.problem
    assert "unset HF_HUB_OFFLINE" in caught.value.hint


def test_a_model_is_loaded_from_the_hub_and_again_offline_by_the_variables_of_huggingface_hub(
    hub, repository, tmp_path
):
    directory = write_llama_checkpoint(tmp_path / "model")
    repository.commit({path.name: path.read_bytes() for path in directory.iterdir()})
    script = "import wmtp; print(len(wmtp.load('hf://org/name').model.state_dict()))"
    environment = {**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
    expected = f"{len(wmtp.load(directory).model.state_dict())}\n"
    for offline in ("0", "1"):
        environment["HF_HUB_OFFLINE"] = offline
        done = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False
        )
        assert (done.stdout, done.returncode) == (expected, 0), done.stderr
        hub.stop()
