"""What stands in the way of native heads, or in nothing's way and is worth knowing."""

import json

import pytest

import head_files as served
from checkpoints import metadata_document
from wmtp.untrusted import show


def without(names, *endings):
    return [name for name in names if not name.endswith(endings)]


def test_a_verdict_says_how_it_is_known_and_how_heads_are_asked_for(tmp_path, verdict):
    found = verdict(served.qwen3_5_vl(tmp_path))
    first, note, known, asked = found.summary("DIR")
    assert first == "DIR: vLLM 0.32.0 would load 1 module (qwen3_5) and draft with them"
    assert note == "note: as a target of Medusa heads, config.json would need a vocab_size at its top level too"
    assert known.startswith("how that is known: seen in a run; run on CPU in November 2026")
    assert '--speculative-config \'{"method": "mtp", "num_speculative_tokens": 1}\'' in asked
    assert found.to_dict()["conventions"] == {
        "hidden": "after the final norm",
        "order": "embedding, hidden",
        "zeroes_first": False,
    }


def test_a_checkpoint_whose_modules_were_lost_on_save_is_told_so(tmp_path, refusal):
    assert refusal(served.deepseek(tmp_path, served.trunk())) == (
        f"{tmp_path}/config.json: num_nextn_predict_layers is 1, and no tensor of a module is there:"
        " vLLM 0.32.0 refuses to draft, or drafts garbage\n"
        "hint: take the modules from the original checkpoint: transformers leaves them out when it saves"
    )


@pytest.mark.parametrize("count", [True, "1", -1, 1.0, [1], {"a": 1}, 10**30])
def test_a_count_that_is_none_is_shown(count, tmp_path, refusal):
    said = refusal(served.deepseek(tmp_path, num_nextn_predict_layers=count))
    assert f"{tmp_path}/config.json: num_nextn_predict_layers is {show(count)}, " in said
    assert "hint: set num_nextn_predict_layers to 1" in said


def test_more_modules_declared_than_there_are(tmp_path, refusal):
    said = refusal(served.deepseek(tmp_path, num_nextn_predict_layers=2))
    assert "config.json: num_nextn_predict_layers is 2, and the tensors hold 1 module\n" in said


def test_a_count_of_zero_ends_vllm(tmp_path, refusal):
    said = refusal(served.qwen3_5(tmp_path, mtp_num_hidden_layers=0))
    assert "mtp_num_hidden_layers is 0: vLLM 0.32.0 ends in a ZeroDivisionError\nhint: set mtp_num" in said


def test_zero_and_no_module_is_a_checkpoint_without_heads(tmp_path, refusal):
    said = refusal(served.qwen3_5(tmp_path, served.trunk(), mtp_num_hidden_layers=0))
    assert (
        "no prediction heads: vLLM 0.32.0 would serve it plainly and cannot draft; mtp_num_hidden_layers is 0" in said
    )


def test_a_missing_count_is_harmless_where_one_is_taken_for_granted(tmp_path, verdict, refusal):
    qwen = served.qwen3_5_vl(tmp_path / "qwen", text={"mtp_num_hidden_layers": None})
    assert verdict(qwen).num_modules == 1
    said = refusal(qwen, "llama.cpp")
    assert "text_config.mtp_num_hidden_layers is missing, and the tensors hold 1 module" in said
    assert "hint: set text_config.mtp_num_hidden_layers to 1" in said
    said = refusal(served.deepseek(tmp_path / "deepseek", num_nextn_predict_layers=None))
    assert "num_nextn_predict_layers is missing, and the tensors hold 1 module" in said


def test_a_count_at_the_top_of_a_nested_configuration_is_misplaced(tmp_path, refusal):
    said = refusal(served.qwen3_5_vl(tmp_path, text={"mtp_num_hidden_layers": None}, mtp_num_hidden_layers=1))
    assert "mtp_num_hidden_layers stands at the top level" in said
    assert "hint: move it to text_config.mtp_num_hidden_layers" in said


def test_names_of_the_other_class_are_refused(tmp_path, refusal):
    text = refusal(served.qwen3_5(tmp_path / "a", [*served.trunk(start="model.language_model."), *served.mtp()]))
    assert "names of the trunk begin with 'model.language_model.', and config.json has no text_config" in text
    nested = refusal(served.qwen3_5_vl(tmp_path / "b", [*served.trunk(), *served.mtp()]))
    assert "config.json has a text_config, and no name of the trunk begins with 'model.language_model.'" in nested


def test_heads_inside_the_trunk_are_where_nobody_looks(tmp_path, refusal):
    names = [*served.trunk(start="model.language_model."), *served.mtp(start="model.language_model.mtp.")]
    said = refusal(served.qwen3_5_vl(tmp_path, names))
    assert (
        "'model.language_model.mtp.fc.weight' is where qwen3_5 has no heads: theirs begin with 'mtp.layers.0.'" in said
    )


