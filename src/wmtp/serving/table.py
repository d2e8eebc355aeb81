"""The table: which program, in which version, drafts with the heads of which family, and how that is known.

A fact is `SEEN` when a checkpoint of that family drafted in a run of that version with all its drafts accepted, and
`READ` when the program's source says so. The reasons why a program does not are read, unless they say otherwise.
"""

from __future__ import annotations

from wmtp.serving.programs import Evidence, Modules, Need, Program, Support

_SEEN = Evidence.SEEN
_ONE = Modules.ONE
_NOAUX = (
    Need("topk_method", "noaux_tc", "else its router has no correction bias; transformers does not write the key"),
)
_UNTIED = (
    Need("tie_word_embeddings", False, "the module reads an unembedding of its own, from lm_head", may_be_absent=True),
)
_NO_COUNT = "its configuration class has no num_mtp_layers, which generate(use_mtp=True) asks for"
_STATEFUL = f"the trunk is stateful, which assisted generation refuses; and {_NO_COUNT}"

VLLM = Program(
    name="vllm",
    label="vLLM 0.32.0",
    source="run on CPU in November 2026 with its V1 runner; vllm/config/speculative.py and the models' own files read",
    drafts={
        "deepseek_v3": Support(_SEEN, needs=_NOAUX),
        "deepseek_v32": Support(needs=_NOAUX),
        "glm4_moe": Support(_SEEN, architectures=("Glm4MoeForCausalLM",)),
        "glm_moe_dsa": Support(needs=_NOAUX),
        "qwen3_5": Support(_SEEN, absent_count=1),
        "qwen3_next": Support(_SEEN),
        "ernie4_5_moe": Support(_SEEN, modules=_ONE),
        "mimo": Support(_SEEN, architectures=("MiMoForCausalLM",), needs=_UNTIED, tensors=("lm_head.weight",)),
        "mimo_v2_flash": Support(architectures=("MiMoV2FlashForCausalLM",)),
        "nemotron_h": Support(),
        "exaone_moe": Support(),
        "exaone4_5": Support(),
        "longcat_flash": Support(absent_count=1),
        "step3p5": Support(absent_count=1),
        "inkling": Support(model_types=("inkling_mm_model", "inkling_model")),
    },
    reasons={"mellum": "Mellum's heads are not in its registry"},
    # Its check of what was not loaded excuses the weights of its own Linear classes; these are norms and plain ones.
    refused=("norm.weight", ".m.weight", "eh_proj.weight", "input_proj.weight", "mtp_linear_proj.0.weight"),
    on_zero="ends in a ZeroDivisionError",
    has_medusa=True,
    command='vllm serve {uri} --speculative-config \'{{"method": "mtp", "num_speculative_tokens": 1}}\'',
)

SGLANG = Program(
    name="sglang",
    label="SGLang (main of mid-2026)",
    source="python/sglang/srt/configs/model_config.py at 001adf56 and the models' own files; it runs on GPUs only",
    drafts={
        "deepseek_v3": Support(architectures=("DeepseekV3ForCausalLM",), modules=_ONE, needs=_NOAUX),
        "deepseek_v32": Support(architectures=("DeepseekV32ForCausalLM",), modules=_ONE, needs=_NOAUX),
        "glm4_moe": Support(architectures=("Glm4MoeForCausalLM",), modules=_ONE),
        "glm_moe_dsa": Support(architectures=("GlmMoeDsaForCausalLM",), modules=_ONE, needs=_NOAUX),
        "qwen3_5": Support(
            architectures=("Qwen3_5ForConditionalGeneration", "Qwen3_5MoeForConditionalGeneration"), absent_count=1
        ),
        "qwen3_next": Support(architectures=("Qwen3NextForCausalLM",), absent_count=1),
        "exaone_moe": Support(architectures=("ExaoneMoEForCausalLM",), absent_count=1),
        "nemotron_h": Support(architectures=("NemotronHForCausalLM",), absent_count=1),
        # Both read their module under a name without its number: of several, the last one to be read is left.
        "mimo": Support(architectures=("MiMoForCausalLM",), modules=_ONE),
        "ernie4_5_moe": Support(architectures=("Ernie4_5_MoeForCausalLM",), modules=_ONE),
        "mimo_v2_flash": Support(architectures=("MiMoV2FlashForCausalLM",)),
        "step3p5": Support(architectures=("Step3p5ForCausalLM", "Step3p7ForConditionalGeneration"), modules=_ONE),
        "longcat_flash": Support(architectures=("LongcatFlashForCausalLM",)),
    },
    command="python -m sglang.launch_server --model-path {uri} --speculative-algorithm NEXTN",
)

