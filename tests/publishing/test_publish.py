import signal
import subprocess
import sys

import pytest

from wmtp.errors import IntegrityError, StorageError
from wmtp.manifest import Manifest
from wmtp.publishing.publish import (
    MANIFEST_FILE,
    is_complete,
    publish_directory,
    remove_published,
    sweep_unfinished,
    verify_published,
)


def publish(final, **files):
    with publish_directory(final) as directory:
        for name, text in files.items():
            (directory / name).write_text(text)
    return final


def test_a_published_directory_has_a_manifest_of_every_other_file(tmp_path):
    with publish_directory(tmp_path / "new" / "step-1") as directory:
        (directory / "weights").write_text("abc")
        (directory / "inner").mkdir()
        (directory / "inner" / "file").write_text("d")
    final = tmp_path / "new" / "step-1"
    assert [entry.path for entry in Manifest.read(final / MANIFEST_FILE).files] == ["inner/file", "weights"]
    assert is_complete(final)
    assert [path.name for path in final.parent.iterdir()] == ["step-1"]


def test_nothing_has_the_final_name_until_everything_is_written(tmp_path):
    with publish_directory(tmp_path / "step-1") as directory:
        (directory / "weights").write_text("abc")
        assert directory.name.startswith("step-1.tmp-")
        assert not (tmp_path / "step-1").exists()
        assert not is_complete(directory)
    assert (tmp_path / "step-1" / "weights").read_text() == "abc"


def test_an_exception_removes_the_temporary_directory_and_publishes_nothing(tmp_path):
    with pytest.raises(TypeError), publish_directory(tmp_path / "step-1") as directory:
        (directory / "weights").write_text(b"not a text")
    assert list(tmp_path.iterdir()) == []


def test_an_existing_directory_is_never_overwritten(tmp_path):
    final = publish(tmp_path / "step-1", weights="old")
    with pytest.raises(StorageError, match="already exists") as caught:
        publish(final, weights="new")
    assert str(final) in caught.value.problem
    assert (final / "weights").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["step-1"]


def test_a_directory_that_appears_meanwhile_is_kept_even_when_empty(tmp_path):
    with pytest.raises(StorageError, match="already exists"), publish_directory(tmp_path / "step-1"):
        (tmp_path / "step-1").mkdir()
    assert [path.name for path in tmp_path.iterdir()] == ["step-1"]


@pytest.mark.parametrize("damage", ["changed", "missing", "no manifest", "no JSON", "other JSON"])
def test_damage_to_a_published_directory_is_noticed(tmp_path, damage):
    final = publish(tmp_path / "step-1", weights="abc", config="{}")
    if damage == "changed":
        (final / "weights").write_text("abd")
    elif damage == "missing":
        (final / "weights").unlink()
    elif damage == "no manifest":
        (final / MANIFEST_FILE).unlink()
    else:
        (final / MANIFEST_FILE).write_text("{" if damage == "no JSON" else '{"files": 3}')
    assert not is_complete(final)
    with pytest.raises(IntegrityError, match=r"weights|manifest\.json"):
        verify_published(final)


def test_a_removed_directory_is_gone_and_its_neighbours_are_not(tmp_path):
    first, second = publish(tmp_path / "step-1", weights="a"), publish(tmp_path / "step-2", weights="b")
    remove_published(first)
    assert list(tmp_path.iterdir()) == [second]
    assert is_complete(second)


def test_sweeping_removes_only_unfinished_directories(tmp_path):
    kept = publish(tmp_path / "step-1", weights="abc")
    unfinished = tmp_path / f"step-2.tmp-{'0' * 32}"
    unfinished.mkdir()
    (tmp_path / "mine.tmp-1").mkdir()
    assert sweep_unfinished(tmp_path) == [unfinished]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.tmp-1", kept.name]
    assert sweep_unfinished(tmp_path / "absent") == []


def test_a_killed_writer_leaves_nothing_under_the_final_name(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from wmtp.publishing.publish import publish_directory\n"
        "with publish_directory(Path(sys.argv[1])) as directory:\n"
        "    (directory / 'weights').write_text('half'); print('writing', flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "step-1")], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"writing\n"
        writer.send_signal(signal.SIGKILL)
    assert not (tmp_path / "step-1").exists()
    assert len(sweep_unfinished(tmp_path)) == 1
    assert list(tmp_path.iterdir()) == []
