import hashlib
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from servers.faults import bit_flipped, stalled, status, then, truncated
from servers.seaweed import upload_directory
from tensor_files import tensors_as_bytes, write_index
from wmtp.errors import ArrivalError, ChangedError, IntegrityError, NotFoundError, StorageError
from wmtp.manifest import Manifest
from wmtp.storage.requests.versions import _CHUNK_BYTES
from wmtp.transport.fetch import fetch_checkpoint
from wmtp.transport.push import push_checkpoint

URI, WEIGHTS = "s3://models/model", "model.safetensors"


def contents(directory):
    paths = [path for path in directory.rglob("*") if path.is_file()]
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in paths}


def digest(data):
    return hashlib.sha256(data).hexdigest()


def store(server, directory, *, manifest=True):
    """Put a checkpoint on the server, with a manifest or without."""
    if manifest:
        files = Manifest.of_directory(directory, set(contents(directory)) - {"manifest.json"})
        (directory / "manifest.json").write_text(files.model_dump_json())
    for name, data in contents(directory).items():
        server.put("models", f"model/{name}", data)


def first_byte_asked(server):
    """Of the weights, since the server was healed."""
    ranges = [request.range for request in server.asked("GET", f"model/{WEIGHTS}")]
    return min(int(asked.removeprefix("bytes=").partition("-")[0]) for asked in ranges)


def leftovers(path):
    """What a fetch into this directory has left beside it."""
    return [found.name for found in path.parent.iterdir() if found.name.startswith(path.name)]


@pytest.mark.parametrize("planted", ["files", "files/sub", "parts", "parts/x.sha256"])
def test_links_that_wait_in_the_working_directory_lead_nowhere(server, model, tmp_path, planted):
    store(server, model)
    working = tmp_path / f"new.fetching-{digest(URI.encode())[:12]}"
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "precious").write_text("mine")
    working.mkdir(mode=0o700)
    (working / planted).parent.mkdir(exist_ok=True)
    (working / planted).symlink_to(victim / "precious" if planted.endswith("sha256") else victim)
    with pytest.raises(StorageError, match="which no fetch makes"):
        fetch_checkpoint(URI, tmp_path / "new")
    assert contents(victim) == {"precious": b"mine"}


def test_a_directory_is_the_checkpoint_byte_for_byte(s3_bucket, model, tmp_path):
    push_checkpoint(model, f"s3://{s3_bucket}/model")
    report = fetch_checkpoint(f"s3://{s3_bucket}/model", tmp_path / "deep" / "new")
    fetched = contents(tmp_path / "deep" / "new")
    assert {name: fetched[name] for name in contents(model)} == contents(model)
    assert set(fetched) == {*contents(model), "manifest.json"}
    assert {file.name: file.verified_by for file in report.files if file.verified_by} == {
        "config.json": ("manifest.json",),
        WEIGHTS: ("manifest.json",),
    }
    assert report.summary()[0] == f"s3://{s3_bucket}/model is now in {tmp_path}/deep/new"
    assert report.summary()[2] == "2 files as manifest.json says, byte for byte"
    assert leftovers(tmp_path / "deep" / "new") == ["new"]


def test_files_of_a_fetched_directory_may_be_changed_by_their_owner(server, model, tmp_path):
    store(server, model)
    fetch_checkpoint(URI, tmp_path / "new")
    (tmp_path / "plain").touch()
    assert {path.stat().st_mode for path in (tmp_path / "new").iterdir()} == {(tmp_path / "plain").stat().st_mode}


def test_a_second_fetch_into_the_cache_moves_nothing(server, model):
    store(server, model)
    first, second = fetch_checkpoint(URI), fetch_checkpoint(URI)
    assert [file.was_here for file in first.files] == [False] * 4
    assert [file.was_here for file in second.files] == [True] * 4
    assert f"4 of them, {second.num_bytes} bytes, had been here" in second.summary()[1]
    assert first.summary()[0] == f"{URI} is now in the cache, {os.environ['WMTP_CACHE']}/blobs"
    assert len(server.asked("GET", f"model/{WEIGHTS}")) == 1


def test_what_the_cache_has_is_copied_from_it(server, model, tmp_path):
    store(server, model)
    fetch_checkpoint(URI)
    server.requests.clear()
    report = fetch_checkpoint(URI, tmp_path / "new")
    assert all(file.was_here for file in report.files)
    assert contents(tmp_path / "new") == contents(model)
    assert server.asked("GET", f"model/{WEIGHTS}") == []


