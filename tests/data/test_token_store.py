"""Numbers in a file that is read where they are asked for."""

import pickle

import numpy as np
import pytest

from wmtp.data.token_store import NumberFile
from wmtp.errors import DataError


@pytest.fixture
def numbers(tmp_path):
    np.arange(10, dtype="<i4").tofile(tmp_path / "tokens.bin")
    return NumberFile(tmp_path / "tokens.bin", "<i4")


@pytest.mark.parametrize(
    ("place", "expected"),
    [(slice(3, 6), [3, 4, 5]), (slice(8, 20), [8, 9]), (slice(-2, None), [8, 9]), (slice(5, 2), [])],
)
def test_slices_are_those_of_an_array(numbers, place, expected):
    assert len(numbers) == 10
    assert numbers[place].tolist() == expected
    assert pickle.loads(pickle.dumps(numbers))[place].tolist() == expected


def test_what_is_read_may_be_changed_and_the_file_is_not(numbers):
    numbers[0:3][:] = 7
    assert numbers[0:3].tolist() == [0, 1, 2]


def test_a_file_that_was_cut_is_refused(numbers, tmp_path):
    path = tmp_path / "tokens.bin"
    path.write_bytes(path.read_bytes()[:20])
    assert numbers[0:5].tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(DataError, match=r"tokens.bin: shorter than it was"):
        numbers[3:8]
