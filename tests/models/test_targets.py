import pytest
import torch

from wmtp.errors import TrainingError
from wmtp.models.targets import Rows, head_targets, shift

LABELS = torch.tensor([[5, 6, -100, 8, 9, 10]])


def test_shift_moves_towards_the_front_and_wraps_nothing_round():
    assert shift(LABELS, 2, -100).tolist() == [[-100, 8, 9, 10, -100, -100]]
    assert shift(LABELS, 0, -100) is LABELS
    assert shift(LABELS, 9, -100).tolist() == [[-100] * 6]


def test_a_shift_below_zero_moves_towards_the_back():
    assert shift(LABELS, -2, -100).tolist() == [[-100, -100, 5, 6, -100, 8]]
    assert shift(LABELS, -9, -100).tolist() == [[-100] * 6]
    assert shift(LABELS.bool(), -5, fill=False).tolist() == [[False] * 5 + [True]]


def test_the_gradient_goes_back_to_where_a_shifted_value_came_from():
    values = torch.arange(4.0).unsqueeze(0).requires_grad_()
    (shift(values, -1, 0.0) * torch.tensor([[1.0, 10, 100, 1000]])).sum().backward()
    assert values.grad.tolist() == [[10, 100, 1000, 0]]


def test_head_k_at_position_t_must_predict_the_label_at_t_plus_k():
    targets = head_targets(LABELS, 3)
    for t in range(6):
        for k in range(1, 4):
            expected = LABELS[0, t + k].item() if t + k < 6 else -100
            assert targets[0, t, k - 1].item() == expected


def test_no_target_lies_in_another_document():
    labels = torch.arange(6).unsqueeze(0)
    targets = head_targets(labels, 2, torch.tensor([[7, 7, 7, 2, 2, 2]]))
    assert targets[0, :, 0].tolist() == [1, 2, -100, 4, 5, -100]
    assert targets[0, :, 1].tolist() == [2, -100, -100, 5, -100, -100]


def test_a_token_with_the_id_of_padding_is_learned_where_the_mask_says_it_is_real():
    labels = torch.tensor([[3, 4, 0, 0, 0]])  # eos is 0, and so is padding
    rows = Rows.of(torch.tensor([[1, 1, 1, 0, 0]]), None, None)
    assert rows.targets(labels, 2)[0].tolist() == [[4, 0], [0, -100], [-100, -100], [-100, -100], [-100, -100]]


def test_padding_on_the_left_predicts_nothing():
    rows = Rows.of(torch.tensor([[0, 0, 1, 1, 1]]), None, None)
    targets = rows.targets(torch.tensor([[0, 0, 3, 4, 5]]), 2)
    assert targets[0].tolist() == [[-100, -100], [-100, -100], [4, 5], [5, -100], [-100, -100]]


def test_document_ids_give_positions_and_positions_give_documents():
    documents = torch.tensor([[4, 4, 4, 1, 1, 9], [0, 0, 0, 0, 0, 0]])
    positions = torch.tensor([[0, 1, 2, 0, 1, 0], [0, 1, 2, 3, 4, 5]])
    assert Rows.of(None, None, documents).position_ids.tolist() == positions.tolist()
    labels = torch.arange(12).view(2, 6)
    from_positions = Rows.of(None, positions, None).targets(labels, 3)
    assert from_positions.tolist() == Rows.of(None, None, documents).targets(labels, 3).tolist()


def test_two_documents_of_one_token_are_told_apart_by_their_positions():
    rows = Rows.of(None, torch.tensor([[0, 0, 0]]), None)
    assert rows.targets(torch.tensor([[1, 2, 3]]), 1).flatten().tolist() == [-100, -100, -100]


def test_an_attention_mask_for_packed_rows_is_refused():
    ones = torch.ones(1, 4, dtype=torch.long)
    with pytest.raises(TrainingError, match="both attention_mask and document_ids") as caught:
        Rows.of(ones, None, ones)
    assert "leave attention_mask out" in caught.value.hint
