"""Every family in the table: its whole checkpoint is found to draft, in each program that has it."""

import pytest

import head_files as served
from wmtp.checkpoint.families import FAMILIES
from wmtp.serving.programs import Evidence
from wmtp.serving.table import PROGRAMS, programs_for

WHOLE = {
    "glm4_moe": ({"architectures": ["Glm4MoeForCausalLM"]}, served.after_trunk(sparse=True)),
    "glm_moe_dsa": ({"architectures": ["GlmMoeDsaForCausalLM"], "topk_method": "noaux_tc"}, served.after_trunk()),
    "deepseek_v32": ({"architectures": ["DeepseekV32ForCausalLM"], "topk_method": "noaux_tc"}, served.after_trunk()),
    "qwen3_next": ({"architectures": ["Qwen3NextForCausalLM"]}, served.mtp()),
    "mellum": ({"architectures": ["MellumForCausalLM"]}, served.mtp()),
    "exaone_moe": ({"architectures": ["ExaoneMoEForCausalLM"]}, served.mtp()),
    "exaone4_5": ({"architectures": ["Exaone4_5_ForConditionalGeneration"]}, served.mtp()),
    "ernie4_5_moe": ({"architectures": ["Ernie4_5_MoeForCausalLM"]}, served.ernie()),
    "mimo": ({"architectures": ["MiMoForCausalLM"], "model_type": "qwen2"}, served.mimo()),
    "mimo_v2_flash": (
        {"architectures": ["MiMoV2FlashForCausalLM"], "num_nextn_predict_layers": None},
        [f"model.mtp.layers.{i}.input_layernorm.weight" for i in range(3)],
    ),
    "nemotron_h": (
        {"architectures": ["NemotronHForCausalLM"], "mtp_hybrid_override_pattern": "*E"},
        [f"mtp.layers.{part}.weight" for part in ("0.enorm", "0.hnorm", "0.eh_proj", "0.mixer.q_proj", "1.norm")],
    ),
    "step3p5": (
        {"architectures": ["Step3p5ForCausalLM"]},
        [
            f"model.layers.2.{part}.weight"
            for part in ("enorm", "hnorm", "eh_proj", "transformer.shared_head.norm", "transformer.shared_head.output")
        ],
    ),
    "longcat_flash": (
        {"architectures": ["LongcatFlashForCausalLM"]},
        [
            f"model.mtp.{part}.weight"
            for part in ("norm", *(f"layers.0.{p}" for p in ("enorm.m", "hnorm.m", "eh_proj")))
        ],
    ),
    "inkling": (
        {"model_type": "inkling_text", "num_nextn_predict_layers": None, "num_mtp_layers": 1},
        [f"model.mtp.layers.0.{part}.weight" for part in ("embed_norm", "hidden_norm", "input_proj")],
    ),
}


def write(directory, family):
    if family == "deepseek_v3":
        return served.deepseek(directory)
    if family == "qwen3_5":
        return served.qwen3_5_vl(directory)
    config, heads = WHOLE[family]
    return served.write(
        directory, [*served.trunk(), *heads], **{"model_type": family, "num_nextn_predict_layers": 1} | config
    )


PAIRS = [(f.name, p.name) for f in FAMILIES for p in PROGRAMS.values() if f.name in p.drafts]
ELSEWHERE = {
    ("inkling", "vllm"),
    ("deepseek_v3", "transformers"),
    ("glm4_moe", "transformers"),
}


@pytest.mark.parametrize(("family", "program"), [pair for pair in PAIRS if pair not in ELSEWHERE])
def test_a_whole_checkpoint_of_a_family_is_drafted_with(family, program, tmp_path, verdict):
    found = verdict(write(tmp_path, family), program)
    assert (found.heads, found.evidence) == (family, PROGRAMS[program].drafts[family].evidence)
    assert found.num_modules == (3 if family == "mimo_v2_flash" else 1)


@pytest.mark.parametrize("family", [f.name for f in FAMILIES])
def test_a_program_without_a_family_refuses_it_by_name(family, tmp_path, refusal):
    directory = write(tmp_path, family)
    others = [program for program in PROGRAMS.values() if family not in program.drafts]
    for program in others:
        said = refusal(directory, program.name)
        assert f"{program.label} does not draft with these heads" in said
        assert f"hint: serve it plainly, or draft with {' or '.join(programs_for(family))}" in said


def test_mellum_is_not_in_the_registry_of_vllm(tmp_path, refusal):
    assert refusal(write(tmp_path, "mellum")) == (
        f"{tmp_path}/config.json: model_type 'mellum': vLLM 0.32.0 does not draft with these heads:"
        " Mellum's heads are not in its registry\n"
        "hint: serve it plainly, or draft with transformers 5.24.0"
    )


def test_what_ran_in_vllm_is_told_from_what_was_read():
    seen = {name for name, support in PROGRAMS["vllm"].drafts.items() if support.evidence is Evidence.SEEN}
    assert seen == {"deepseek_v3", "glm4_moe", "qwen3_5", "qwen3_next", "ernie4_5_moe", "mimo"}
    for program in ("sglang", "llama.cpp"):
        assert {support.evidence for support in PROGRAMS[program].drafts.values()} == {Evidence.READ}


@pytest.mark.parametrize(("family", "layers"), [("deepseek_v3", 61), ("glm4_moe", 46), ("glm4_moe", 92)])
def test_transformers_finds_modules_behind_so_many_layers_only(family, layers, tmp_path, verdict, refusal):
    names = [*served.trunk(), *served.after_trunk(num_layers=layers, sparse=True)]
    config = {"model_type": family, "num_nextn_predict_layers": 1}
    deep = served.write(tmp_path / "deep", names, num_hidden_layers=layers, **config)
    assert verdict(deep, "transformers").num_modules == 1
    short = served.write(tmp_path / "short", [*served.trunk(), *served.after_trunk()], **config)
    assert "num_hidden_layers is 2: transformers 5.24.0 finds these heads behind" in refusal(short, "transformers")


def test_inkling_counts_in_mtp_config_where_it_is_whole(tmp_path, verdict, refusal):
    names = [*served.trunk(), *WHOLE["inkling"][1]]
    nested = {"num_hidden_layers": 2, "hidden_size": served.HIDDEN}
    own = {
        "model_type": "inkling_mm_model",
        "architectures": ["InklingForConditionalGeneration"],
        "text_config": nested,
    }
    whole = served.write(tmp_path / "mm", names, **own, mtp_config={"num_nextn_predict_layers": 1})
    assert verdict(whole).num_modules == 1
    assert "model_type is 'inkling_text', whose heads vLLM 0.32.0 does not look for" in refusal(
        served.write(tmp_path / "text", names, model_type="inkling_text", num_mtp_layers=1, architectures=["X"])
    )
