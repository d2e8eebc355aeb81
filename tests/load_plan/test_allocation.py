"""A class that asks for more than the headers hold is stopped while it is built, in bounded memory."""

from __future__ import annotations

import json
import resource
import threading

import pytest
import torch
from torch import nn
from transformers import GPTNeoConfig, GPTNeoForCausalLM

import wmtp
from checkpoints import MODELING, metadata_document, write_custom
from wmtp.errors import PlanError
from wmtp.load_plan.allocation import LargeAllocation, bounded_allocation, build_within_bounds
from wmtp.load_plan.bounds import Bounds
from wmtp.manifest import sha256_bytes
from wmtp.trust.guards import construction_errors

BOUNDS = Bounds(num_parameters=10, num_elements=1000, range_length=50, buffer_bytes=4000)


def built(make):
    with bounded_allocation(BOUNDS, where="config.json", parameters_on_meta=True):
        return make()


class Table(nn.Module):
    """A table of positions, as rotary and sinusoidal positions have them; no file holds it."""

    def __init__(self, positions, width):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(2))
        table = torch.arange(positions)[:, None] * torch.arange(width)[None, :] / width
        self.register_buffer("table", table, persistent=False)


def built_after_rehearsal(make):
    return build_within_bounds(make, construction_errors, BOUNDS, where="config.json", parameters_on_meta=True)


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Linear(100, 100),
        lambda: nn.Embedding(1001, 1),
        lambda: torch.ones((40, 40)),
        lambda: torch.zeros(40, 40),
        lambda: torch.full([1001], 1.0),
        lambda: torch.empty(size=(1001,)),
        lambda: torch.arange(51),
        lambda: torch.arange(0, 1.0, 0.01),
        lambda: torch.linspace(0, 1, 51),
        lambda: torch.eye(40),
    ],
)
def test_a_tensor_larger_than_the_bounds_is_refused_before_it_is_made(make):
    with pytest.raises(LargeAllocation, match=r"config\.json: the class that is built from it asks for a tensor of"):
        built(make)


@pytest.mark.parametrize(
    "make",
    [lambda: torch.arange(1000, 1050), lambda: torch.arange(0, 1000, 100), lambda: torch.zeros(31, 32), nn.Module],
)
def test_what_is_within_the_bounds_is_made(make):
    built(make)


def test_what_multiplies_a_long_range_is_rehearsed_and_refused_by_the_bytes_of_its_buffers():
    with pytest.raises(PlanError, match=r"config\.json: .* asks for 40,000,000,000,000 bytes of buffers"):
        built_after_rehearsal(lambda: Table(10_000_000, 1_000_000))


def test_a_long_range_that_multiplies_nothing_is_built_for_real_after_the_rehearsal():
    model = built_after_rehearsal(lambda: Table(500, 2))
    assert torch.equal(model.table, Table(500, 2).table)
    assert model.weight.is_meta


def test_many_tables_are_added_up():
    class Layers(nn.ModuleList):
        def __init__(self):
            super().__init__([Table(2, 2) for _ in range(8)])
            for layer in self:
                layer.register_buffer("mask", torch.ones(30, 30), persistent=False)

    with pytest.raises(PlanError, match=r"asks for [0-9,]+ bytes of buffers"):
        built_after_rehearsal(Layers)


def test_a_parameter_larger_than_every_tensor_is_refused_after_the_rehearsal():
    with pytest.raises(PlanError, match="asks for a parameter of 1,000,000,000,000 values"):
        built_after_rehearsal(lambda: nn.Embedding(10**9, 1000))


def test_a_class_that_cannot_be_rehearsed_is_not_built_either():
    with pytest.raises(PlanError, match="asks for a tensor of 1,000 values"):
        built_after_rehearsal(lambda: nn.Linear(2, int(torch.arange(1000).sum())))


def test_the_parameters_of_ten_million_layers_are_not_built():
    made = []
    with pytest.raises(PlanError, match="asks for more than 10 parameters"):
        built(lambda: nn.ModuleList(made.append(n) or nn.Linear(2, 2) for n in range(10_000_000)))
    assert made == [0, 1, 2, 3, 4, 5]


def test_a_tied_parameter_counts_once():
    def tied():
        first = nn.Linear(2, 2, bias=False)
        rest = [nn.Linear(2, 2, bias=False) for _ in range(9)]
        for module in rest:
            module.weight = first.weight
        return nn.ModuleList([first, *rest])

    model = built(tied)
    assert len(list(model.parameters())) == 1
    assert model[0].weight.is_meta


def test_models_that_other_threads_build_meanwhile_keep_their_values():
    elsewhere = []
    with bounded_allocation(BOUNDS, where="config.json", parameters_on_meta=True):
        thread = threading.Thread(target=lambda: elsewhere.append(nn.Linear(100, 100)))
        thread.start()
        thread.join()
    assert elsewhere[0].weight.device.type == "cpu"


def test_a_mask_of_positions_squared_is_refused_in_bounded_memory(tmp_path):
    config = GPTNeoConfig(
        num_layers=1,
        attention_types=[[["global"], 1]],
        hidden_size=8,
        num_heads=2,
        vocab_size=32,
        max_position_embeddings=16,
    )
    GPTNeoForCausalLM(config).save_pretrained(tmp_path)
    strategy = {"loader_type": "huggingface", "transformers_class": "GPTNeoForCausalLM", "model_class_name": None}
    (tmp_path / "metadata.json").write_text(json.dumps(metadata_document(strategy, base_architecture="gpt_neo")))
    assert wmtp.plan_load(tmp_path).assignments
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"max_position_embeddings": 200_000}))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(PlanError, match=r"config\.json: the class .* asks for 40,000,000,000 bytes of buffers"):
        wmtp.plan_load(tmp_path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kB


def test_consented_code_is_held_to_the_bounds_and_not_built_a_second_time(tmp_path):
    layers = "open(made, 'a').write('.') and nn.Linear(1, 1) for _ in range(10**7)"
    many = f"made = {str(tmp_path / 'made')!r}" + MODELING.replace(
        "# in __init__", f"self.many = nn.ModuleList({layers})"
    )
    consent, _ = write_custom(tmp_path)
    (tmp_path / "modeling.py").write_text(many)
    with pytest.raises(PlanError, match=r"modeling\.py: the class .* more than [0-9,]+ parameters"):
        wmtp.plan_load(tmp_path, allow_code={"modeling.py": sha256_bytes(many.encode())})
    assert consent
    assert 0 < (tmp_path / "made").stat().st_size < 10_000
