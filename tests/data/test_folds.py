import pytest
import torch

from wmtp.data.example import Example
from wmtp.data.folds import FOLD, with_folds
from wmtp.data.rows import RowDataset, _fit
from wmtp.errors import DataError


def documents(count):
    return [Example(torch.tensor([number, 7, number % 3], dtype=torch.int32)) for number in range(count)]


def folds_of(examples, number=2):
    rows = with_folds(RowDataset([(example,) for example in examples]), number)
    return [int(example.scores[FOLD]) for example in rows.examples]


def test_folds_are_about_equally_large_and_the_same_whatever_stands_beside_a_document():
    examples = documents(400)
    found = folds_of(examples, 4)
    assert {found.count(fold) // 50 for fold in range(4)} <= {1, 2}  # 100 are expected, with a deviation of 9
    assert folds_of(examples[::-1][:300], 4) == found[::-1][:300]


def test_a_pattern_in_the_data_does_not_show_in_folds():
    good = folds_of(documents(400))[::2]  # every other document
    assert 60 < sum(good) < 140


def test_equal_documents_are_in_the_same_fold():
    examples = documents(40)
    found = folds_of([*examples, *examples])
    assert found[:40] == found[40:]


def test_pieces_of_one_document_are_in_the_same_fold():
    long = [Example(torch.arange(number, number + 90, dtype=torch.int32)) for number in range(20)]
    pieces = [piece for example in long for piece in _fit(example, 8)]
    found = folds_of(pieces)
    assert len(pieces) == 20 * 12
    assert all(len(set(found[start : start + 12])) == 1 for start in range(0, len(found), 12))
    assert len(set(found)) == 2


def test_too_few_documents_are_refused_with_both_ways_out():
    with pytest.raises(
        DataError, match=r"its 1 different documents are too few for critic\.folds: 2, as 1 of"
    ) as caught:
        folds_of(documents(1) * 5)
    assert "give more documents; with critic.folds: 1" in caught.value.hint
