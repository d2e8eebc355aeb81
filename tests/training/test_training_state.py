"""Parts of what going on needs: random numbers, the optimizer's state, the place in the data, the files."""

import json
import random

import numpy as np
import pytest
import torch
from safetensors import safe_open

from wmtp.errors import CheckpointError
from wmtp.publishing.training_state import (
    LoopState,
    Position,
    ProcessState,
    RunState,
    TrainingState,
    read_optimizer_tensors,
    read_run_state,
)
from wmtp.training.numbered_rows import NumberedRows, places_of
from wmtp.training.optimizer_state import optimizer_state, restore_optimizer
from wmtp.training.random_state import random_numbers, set_random_numbers
from wmtp.training.reading_order import ReadingOrder

CPU = torch.device("cpu")


def drawn():
    return [random.gauss(0, 1), random.random(), np.random.normal(), np.random.rand(), *torch.randn(3).tolist()]


def test_random_numbers_go_on_where_they_were_taken_down():
    drawn()  # each generator has a second normal number in store now
    state = random_numbers(CPU)
    expected = drawn()
    drawn()
    set_random_numbers(type(state).model_validate_json(state.model_dump_json()), CPU)
    assert drawn() == expected


def trained(optimizer, model, steps=2):
    for step in range(steps):
        optimizer.zero_grad()
        model(torch.full((2, 4), float(step + 1))).square().sum().backward()
        optimizer.step()


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD, torch.optim.Adafactor])
def test_an_optimizer_goes_on_from_tensors_and_numbers(kind):
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 3)
    optimizer = kind(model.parameters(), lr=0.1)
    trained(optimizer, model)
    other = torch.nn.Linear(4, 3)
    other.load_state_dict(model.state_dict())
    again = kind(other.parameters(), lr=0.1)
    tensors, numbers = optimizer_state(optimizer, model)
    restore_optimizer(again, other, {name: tensor.clone() for name, tensor in tensors.items()}, numbers)
    for one, its_model in ((optimizer, model), (again, other)):
        trained(one, its_model)
    assert torch.equal(model.weight, other.weight)


def test_the_state_of_parameters_that_are_not_trained_any_more_is_left_aside(caplog):
    model = torch.nn.Linear(4, 3)
    optimizer = torch.optim.AdamW(model.parameters())
    trained(optimizer, model)
    fewer = torch.optim.AdamW([model.weight])
    restore_optimizer(fewer, model, *optimizer_state(optimizer, model))
    assert list(fewer.state) == [model.weight]
    assert "are not trained now" in caplog.text


def test_a_run_goes_on_with_the_next_rows_whatever_a_step_reads():
    one = ReadingOrder(steps_per_epoch=5, rows_per_step=4)
    position = one.position(8)
    assert position == Position(epoch=1, rows=12)
    two = ReadingOrder(steps_per_epoch=3, rows_per_step=8).going_on(position, 8)
    assert (two.begin, two.repeated_rows(position)) == ((1, 1), 4)
    assert two.position(9) == Position(epoch=1, rows=16)
    assert two.position(10) == Position(epoch=2, rows=0)
    assert two.steps_of(3) == 8 + 9 - 4
    assert two.epochs_of(two.steps_of(3)) == 3
    same = one.going_on(position, 8)
    assert (same.begin, same.steps_of(3), same.epochs_of(15)) == ((1, 3), 15, 3)


def state(**changes):
    process = ProcessState(random=random_numbers(CPU), loss=0.1, heads=[[0.1]], weights=[0.2])
    fields = {
        "step": 3, "epoch": 0.3, "position": Position(epoch=0, rows=3), "schedule": 3, "rates": [0.1],
        "log": [{"step": 3, "ce_1": float("nan"), "loss": 1 / 3}], "best_metric": None, "best_step": None,
        "loss_total": 0.1, "logged_step": 2, "seconds": 1.5, "numbers": {"step.weight": 3}, "processes": [process],
    }  # fmt: skip
    return RunState(stage="model", made_of={"train.optim": "sgd"}, loop=LoopState(**fields | changes))


def test_the_files_are_strict_json_and_safetensors_and_come_back_to_the_last_bit(tmp_path):
    tensors = {"exp_avg.weight": torch.randn(3), "step.weight": torch.tensor(3.0)}
    TrainingState(state(), tensors).write(tmp_path)
    text = (tmp_path / "training_state" / "state.json").read_text()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    found = read_run_state(tmp_path)
    assert str(found.loop.log[0]["ce_1"]) == "nan"
    assert found.loop.log[0]["loss"] == 1 / 3
    assert type(found.loop.log[0]["step"]) is int
    assert found.loop.processes == state().loop.processes
    read = read_optimizer_tensors(tmp_path)
    assert all(torch.equal(read[name], tensor) for name, tensor in tensors.items())
    with safe_open(tmp_path / "training_state" / "optimizer.safetensors", "pt") as file:
        assert set(file.keys()) == set(tensors)


@pytest.mark.parametrize(
    ("text", "fault"),
    [("[]", "state.json"), ('{"format": 2}', "format"), ("", "state.json"), ('{"loop": NaN}', "state.json")],
)
def test_a_state_that_is_none_is_refused_by_its_name(tmp_path, text, fault):
    (tmp_path / "training_state").mkdir()
    (tmp_path / "training_state" / "state.json").write_text(text)
    with pytest.raises(CheckpointError, match=fault):
        read_run_state(tmp_path)


def test_a_batch_knows_where_its_documents_come_from():
    from wmtp.data.example import Example
    from wmtp.data.rows import RowDataset

    tokens = torch.arange(4, dtype=torch.int32)
    places = ["a.py", "b.jsonl:3", ""]
    examples = [(Example(tokens, where=place),) for place in places]
    rows = RowDataset(examples)
    numbered = NumberedRows(rows, rows.collate)
    batch = numbered.collate([numbered[1], numbered[0]])
    assert batch["row"].tolist() == [1, 0]
    assert places_of(examples, batch["row"].tolist()) == ["b.jsonl:3", "a.py"]
    assert places_of(examples, [2]) == []
