import pytest
import torch

from tiny_tokenizer import build_tokenizer
from wmtp.data.document import Document
from wmtp.data.example import Example
from wmtp.data.folds import FOLD, with_folds
from wmtp.data.rows import RowDataset, build_rows
from wmtp.errors import DataError
from wmtp.settings.data import DataSource


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
    texts = [Document("".join(chr(97 + (n * place) % 23) for place in range(90))) for n in range(1, 21)]
    source = DataSource(files=["unused"], max_length=7, packing=False)
    rows = with_folds(build_rows(texts, build_tokenizer(), source, name="data.train"), 2)
    found = [int(example.scores[FOLD]) for example in rows.examples]
    assert len(found) == 20 * 13
    assert all(len(set(found[start : start + 13])) == 1 for start in range(0, len(found), 13))
    assert len(set(found)) == 2


def test_too_few_documents_are_refused_with_both_ways_out():
    with pytest.raises(
        DataError, match=r"data.train: 1 different document in it, too few for critic\.folds: 2, as 1 of"
    ) as caught:
        folds_of(documents(1) * 5)
    assert "give more documents; with critic.folds: 1" in caught.value.hint
