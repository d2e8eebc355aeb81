"""What the plan says, what loading does, and what `from_pretrained` does agree, over many kinds of checkpoints."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

import wmtp
from loaders.agreement import (
    CLASSES,
    FAULTS,
    FIRST_MASKS,
    NUM_LAYERS,
    Peer,
    Saved,
    add,
    as_first_layout,
    assert_equal_models,
    declare,
    dtype_of_most_bytes,
    from_pretrained,
    lose,
    outputs,
    rewrite,
    stored_tensors,
    write,
)
from tiny_models import ARCHITECTURES
from wmtp.authoring.init import init_metadata
from wmtp.errors import IntegrityError, PlanError
from wmtp.load_plan.parameters import TORCH_DTYPES

cases = st.builds(
    Saved,
    architecture=st.sampled_from(ARCHITECTURES),
    auto_class=st.sampled_from(CLASSES),
    tied=st.booleans(),
    stored=st.sampled_from(["float32", "bfloat16", "mixed"]),
    shards=st.booleans(),
    seed=st.integers(0, 3),
)
causal_cases = cases.map(lambda case: replace(case, auto_class="AutoModelForCausalLM", num_layers=2))
asked_dtypes = st.sampled_from(["auto", "float32", "bfloat16", "float16"])


def examples(number: int) -> settings:
    unlimited = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
    return settings(
        max_examples=number, derandomize=True, deadline=None, database=None, suppress_health_check=unlimited
    )


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    return tmp_path_factory.mktemp("agreement") / "model"


def peer_dtype(directory: Path, asked: str) -> torch.dtype:
    return dtype_of_most_bytes(directory) if asked == "auto" else getattr(torch, asked)


def assert_bytes_are_the_parameters(directory: Path, result: wmtp.LoadResult) -> None:
    values = result.model.state_dict()
    for assignment in result.plan.assignments:
        tensor = assignment.source
        data = bytearray((directory / tensor.file).read_bytes()[tensor.start : tensor.end])
        stored = torch.frombuffer(data, dtype=TORCH_DTYPES[tensor.dtype]).view(tensor.shape)
        for name in assignment.names:
            assert torch.equal(values[name], stored.to(TORCH_DTYPES[assignment.dtype])), name


@examples(100)
@given(case=cases, asked=asked_dtypes, mmap=st.booleans())
def test_a_sound_checkpoint_loads_as_from_pretrained_loads_it_and_as_the_plan_says(directory, case, asked, mmap):
    write(directory, case)
    peer = from_pretrained(directory, case.auto_class, peer_dtype(directory, asked))
    assert peer.complaints == set()
    result = wmtp.load(directory, dtype=asked, mmap=mmap)
    assert_equal_models(result.model, peer.model)
    assert_bytes_are_the_parameters(directory, result)
    named = [name for assignment in result.plan.assignments for name in assignment.names]
    assert sorted(named) == sorted(peer.model.state_dict())
    assert {a.source.name for a in result.plan.assignments} == set(stored_tensors(directory))
    assert wmtp.plan_load(directory, dtype=asked) == result.plan


@examples(120)
@given(case=cases, picked=st.sets(st.sampled_from(sorted(FAULTS)), min_size=1, max_size=3), data=st.data())
def test_every_fault_is_refused_and_all_that_from_pretrained_complains_of_is_named(directory, case, picked, data):
    write(directory, case)
    for fault in (fault for name, fault in FAULTS.items() if name in picked):
        rewrite(directory, lambda held, fault=fault: fault(held, data))
    with pytest.raises(PlanError) as caught:
        wmtp.plan_load(directory)
    listed = set(re.findall(r"(?:no tensor for|no parameter for|wrong shape:|wrong dtype:) (\S+)", str(caught.value)))
    peer = from_pretrained(directory, case.auto_class, torch.float32)
    event("from_pretrained complains" if peer.complaints else "from_pretrained is silent")
    assert listed
    assert peer.unexpected <= listed
    assert all(names_of(name, peer) & listed for name in peer.missing | peer.mismatched)


def names_of(name: str, peer: Peer) -> set[str]:
    """All names of a parameter that the model ties."""
    values = peer.model.state_dict(keep_vars=True)
    return {other for other, value in values.items() if value is values[name]}


@examples(50)
@given(case=cases, data=st.data())
def test_what_the_metadata_lets_through_stands_in_the_receipt_and_covers_what_from_pretrained_reports(
    directory, case, data
):
    write(directory, case)
    before = set(stored_tensors(directory))
    rewrite(directory, lambda held: add(lose(held, data), data))
    added = sorted(set(stored_tensors(directory)) - before)
    peer = from_pretrained(directory, case.auto_class, dtype_of_most_bytes(directory))
    declare(directory, case, state_dict_mapping={"allow_missing": sorted(peer.missing), "allow_unexpected": added})
    result = wmtp.load(directory)
    assert {other for name in result.receipt.kept_initial for other in names_of(name, peer)} == peer.missing
    assert peer.unexpected <= set(result.receipt.left_unused) == set(added)
    assert_equal_models(result.model, peer.model, but=peer.missing)
    assert not any(value.is_meta for value in result.model.state_dict().values())
    filled = {name for p in result.receipt.parameters for name in (p.name, *p.tied)}
    assert filled | peer.missing == set(peer.model.state_dict())


def hinted_mapping(error: PlanError) -> dict:
    """The lines that the refusal says to set, read as a person would copy them."""
    _, found = error.hint.split("set in metadata.json, in loading_strategy: ")
    return json.loads(f"{{{found}}}")


@examples(50)
@given(case=causal_cases, asked=asked_dtypes)
def test_the_trunk_of_a_causal_lm_is_refused_and_loads_with_the_very_lines_of_the_refusal(directory, case, asked):
    write(directory, case, transformers_class="AutoModel")
    with pytest.raises(PlanError) as caught:
        wmtp.plan_load(directory)
    declare(directory, case, transformers_class="AutoModel", **hinted_mapping(caught.value))
    result = wmtp.load(directory, dtype=asked)
    peer = from_pretrained(directory, "AutoModel", peer_dtype(directory, asked))
    assert_equal_models(result.model, peer.model)
    assert_bytes_are_the_parameters(directory, result)
    assert set(result.receipt.left_unused) == peer.unexpected
    assert peer.missing == set()


@examples(16)
@given(
    stored=st.sampled_from(["float32", "bfloat16", "mixed"]),
    shards=st.booleans(),
    auto_class=st.sampled_from(["AutoModelForCausalLM", "AutoModel"]),
    way=st.sampled_from(["hint", "init"]),
)
def test_the_first_gpt2_layout_loads_with_the_lines_of_the_refusal_or_with_a_draft(
    directory, stored, shards, auto_class, way
):
    case = Saved("gpt2", "AutoModelForCausalLM", tied=True, stored=stored, shards=shards, num_layers=NUM_LAYERS)
    write(directory, case, transformers_class=auto_class)
    rewrite(directory, as_first_layout)
    with pytest.raises(PlanError) as caught:
        wmtp.plan_load(directory)
    if way == "hint":
        declare(directory, case, transformers_class=auto_class, **hinted_mapping(caught.value))
    else:
        (directory / "metadata.json").unlink()
        auto_class = str(init_metadata(directory).metadata.loading_strategy.transformers_class)
    result = wmtp.load(directory)
    peer = from_pretrained(directory, auto_class, dtype_of_most_bytes(directory))
    assert_equal_models(result.model, peer.model)
    assert sorted(result.receipt.left_unused) == sorted(FIRST_MASKS)
    assert_bytes_are_the_parameters(directory, result)


@examples(24)
@given(
    architecture=st.sampled_from(ARCHITECTURES),
    stored=st.sampled_from(["float32", "bfloat16"]),
    shards=st.booleans(),
    equal=st.booleans(),
)
def test_tied_weights_may_stand_twice_when_they_are_equal(directory, architecture, stored, shards, equal):
    case = Saved(architecture, tied=True, stored=stored, shards=shards)
    write(directory, case)
    embedding = "transformer.wte.weight" if architecture == "gpt2" else "model.embed_tokens.weight"
    rewrite(directory, lambda held: {**held, "lm_head.weight": held[embedding] + (0 if equal else 1)})
    plan = wmtp.plan_load(directory)
    assert [a.repeats for a in plan.assignments if embedding in a.names] == [False, True]
    if not equal:
        with pytest.raises(
            IntegrityError, match=r"'lm_head\.weight' differs from the tensor that the model ties it to"
        ):
            wmtp.load(directory)
        return
    result = wmtp.load(directory)
    assert_equal_models(result.model, from_pretrained(directory, case.auto_class, getattr(torch, stored)).model)
    assert_bytes_are_the_parameters(directory, result)


@examples(30)
@given(case=cases)
def test_a_drafted_declaration_loads_a_sound_checkpoint_as_from_pretrained_does(directory, case):
    write(directory, case)
    (directory / "metadata.json").unlink()
    declared = init_metadata(directory).metadata.loading_strategy
    peer = from_pretrained(directory, str(declared.transformers_class), dtype_of_most_bytes(directory))
    assert_equal_models(wmtp.load_model(directory), peer.model)


@examples(12)
@given(architecture=st.sampled_from(ARCHITECTURES), stored=st.sampled_from(["float32", "bfloat16"]))
def test_tied_weights_that_may_both_be_missing_are_initialised_as_one(directory, architecture, stored):
    case = Saved(architecture, tied=True, stored=stored)
    write(directory, case)
    embedding = "transformer.wte.weight" if architecture == "gpt2" else "model.embed_tokens.weight"
    rewrite(directory, lambda held: {name: tensor for name, tensor in held.items() if name != embedding})
    declare(directory, case, state_dict_mapping={"allow_missing": [embedding]})
    result = wmtp.load(directory)
    assert result.receipt.kept_initial == (embedding,)
    assert result.model.lm_head.weight is result.model.get_input_embeddings().weight
    assert 0.3 < result.model.lm_head.weight.float().std() < 0.7  # initializer_range is 0.5
    assert outputs(result.model).isfinite().all()