def test_a_trunk_that_grew_over_its_modules_has_none(tmp_path, refusal):
    said = refusal(served.deepseek(tmp_path, num_hidden_layers=3))
    assert (
        "'model.layers.2.eh_proj.weight' is where deepseek_v3 has no heads: theirs begin with 'model.layers.3.'" in said
    )


@pytest.mark.parametrize("part", ["fc", "layers.0.self_attn.q_proj", "layers.0.mlp.down_proj"])
def test_linear_weights_that_vllm_misses_in_silence_are_named(part, tmp_path, refusal):
    said = refusal(served.qwen3_5(tmp_path, without([*served.trunk(), *served.mtp()], f"mtp.{part}.weight")))
    assert f"{tmp_path}/model.safetensors: module 0 lacks 'mtp.{part}.weight'" in said
    assert "vLLM 0.32.0 starts without a word, and no draft of it is accepted" in said


@pytest.mark.parametrize(
    ("write", "ending"),
    [(served.deepseek, "eh_proj.weight"), (served.deepseek, "hnorm.weight"), (served.qwen3_5, "mtp.norm.weight")],
)
def test_weights_that_vllm_refuses_to_be_without_are_named(write, ending, tmp_path, refusal):
    names = [*served.trunk(), *(served.mtp() if write is served.qwen3_5 else served.after_trunk(sparse=True))]
    said = refusal(write(tmp_path, without(names, ending)))
    assert f"{ending}': vLLM 0.32.0 refuses to load it" in said


def test_transformers_refuses_what_others_miss_in_silence(tmp_path, refusal):
    names = without([*served.trunk(), *served.mtp()], "mtp.fc.weight")
    mellum = served.write(tmp_path, names, model_type="mellum", num_nextn_predict_layers=1)
    assert "module 0 lacks 'mtp.fc.weight': transformers 5.24.0 refuses to load it" in refusal(mellum, "transformers")


def test_a_missing_expert_is_counted(tmp_path, refusal):
    sparse = [*served.block("model.layers.0.", sparse=True), *served.after_trunk(num_layers=1, sparse=True)]
    names = [name for name in sparse if name != "model.layers.1.mlp.experts.2.up_proj.weight"]
    said = refusal(served.deepseek(tmp_path, names, num_hidden_layers=1))
    assert "module 0 lacks 'model.layers.1.mlp.experts.up_proj of 1 of 3 experts'" in said


def test_a_module_without_its_block_lacks_all_of_it(tmp_path, refusal):
    names = [name for name in [*served.trunk(), *served.mtp()] if not name.startswith("mtp.layers")]
    assert "module 0 lacks 'mtp.layers.0.*'" in refusal(served.qwen3_5(tmp_path, names))


def test_a_gap_between_modules_is_refused(tmp_path, refusal):
    said = refusal(served.deepseek(tmp_path, [*served.trunk(), *served.after_trunk(1)]))
    assert "the modules are numbered 1, and not from 0 on without a gap" in said


def test_further_modules_are_noted_where_the_first_is_run_alone(tmp_path, verdict, refusal):
    names = [*served.trunk(), *served.after_trunk(0), *served.after_trunk(1)]
    two = served.deepseek(tmp_path, names, num_nextn_predict_layers=2)
    assert verdict(two).notes == ("note: vLLM 0.32.0 runs the first one only, of 2; the others draft nothing",)
    said = refusal(two, "sglang")
    assert "there are 2 modules of deepseek_v3, and SGLang (main of mid-2026) takes one and no more" in said


def test_deepseek_needs_the_key_that_transformers_does_not_write(tmp_path, refusal):
    said = refusal(served.deepseek(tmp_path, topk_method=None))
    assert "topk_method is missing, and vLLM 0.32.0 needs 'noaux_tc'" in said
    assert "hint: set topk_method to 'noaux_tc'" in said
    assert "topk_method is 'greedy'" in refusal(served.deepseek(tmp_path, topk_method="greedy"))


def test_mimo_needs_its_class_and_an_unembedding_of_its_own(tmp_path, refusal):
    config = {"model_type": "mimo", "num_nextn_predict_layers": 1}
    names = without([*served.trunk(), *served.mimo()], "lm_head.weight")
    said = refusal(
        served.write(tmp_path, names, architectures=["Qwen2ForCausalLM"], tie_word_embeddings=True, **config)
    )
    assert "3 things stand in the way" in said
    assert "architectures begins with 'Qwen2ForCausalLM', whose heads vLLM 0.32.0 does not look for" in said
    assert "tie_word_embeddings is true, and vLLM 0.32.0 needs false" in said
    assert "'lm_head.weight' is missing" in said


def test_sglang_looks_for_no_heads_of_a_text_only_qwen3_5(tmp_path, refusal):
    said = refusal(served.qwen3_5(tmp_path), "sglang")
    assert "architectures begins with 'Qwen3_5ForCausalLM'" in said


