"""What vLLM would do with a directory of Medusa heads."""

import pytest

import head_files as served


def test_whole_heads_are_drafted_with_as_seen_in_a_run(tmp_path, verdict):
    found = verdict(served.medusa(tmp_path))
    assert (found.heads, found.num_modules, found.evidence) == ("medusa", 2, "seen in a run")
    assert f'"method": "medusa", "model": "{tmp_path}", "num_speculative_tokens": 2' in found.command
    assert "note: a vision-language target needs a vocab_size at the top level of its config.json" in found.notes


def test_one_unembedding_may_serve_all_heads(tmp_path, verdict, refusal):
    shared = served.medusa(tmp_path, drop=("lm_heads.1.weight",), original_lm_head=True)
    assert verdict(shared).num_modules == 2
    lacking = served.medusa(tmp_path, drop=("lm_heads.1.weight",))
    assert "'lm_heads.1.weight' missing: vLLM 0.32.0 starts without a word" in refusal(lacking)


@pytest.mark.parametrize(("key", "default"), [("hidden_size", 4096), ("vocab_size", 32001), ("num_heads", 5)])
def test_a_missing_key_is_taken_from_the_class(key, default, tmp_path, refusal):
    said = refusal(served.medusa(tmp_path, **{key: None}))
    assert said == (
        f"{tmp_path}/config.json: {key} is missing, and vLLM 0.32.0 takes {default} for it\nhint: set {key}"
    )


def test_keys_of_the_trunk_would_become_the_number_of_heads(tmp_path, refusal):
    said = refusal(served.medusa(tmp_path, num_attention_heads=32, num_key_value_heads=8))
    assert "'num_attention_heads', 'num_key_value_heads' would become num_heads" in said
    assert "hint: take the keys of the trunk out" in said


def test_zero_blocks_have_to_stay(tmp_path, refusal):
    said = refusal(served.medusa(tmp_path, drop=("blocks.0.layers.0.weight", "blocks.1.layers.0.weight")))
    assert "num_heads is 2, and the tensors hold blocks of 0 heads" in said
    assert "hint: keep every block, the all-zero ones of linear heads too" in said


def test_a_missing_layer_of_a_block_is_refused_without_counting_far(tmp_path, refusal):
    said = refusal(served.medusa(tmp_path, num_hidden_layers=10**18))
    assert "'blocks.0.layers.1.weight', 'blocks.0.layers.2.weight'" in said


def test_tensors_that_would_be_skipped_are_named(tmp_path, refusal):
    said = refusal(served.medusa(tmp_path, extra=("lm_heads.0.bias", "norm.weight")))
    assert "'lm_heads.0.bias', 'norm.weight': vLLM 0.32.0 skips them without a word" in said


def test_biases_need_the_key(tmp_path, refusal):
    biases = {f"blocks.{i}.layers.0.bias": 1 for i in range(2)}
    assert "blocks.0.layers.0.bias" in refusal(served.medusa(tmp_path, extra=biases))
    assert "has the shape [9], and hidden_size is 4" in refusal(
        served.medusa(tmp_path, extra=biases, medusa_fc_bias=True)
    )


def test_a_smaller_vocabulary_needs_its_map(tmp_path, refusal):
    said = refusal(served.medusa(tmp_path, truncated_vocab_size=5))
    assert "truncated_vocab_size is 5, and no token_map has that many tokens" in said


@pytest.mark.parametrize("junk", [True, "4", -4, 0, [4], 1e9])
def test_sizes_that_are_none_are_shown(junk, tmp_path, refusal):
    assert "not a whole number above 0" in refusal(served.medusa(tmp_path, hidden_size=junk))


@pytest.mark.parametrize("program", ["sglang", "transformers", "llama.cpp"])
def test_only_vllm_has_medusa(program, tmp_path, refusal):
    said = refusal(served.medusa(tmp_path), program)
    assert "has no Medusa heads\nhint: serve them with vLLM 0.32.0" in said


def test_the_form_of_the_reference_is_told_from_that_of_vllm(tmp_path, refusal):
    served.write_config(tmp_path, medusa_num_heads=2, medusa_num_layers=1, base_model_name_or_path="x")
    assert "medusa_num_heads is 2: these are Medusa heads in the reference's form" in (said := refusal(tmp_path))
    assert "wmtp export SRC DST --to vllm-medusa" in said
