import pytest
import torch
from safetensors.torch import save

from wmtp.errors import CheckpointError, NotFoundError
from wmtp.publishing.algorithm_state import ALGORITHM_STATE_FILE, read_state, write_state
from wmtp.storage.opening import open_store

FIGURES = {"mean": torch.tensor(1.5), "counts": torch.arange(3.0)}
HEAD = {"output.weight": torch.ones(1, 4), "norm.bias": torch.zeros(4)}


@pytest.fixture
def kept(tmp_path):
    def store_of(content):
        (tmp_path / ALGORITHM_STATE_FILE).write_bytes(content)
        return open_store(tmp_path)

    return store_of


def test_what_was_written_is_read_again(kept):
    figures, head = read_state(kept(write_state(FIGURES, HEAD)))
    assert figures.keys() == FIGURES.keys()
    assert head.keys() == HEAD.keys()
    assert all(torch.equal(figures[name], FIGURES[name]) for name in FIGURES)
    assert all(torch.equal(head[name], HEAD[name]) for name in HEAD)


def test_nothing_to_keep_makes_no_file():
    assert write_state({}, {}) == b""


def test_a_tensor_that_belongs_to_neither_is_refused_by_name(kept):
    with pytest.raises(CheckpointError, match=r"'trunk.weight' is neither a running figure nor of value heads"):
        read_state(kept(save({"trunk.weight": torch.ones(2)})))


def test_a_number_that_is_not_finite_is_refused_by_name(kept):
    with pytest.raises(CheckpointError, match=r"'algorithm.mean' has a value that is not finite"):
        read_state(kept(write_state({"mean": torch.tensor(float("nan"))}, {})))


@pytest.mark.parametrize("content", [b"", b"no tensors", write_state(FIGURES, HEAD)[:-4]])
def test_a_damaged_file_is_refused(kept, content):
    with pytest.raises(CheckpointError, match=r"algorithm_state.safetensors: not a safetensors file"):
        read_state(kept(content))


def test_a_file_that_is_not_there_is_not_invented(tmp_path):
    with pytest.raises(NotFoundError):
        read_state(open_store(tmp_path))
