"""Models that score in fewer bits: what they answer beside the full model, what is kept, what is refused."""

import json
import shutil

import pytest
import torch

from scoring_cases import LOSS, REWARD, kept, models_of, rows_of, write_base, write_reference, write_reward
from tiny_models import tiny_config
from wmtp.algorithms.base import Score
from wmtp.errors import DataError, IncompatibleModelError
from wmtp.scoring.quantised import quantise
from wmtp.scoring.scores import online_scorers, score_rows

# Of the losses' and rewards' own deviation; tiny random models answer to every rounding of a weight.
NEAR = {"int8": 0.05, "nf4": 0.5}
# torchao would be imported by everything that imports transformers: it is installed for the slow tests only.
BOTH = pytest.mark.parametrize("bits", [pytest.param("int8", marks=pytest.mark.slow), "nf4"])


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    zoo = tmp_path_factory.mktemp("zoo")
    write_base(zoo / "base")
    write_reference(zoo / "ref", hidden_size=64, intermediate_size=128)
    write_reward(zoo / "rm", hidden_size=64, intermediate_size=128)
    return zoo


def figures(zoo, score, bits):
    quantize = {} if bits is None else {score.role: bits}
    models = models_of(zoo, devices={"device": "cpu", "quantize": quantize})
    rows = score_rows(rows_of(), [score], models, name="data.train")
    return torch.cat([example.scores[score.name].flatten() for example in rows.examples])


@BOTH
@pytest.mark.parametrize("score", [LOSS, REWARD], ids=["nll", "reward"])
def test_figures_are_near_those_of_the_full_model_and_not_the_same(zoo, score, bits):
    full, few = figures(zoo, score, None), figures(zoo, score, bits)
    difference = (full - few).abs().mean() / full.std()
    assert 0 < difference < NEAR[bits]


@pytest.mark.slow
def test_kept_figures_are_of_as_many_bits_as_they_say_and_older_ones_stay_good(zoo):
    full = figures(zoo, LOSS, None)
    assert torch.equal(figures(zoo, LOSS, None), full)
    figures(zoo, LOSS, "int8")
    figures(zoo, LOSS, "nf4")
    keys = [json.loads((path / "scores.json").read_text())["key"] for path in kept(zoo)]
    assert sorted(key.get("quantized", "") for key in keys) == ["", "int8", "nf4"]
    assert sum("quantized" in key for key in keys) == 2


def test_figures_that_say_that_they_are_of_other_bits_are_refused(zoo):
    figures(zoo, LOSS, "nf4")
    (found,) = kept(zoo)
    figures(zoo, LOSS, None)
    (other,) = set(kept(zoo)) - {found}
    shutil.rmtree(other)
    found.rename(other)
    with pytest.raises(DataError, match="these are figures of something else") as caught:
        figures(zoo, LOSS, None)
    assert caught.value.faults == ("quantized is 'nf4', asked for null",)


@BOTH
def test_a_reference_runs_beside_training_in_fewer_bits(zoo, bits):
    online = Score("ref_nll", "nll", role="ref", online=True)
    rows = rows_of()
    batch = rows.collate(rows.rows[:2])
    found = {}
    for quantize in ({}, {"ref": bits}):
        models = models_of(zoo, devices={"device": "cpu", "quantize": quantize})
        found[bool(quantize)] = online_scorers([online], models, "cpu")["ref_nll"](batch)
    assert 0 < (found[True] - found[False]).abs().mean() < NEAR[bits] * found[False].std()


@BOTH
def test_the_layers_alone_are_small_and_compute_as_they_did(bits):
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(tiny_config("llama", hidden_size=64, intermediate_size=128)).eval()
    layer, states = model.model.layers[0].mlp.up_proj, torch.randn(3, 64)
    expected, before = layer(states), model.lm_head.weight.clone()
    assert quantise(model, bits, "cpu", "here") is model
    small = model.model.layers[0].mlp.up_proj
    torch.testing.assert_close(small(states), expected, rtol=0.1, atol=0.1)
    assert type(small.weight) is not torch.nn.Parameter
    assert type(model.lm_head.weight) is torch.nn.Parameter
    assert torch.equal(model.lm_head.weight, before)
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_a_model_without_such_layers_is_refused_by_its_address(zoo):
    shutil.rmtree(zoo / "ref")
    from checkpoints import write_mtp_checkpoint
    from tiny_models import tiny_mtp

    write_mtp_checkpoint(zoo / "ref", tiny_mtp("gpt2", 1, "linear", vocab_size=98))
    with pytest.raises(IncompatibleModelError, match="has no linear layers in numbered layers, which nf4 is for") as e:
        figures(zoo, LOSS, "nf4")
    assert str(zoo / "ref") in e.value.problem
