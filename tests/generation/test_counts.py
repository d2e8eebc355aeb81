"""The drafts that are accepted are those that others count: transformers, and the rounds that servers are held to."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.generation.candidate_generator import MTPCandidateGenerator

import wmtp
from generation.taught import NEW_TOKENS, prompts, taught
from native_files import write_native
from wmtp.authoring.init import init_metadata
from wmtp.generation.result import Counts, repeated_share

_PREDICTION = Path(__file__).parents[2] / "benchmarks/serve/prediction.py"


def by_transformers(directory, given, monkeypatch):
    """What `generate(use_mtp=True)` says, and how many drafts it accepted in all rounds."""
    model, accepted = AutoModelForCausalLM.from_pretrained(directory).eval(), []
    count = MTPCandidateGenerator.update_candidate_strategy

    def counted(self, input_ids, scores, num_matches):
        accepted.append(int(num_matches))
        return count(self, input_ids, scores, num_matches)

    monkeypatch.setattr(MTPCandidateGenerator, "update_candidate_strategy", counted)
    said = [
        model.generate(
            torch.tensor([ids]), max_new_tokens=NEW_TOKENS, do_sample=False, use_mtp=True, eos_token_id=None
        )[0].tolist()
        for ids in given
    ]
    return said, sum(accepted)


@pytest.mark.parametrize("family", ["mellum", "inkling"])
def test_as_many_drafts_are_accepted_as_transformers_accepts(family, tmp_path, monkeypatch):
    write_native(tmp_path / "model", family, model=taught(family))
    init_metadata(tmp_path / "model")
    # With fewer tokens than modules and one more, transformers cuts more from its cache than there is.
    given = [ids for ids in prompts(8) if len(ids) > 3]
    found = wmtp.generate(tmp_path / "model", given, max_new_tokens=NEW_TOKENS, ignore_eos=True)
    said, accepted = by_transformers(tmp_path / "model", given, monkeypatch)
    assert [[*row.prompt_tokens, *row.tokens] for row in found.rows] == said
    assert sum(found.counts.accepted) == accepted > 0


@pytest.fixture(scope="module")
def prediction():
    """What benchmarks/serve holds servers to."""
    spec = importlib.util.spec_from_file_location("prediction", _PREDICTION)
    module = importlib.util.module_from_spec(spec)
    sys.modules["prediction"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("kind", ["llama-linear", "llama-transformer", "llama-resblock", "deepseek", "mimo", "qwen3_5"])
def test_as_many_drafts_are_accepted_as_a_server_is_held_to(kind, prediction):
    model, given = taught(kind), prompts(4)
    num_drafts, expected = model.num_heads - 1, Counts()
    whole = wmtp.generate(model, given, max_new_tokens=NEW_TOKENS + num_drafts, ignore_eos=True, drafts=0)
    for row in whole.rows:
        tokens, num_prompt_tokens = [*row.prompt_tokens, *row.tokens], len(row.prompt_tokens)
        drafts = model(torch.tensor([tokens])).logits[0].argmax(-1)[:, 1:].tolist()
        rounds = prediction.play_rounds(drafts.__getitem__, tokens, num_prompt_tokens, NEW_TOKENS)
        add_rounds(expected, rounds, num_drafts, num_prompt_tokens + NEW_TOKENS - 1)
    found = wmtp.generate(model, given, max_new_tokens=NEW_TOKENS, ignore_eos=True)
    assert found.counts == expected
    assert sum(found.counts.accepted) > 0


def add_rounds(counts, rounds, num_drafts, last):
    """Count rounds as decoding does, which drafts no further than the last token that it was asked for."""
    counts.add_pass()
    for position, num_accepted in rounds.items():
        room = last - position - 2
        counts.add_pass(min(num_drafts, room))
        for place in range(min(num_accepted, room)):
            counts.accepted[place] += 1


def test_repeated_runs_are_those_that_stood_before_in_their_row():
    assert repeated_share([list(range(20))]) == 0
    assert repeated_share([[1] * 18]) == 1 - 1 / 11
    assert repeated_share([[*range(8), *range(8)], [*range(8)]]) == pytest.approx(1 / 10)
    assert repeated_share([[1, 2]]) == 0