@pytest.mark.parametrize("manifest", [True, False])
def test_an_interrupted_fetch_goes_on_where_it_was(server, large_model, tmp_path, given_up_soon, manifest):
    store(server, large_model, manifest=manifest)
    kept = 16 << 20
    server.fault(truncated(after=kept), key=f"model/{WEIGHTS}", times=1)
    server.fault(status(500, "InternalError"), key=f"model/{WEIGHTS}")
    with pytest.raises(StorageError), given_up_soon():
        fetch_checkpoint(URI, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    server.heal()
    fetch_checkpoint(URI, tmp_path / "new")
    assert contents(tmp_path / "new") == contents(large_model)
    assert kept - _CHUNK_BYTES < first_byte_asked(server) <= kept  # what had come of a chunk breaks off with it
    assert server.asked("GET", "model/config.json") == []
    assert leftovers(tmp_path / "new") == ["new"]


def test_a_file_that_changed_since_the_interruption_is_fetched_from_its_start(
    server, large_model, tmp_path, given_up_soon
):
    store(server, large_model, manifest=False)
    server.fault(status(500, "InternalError"), key="model/config.json")
    with pytest.raises(StorageError), given_up_soon():
        fetch_checkpoint(URI, tmp_path / "new")
    server.heal()
    changed = bytearray((large_model / WEIGHTS).read_bytes())
    changed[-1] ^= 1
    (large_model / WEIGHTS).write_bytes(changed)
    store(server, large_model, manifest=False)
    fetch_checkpoint(URI, tmp_path / "new")
    assert contents(tmp_path / "new") == contents(large_model)
    assert first_byte_asked(server) == 0


def test_kill_9_leaves_no_directory_and_the_next_fetch_uses_what_had_arrived(server, model, tmp_path):
    store(server, model)
    server.fault(stalled(after=10), key=f"model/{WEIGHTS}")
    command = [sys.executable, "-m", "wmtp.cli.main", "fetch", URI, str(tmp_path / "new")]
    with subprocess.Popen(command, env={**os.environ, "WMTP_TRANSFER_TIMEOUT": "60"}) as fetching:
        while not list(tmp_path.glob("new.fetching-*/parts/*.sha256")):
            assert fetching.poll() is None
            time.sleep(0.01)
        fetching.send_signal(signal.SIGKILL)
    assert not (tmp_path / "new").exists()
    server.heal()
    report = fetch_checkpoint(URI, tmp_path / "new")
    assert contents(tmp_path / "new") == contents(model)
    assert any(file.was_here for file in report.files)
    assert leftovers(tmp_path / "new") == ["new"]


def test_a_byte_that_is_wrong_in_the_bucket_is_found_with_both_digests(s3_bucket, seaweed, model, tmp_path):
    push_checkpoint(model, f"s3://{s3_bucket}/model")
    right = (model / WEIGHTS).read_bytes()
    wrong = bytes([*right[:-1], right[-1] ^ 1])
    seaweed.client().put_object(Bucket=s3_bucket, Key=f"model/{WEIGHTS}", Body=wrong)
    said = f"{WEIGHTS}: it has sha256:{digest(wrong)}, manifest.json says sha256:{digest(right)}"
    with pytest.raises(ArrivalError, match=said):
        fetch_checkpoint(f"s3://{s3_bucket}/model", tmp_path / "new")
    with pytest.raises(IntegrityError, match=f"{digest(wrong)}.*{digest(right)}"):
        fetch_checkpoint(f"s3://{s3_bucket}/model")
    assert not (tmp_path / "new").exists()
    seaweed.client().put_object(Bucket=s3_bucket, Key=f"model/{WEIGHTS}", Body=right)
    fetch_checkpoint(f"s3://{s3_bucket}/model", tmp_path / "new")
    assert (tmp_path / "new" / WEIGHTS).read_bytes() == right


def test_a_byte_that_is_wrong_on_the_way_is_fetched_once_more(server, model, tmp_path):
    store(server, model)
    server.fault(bit_flipped(70), key=f"model/{WEIGHTS}", times=1)
    fetch_checkpoint(URI, tmp_path / "new")
    assert contents(tmp_path / "new") == contents(model)
    assert len(server.asked("GET", f"model/{WEIGHTS}")) == 2
    server.fault(bit_flipped(70), key=f"model/{WEIGHTS}")
    with pytest.raises(ArrivalError):
        fetch_checkpoint(URI, tmp_path / "newer")
    assert len(server.asked("GET", f"model/{WEIGHTS}")) == 4


def test_a_lock_holds_every_file_and_refuses_others(server, model, tmp_path):
    store(server, model, manifest=False)
    lock = tmp_path / "lock.json"
    lock.write_text(Manifest.of_directory(model, contents(model)).model_dump_json())
    report = fetch_checkpoint(URI, tmp_path / "new", lock=lock)
    assert report.summary()[2:] == ["3 files as the lock says, byte for byte"]
    server.put("models", "model/added.py", b"x")
    with pytest.raises(IntegrityError, match=r"added\.py: this file is not in the lock"):
        fetch_checkpoint(URI, tmp_path / "newer", lock=lock)
    assert leftovers(tmp_path / "newer") == []


def test_a_lock_and_a_manifest_that_disagree_are_both_quoted_before_anything_is_fetched(server, model, tmp_path):
    store(server, model)
    said = digest((model / "config.json").read_bytes())
    with pytest.raises(IntegrityError) as caught:
        fetch_checkpoint(URI, tmp_path / "new", lock={"config.json": f"sha256:{'0' * 64}"})
    assert caught.value.faults == (f"config.json: the lock says sha256:{'0' * 64}, manifest.json says sha256:{said}",)
    assert server.asked("GET", f"model/{WEIGHTS}") == []


def test_files_that_are_missing_or_too_short_are_named_before_anything_is_fetched(server, model, tmp_path):
    store(server, model)
    server.delete("models", "model/config.json")
    server.put("models", f"model/{WEIGHTS}", b"short")
    with pytest.raises(IntegrityError, match="2 of 4 files are missing or not as declared") as caught:
        fetch_checkpoint(URI, tmp_path / "new")
    assert caught.value.faults == (
        "config.json is missing; manifest.json names it",
        f"{WEIGHTS} has 5 bytes, manifest.json says {(model / WEIGHTS).stat().st_size}",
    )
    assert leftovers(tmp_path / "new") == []


def test_shards_that_are_missing_are_named(server, model, tmp_path):
    (model / WEIGHTS).rename(model / "a.safetensors")
    write_index(model, {"v": "a.safetensors", "w": "b.safetensors"})
    store(server, model, manifest=False)
    with pytest.raises(NotFoundError, match=r"1 of its shards are missing: 'b\.safetensors'"):
        fetch_checkpoint(URI, tmp_path / "new")


def test_a_checkpoint_replaced_meanwhile_is_fetched_in_one_version(server, model, tmp_path):
    store(server, model, manifest=False)
    (model / "config.json").write_text('{"model_type": "llama", "version": 2}')
    (model / WEIGHTS).write_bytes(tensors_as_bytes({"w": ("F32", [3])}))
    server.fault(then(lambda: store(server, model, manifest=False)), method="GET", key="model/metadata.json", times=1)
    fetch_checkpoint(URI, tmp_path / "new")
    assert contents(tmp_path / "new") == contents(model)


def test_a_file_that_changes_all_the_time_is_an_error_and_no_directory(server, model, tmp_path):
    store(server, model, manifest=False)
    etags = (f'"{number}"' for number in range(100))
    change = then(lambda: server.put("models", f"model/{WEIGHTS}", b"x", etag=next(etags)))
    server.fault(change, method="GET", key="model/metadata.json")
    with pytest.raises(ChangedError, match=WEIGHTS):
        fetch_checkpoint(URI, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_without_metadata_it_is_fetched_and_said(server, model, tmp_path):
    (model / "metadata.json").unlink()
    store(server, model)
    report = fetch_checkpoint(URI, tmp_path / "new")
    assert report.notes == ("there is no metadata.json, which loading needs: 'wmtp init DIR' drafts one",)
    (model / "metadata.json").write_text('{"storage_version": "1.0"}')
    store(server, model)
    report = fetch_checkpoint(URI, tmp_path / "newer")
    assert "not ready to load" in report.summary()[-1]
    assert "storage_version is '1.0'" in report.summary()[-1]


def test_digests_in_metadata_are_held_to_as_well(server, model, tmp_path):
    files = Manifest.of_directory(model, [WEIGHTS]).model_dump()["files"]
    (model / "metadata.json").write_text(
        json.dumps({**json.loads((model / "metadata.json").read_text()), "files": files})
    )
    store(server, model, manifest=False)
    server.fault(bit_flipped(70), key=f"model/{WEIGHTS}")
    with pytest.raises(ArrivalError, match=r"metadata\.json says sha256:"):
        fetch_checkpoint(URI, tmp_path / "new")


@pytest.mark.parametrize("there", ["directory", "file", "dangling link"])
def test_what_has_the_name_already_is_never_touched(server, model, tmp_path, there):
    store(server, model)
    new = tmp_path / "new"
    {"directory": new.mkdir, "file": new.touch, "dangling link": lambda: new.symlink_to("nowhere")}[there]()
    with pytest.raises(StorageError, match=f"{new}: already exists, and is not overwritten"):
        fetch_checkpoint(URI, new)
    assert leftovers(new) == ["new"]
    assert server.requests == []


def test_a_second_process_is_told_that_one_is_fetching(server, model, tmp_path):
    store(server, model)
    server.fault(stalled(after=10), key=f"model/{WEIGHTS}")
    command = [sys.executable, "-m", "wmtp.cli.main", "fetch", URI, str(tmp_path / "new")]
    with subprocess.Popen(command, env={**os.environ, "WMTP_TRANSFER_TIMEOUT": "60"}) as fetching:
        while not server.asked("GET", f"model/{WEIGHTS}"):
            assert fetching.poll() is None
            time.sleep(0.01)
        with pytest.raises(StorageError, match="another process is fetching it"):
            fetch_checkpoint(URI, tmp_path / "new")
        assert len(leftovers(tmp_path / "new")) == 1
        fetching.kill()


def test_a_working_directory_that_somebody_else_prepared_is_not_used(server, model, tmp_path):
    store(server, model)
    name = f"new.fetching-{digest(URI.encode())[:12]}"
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / name).symlink_to("elsewhere")
    with pytest.raises(StorageError, match=f"{name}: not a directory that only you can write to"):
        fetch_checkpoint(URI, tmp_path / "new")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_key_that_is_both_a_file_and_a_directory_is_refused(server, model, tmp_path):
    store(server, model)
    server.put("models", "model/config.json/inner", b"x")
    with pytest.raises(StorageError, match=r"both a file and a directory: 'config\.json'"):
        fetch_checkpoint(URI, tmp_path / "new")


def test_a_directory_of_this_machine_is_copied_and_what_is_left_out_is_named(model, tmp_path):
    (model / ".git").mkdir()
    (model / "100%.txt").touch()
    (model / "sub").mkdir()
    (model / "sub" / "notes.txt").write_text("x")
    report = fetch_checkpoint(model, tmp_path / "new")
    assert report.left_out == (".git/", "100%.txt")
    assert "left out: '.git/', '100%.txt'" in report.summary()
    assert (tmp_path / "new" / "sub" / "notes.txt").read_text() == "x"
    assert (tmp_path / "new" / WEIGHTS).read_bytes() == (model / WEIGHTS).read_bytes()


def test_a_directory_of_this_machine_goes_neither_into_the_cache_nor_into_itself(model):
    with pytest.raises(StorageError, match=f"{model}: it is on this machine already"):
        fetch_checkpoint(model)
    with pytest.raises(StorageError, match=r"inside .*, which is to be copied"):
        fetch_checkpoint(model, model / "inner")
    assert len(contents(model)) == 3


def test_more_bytes_than_the_disk_has_are_refused_with_both_numbers(model, tmp_path):
    os.truncate(model / WEIGHTS, 8 << 40)
    with pytest.raises(StorageError, match=r"8,796,\d+,\d+,\d+ bytes are needed, [\d,]+ are free"):
        fetch_checkpoint(model, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_what_was_uploaded_by_other_means_is_fetched_too(s3_bucket, seaweed, model, tmp_path):
    uri = upload_directory(seaweed.client(), s3_bucket, "lab/model", model)
    upload_directory(seaweed.client(), s3_bucket, "lab/model-old", model)
    report = fetch_checkpoint(uri, tmp_path / "new")
    assert contents(tmp_path / "new") == contents(model)
    assert report.summary()[-1].startswith("recorded now, as nothing said before what they must be: 'config.json'")
