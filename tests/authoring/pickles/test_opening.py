"""What torch's reader does not look at, and how files are written; in this process, as these files are the test's own.

The process with its limits, and real conversions, are in test_convert.py.
"""

import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hostile_pickles import save
from wmtp.authoring.pickles.opening import Work
from wmtp.errors import FormatError


@pytest.fixture
def work_on(tmp_path):
    """Do the work of the limited process on one file."""

    def run(path: Path, *, max_shard_bytes: int = 1000, output_bytes: int = 10_000) -> Work:
        (tmp_path / "parts").mkdir()
        file = {"name": path.name, "path": str(path), "expected": None}
        job = {"files": [file], "directory": str(tmp_path / "parts"), "key": None, "merge": None}
        limits = {"output_bytes": output_bytes}
        work = Work(job | {"max_shard_bytes": max_shard_bytes, "limits": limits}, {"file": ""})
        work.run()
        return work

    return run


@pytest.fixture
def rewritten(tmp_path):
    """A pickle of two tensors whose archive was written anew: compressed, or with other content."""

    def write(edit=lambda _, data: data, compression=zipfile.ZIP_STORED) -> Path:
        source = save(tmp_path / "source", {"a": torch.arange(10.0), "b": torch.ones(4)}) / "pytorch_model.bin"
        path = tmp_path / "rewritten.bin"
        with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w", compression) as new:
            for entry in old.infolist():
                new.writestr(entry.filename, edit(entry.filename, old.read(entry)))
        return path

    return write


def test_an_archive_written_by_another_tool_is_read(rewritten, work_on, tmp_path):
    work_on(rewritten())
    assert load_file(tmp_path / "parts" / "part-00001.safetensors")["a"].tolist() == list(range(10))


def test_a_compressed_archive_is_refused_as_torch_would_map_it_as_if_it_were_not(rewritten, work_on):
    with pytest.raises(FormatError, match=r"the record 'pytorch_model/data\.pkl' is compressed"):
        work_on(rewritten(compression=zipfile.ZIP_DEFLATED))


def test_a_storage_longer_than_its_record_is_refused(rewritten, work_on):
    def claim_eleven(name, data):
        assert b"K\x0at" in data or not name.endswith("data.pkl")
        return data.replace(b"K\x0at", b"K\x0bt") if name.endswith("data.pkl") else data

    with pytest.raises(FormatError, match="the pickle claims a storage of 44 bytes, and no record left"):
        work_on(rewritten(claim_eleven))


def test_an_archive_that_is_cut_short_is_refused(rewritten, work_on):
    path = rewritten()
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(FormatError, match="not a whole zip archive"):
        work_on(path)


def test_a_torchscript_archive_is_refused_as_the_program_that_it_is(work_on, tmp_path):
    path = tmp_path / "script.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("script/constants.pkl", b"\x80\x02).")
    with pytest.raises(FormatError, match="a TorchScript archive, which is a program and no state dict"):
        work_on(path)


def test_tensors_that_take_more_than_may_be_written_are_refused(work_on, tmp_path):
    path = save(tmp_path / "source", {"a": torch.zeros(30)}) / "pytorch_model.bin"
    with pytest.raises(FormatError, match="its tensors take 20 bytes more than may be written"):
        work_on(path, output_bytes=100)
    assert list((tmp_path / "parts").iterdir()) == []


def test_files_are_filled_to_the_limit_and_a_large_tensor_has_one_of_its_own(work_on, tmp_path):
    tensors = {"a": torch.zeros(10), "b": torch.zeros(10), "c": torch.zeros(50), "d": torch.zeros(1)}
    work = work_on(save(tmp_path / "source", tensors) / "pytorch_model.bin", max_shard_bytes=80)
    assert [(tensor["name"], tensor["part"]) for tensor in work.tensors] == [("a", 1), ("b", 1), ("c", 2), ("d", 3)]


def test_the_same_view_is_written_once_and_overlapping_ones_each(work_on, tmp_path):
    base = torch.arange(6.0)
    tensors = {"a": base, "again": base[:], "rows": base.view(2, 3), "part": base[2:]}
    work = work_on(save(tmp_path / "source", tensors) / "pytorch_model.bin")
    assert work.same == {"again": "a"}
    written = load_file(tmp_path / "parts" / "part-00001.safetensors")
    assert {name: tensor.tolist() for name, tensor in written.items()} == {
        name: tensors[name].tolist() for name in ("a", "rows", "part")
    }