@pytest.mark.parametrize("found", [None, [], "MiMoForCausalLM", [7], {}])
def test_a_program_that_picks_by_class_needs_one(found, tmp_path, refusal):
    assert "picks the model by its first entry" in refusal(served.deepseek(tmp_path, architectures=found))


def test_a_projection_of_another_width_is_refused(tmp_path, refusal):
    said = refusal(served.qwen3_5(tmp_path, hidden_size=6))
    assert "'mtp.fc.weight' has the shape [4, 8], and config.json has the hidden_size 6" in said


def test_names_that_would_be_skipped_are_noted(tmp_path, verdict):
    names = [*served.trunk(), *served.mtp(), "model.layers.0.mtp_gate.weight"]
    assert (
        "note: skipped in silence, as not of the family: model.layers.0.mtp_gate.weight"
        in verdict(served.qwen3_5(tmp_path, names)).notes
    )


def test_a_plain_model_would_be_served_plainly(tmp_path, refusal):
    plain = served.write(tmp_path, served.trunk(), model_type="llama", architectures=["LlamaForCausalLM"])
    for program, label, hint in (
        (
            "vllm",
            "vLLM 0.32.0",
            f"or make and train Medusa heads: wmtp grow {tmp_path} NEW --heads 4 --head-type resblock",
        ),
        (
            "llama.cpp",
            "llama.cpp (August 2026)",
            "as llama.cpp (August 2026) has no Medusa heads; docs/serving.md says",
        ),
    ):
        assert refusal(plain, program).startswith(
            f"{tmp_path}: no prediction heads: {label} would serve it plainly and cannot draft\n"
            f"hint: leave speculative decoding off, {hint}"
        )


def test_heads_of_an_unknown_family_are_not_taken_for_none(tmp_path, refusal):
    names = [*served.trunk(), "model.mtp_layers.0.e_proj.weight"]
    said = refusal(served.write(tmp_path, names, model_type="hy_v9"))
    assert "model_type is 'hy_v9', a family whose heads are not known here" in said


@pytest.mark.parametrize(("head_type", "option"), [("linear", " --to vllm-medusa"), ("transformer", "")])
def test_parallel_heads_have_to_be_exported_first(tmp_path, refusal, head_type, option):
    served.write(tmp_path, ["trunk.model.norm.weight", "heads.2.unembedding.weight"], model_type="llama")
    mtp = {"n_future_tokens": 2, "head_type": head_type}
    (tmp_path / "metadata.json").write_text(json.dumps(metadata_document(mtp=mtp)))
    assert refusal(tmp_path) == (
        f"{tmp_path}/metadata.json: loading_strategy.model_class_name is 'MTPForCausalLM', a class that"
        " vLLM 0.32.0 does not have\nhint: write what other programs read first, and ask about that:"
        f" wmtp export {tmp_path} NEW{option}"
    )


def test_a_quantised_release_is_read_though_wmtp_would_not_load_it(tmp_path, verdict):
    names = [*served.trunk(), *served.after_trunk(sparse=True), "model.layers.2.eh_proj.weight_scale_inv"]
    config = {"quantization_config": {"quant_method": "fp8"}, "auto_map": {"AutoModel": "modeling.X"}}
    assert verdict(served.deepseek(tmp_path, names, **config)).num_modules == 1


@pytest.mark.parametrize("junk", [[], "x", 7, True])
def test_a_nested_configuration_that_is_none_is_refused(junk, tmp_path, refusal):
    assert "text_config is " in refusal(served.qwen3_5_vl(tmp_path, text=junk, num_hidden_layers=2))


@pytest.mark.parametrize("junk", [None, True, "2", -2, [2]])
def test_a_depth_that_is_none_is_refused(junk, tmp_path, refusal):
    assert "num_hidden_layers is " in refusal(served.deepseek(tmp_path, num_hidden_layers=junk))


@pytest.mark.parametrize("field", ["model_type", "architectures", "topk_method", "hidden_size"])
@pytest.mark.parametrize("junk", [{"a": [1]}, [[]], True, 1e300, "\x1b[31m"])
def test_junk_in_a_field_is_refused_and_shown_harmlessly(field, junk, tmp_path, refusal):
    said = refusal(served.deepseek(tmp_path, **{field: junk}))
    assert field in said
    assert "\x1b" not in said


def test_a_hostile_number_of_modules_is_counted_and_no_more(tmp_path, refusal):
    names = [
        *served.trunk(1),
        *(f"mtp.layers.{i}.self_attn.x.weight" for i in range(3000)),
        f"mtp.layers.{'9' * 400}.a",
    ]
    assert "the names are those of 3,001 modules" in refusal(served.qwen3_5(tmp_path, names, num_hidden_layers=1))