TRANSFORMERS = Program(
    name="transformers",
    label="transformers 5.24.0",
    source="run on CPU in November 2026: MtpModel.from_pretrained and generate(use_mtp=True), batch 1",
    drafts={
        "mellum": Support(_SEEN, modules=_ONE),
        "inkling": Support(_SEEN, modules=Modules.ALL),
        "deepseek_v3": Support(_SEEN, modules=_ONE, absent_count=1, depths=(61,)),
        "glm4_moe": Support(_SEEN, modules=_ONE, absent_count=1, depths=(46, 92)),
    },
    reasons={
        "step3p5": "each module has an unembedding of its own, in whose place it takes the trunk's",
        "qwen3_5": _STATEFUL,
        "qwen3_next": _STATEFUL,
        "nemotron_h": _STATEFUL,
        **dict.fromkeys(
            ("deepseek_v32", "glm_moe_dsa", "exaone_moe", "exaone4_5", "ernie4_5_moe", "longcat_flash"), _NO_COUNT
        ),
        "mimo_v2_flash": _NO_COUNT,
        "mimo": "it has no class for MiMo-7B",
    },
    refused=("",),
    on_zero="builds no module and drafts nothing",
    needs_class=False,
    command="model.generate(..., use_mtp=True)",
)

LLAMA_CPP = Program(
    name="llama.cpp",
    label="llama.cpp (August 2026)",
    source="the converter's conversion/*.py, and pull requests 22673, 24868, 25589, 26457, 26534; no model was run",
    drafts={
        "qwen3_5": Support(
            architectures=(
                *("Qwen3_5ForConditionalGeneration", "Qwen3_5ForCausalLM"),
                *("Qwen3_5MoeForConditionalGeneration", "Qwen3_5MoeForCausalLM"),
            )
        ),
        "qwen3_next": Support(architectures=("Qwen3NextForCausalLM",)),
        "glm4_moe": Support(architectures=("Glm4MoeForCausalLM",)),
        "glm_moe_dsa": Support(architectures=("GlmMoeDsaForCausalLM",)),
        "deepseek_v32": Support(architectures=("DeepseekV32ForCausalLM",)),
        "step3p5": Support(architectures=("Step3p5ForCausalLM",), modules=Modules.ALL),
        "nemotron_h": Support(architectures=("NemotronHForCausalLM",), modules=_ONE),
    },
    reasons={
        "deepseek_v3": "its converter drops the modules of DeepSeek-V3",
        "ernie4_5_moe": "its converter drops the modules of ERNIE-4.5",
        "mellum": "its converter knows Mellum's trunk, and not the heads",
        "exaone_moe": "its converter keeps the modules, and no graph that was read runs them",
        "exaone4_5": "its converter keeps the modules, and no graph that was read runs them",
        "mimo_v2_flash": "its converter keeps the modules, and no release that was read drafts with them",
    },
    refused=("",),
    on_zero="converts the trunk alone",
    command="convert_hf_to_gguf.py {uri}, then llama-server -m FILE.gguf --spec-type draft-mtp",
)

PROGRAMS = {program.name: program for program in (VLLM, SGLANG, TRANSFORMERS, LLAMA_CPP)}


def programs_for(family: str) -> list[str]:
    """Return the labels of the programs that draft with the heads of a family."""
    return [program.label for program in PROGRAMS.values() if family in program.drafts]
