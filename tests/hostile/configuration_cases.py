"""config.json and its companions: keys that pick code, sizes that no checkpoint has, values of wrong kinds."""

from __future__ import annotations

from typing import Any

from hostile.bases import gpt2, metadata_of, mtp
from hostile.case import CAUSAL, Case, refusals
from hostile.changes import config, file, meta, strategy
from hostile.draft import Draft
from hostile.good import tokenizer_files

refused = refusals("configuration", peer=CAUSAL)
C = "config.json"
_KERNEL = "someone/kernel"
_KERNEL_KEYS = (
    *("attn_implementation", "_attn_implementation", "_attn_implementation_internal"),
    *("experts_implementation", "_experts_implementation", "_experts_implementation_internal"),
)
_AUTO_MAP = {"AutoConfig": "evil.EvilConfig", "AutoModelForCausalLM": "evil.EvilModel"}
# Refused by whichever looks first: the bound on sizes, the class, or the plan.
ANY = "CheckpointError PlanError MetadataError TrustError"


def _remote_code(draft: Draft, name: str = C) -> None:
    code = (
        f"open({str(draft.marker)!r}, 'a').close()\n\n\nclass EvilConfig:\n    pass\n\n\nclass EvilModel:\n    pass\n"
    )
    draft.files["evil.py"] = code.encode()
    draft.config |= {"auto_map": _AUTO_MAP} if name == C else {}


def _unknown_type_with_code(draft: Draft) -> None:
    _remote_code(draft)
    draft.config["model_type"] = draft.metadata["base_architecture"] = "evil"


def _tokenizer_code(draft: Draft) -> None:
    _remote_code(draft, "tokenizer_config.json")
    tokenizer_files(draft)
    file("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["evil.EvilConfig", None]}})(draft)


def _vision(draft: Draft) -> None:
    backbone = {
        "backbone": _KERNEL,
        "use_pretrained_backbone": True,
        "use_timm_backbone": False,
        "backbone_config": None,
    }
    draft.metadata = metadata_of("detr", loader_type="huggingface", transformers_class="DetrForObjectDetection")
    draft.config = {"model_type": "detr", **backbone}


def _timm(draft: Draft) -> None:
    draft.metadata = metadata_of("timm_wrapper", loader_type="huggingface", transformers_class="TimmWrapperModel")
    draft.config = {"model_type": "timm_wrapper", "architecture": "resnet18", "pretrained": True, "do_pooling": True}


def _pairs(draft: Draft) -> None:
    draft.metadata = metadata_of("encoder-decoder", loader_type="huggingface", transformers_class="EncoderDecoderModel")
    draft.config = {
        "model_type": "encoder-decoder",
        "encoder": {"model_type": "evil"},
        "decoder": {"model_type": "llama"},
    }


def _sub_models(key: str, value: Any) -> dict[str, Any]:
    return {"text_config": {"model_type": "llama", "inner": {key: value}}}


CASES = [
    refused("code by auto map", "TrustError", (C, "auto_map", "evil.EvilModel"), _remote_code, peer=None),
    refused("an unknown type with code by auto map", "TrustError", (C, "auto_map"), _unknown_type_with_code),
    refused(
        "code by auto map in a sub model",
        "TrustError",
        (C, "text_config.inner.auto_map"),
        config(**_sub_models("auto_map", _AUTO_MAP)),
        peer=None,
    ),
    refused(
        "code by auto map in a list of sub models",
        "TrustError",
        (C, "auto_map"),
        config(text_configs=[{"auto_map": _AUTO_MAP}]),
        peer=None,
    ),
    refused(
        "code for the tokenizer",
        "TrustError",
        ("tokenizer_config.json", "auto_map"),
        _tokenizer_code,
        peer="AutoTokenizer",
    ),
    refused(
        "code for generation",
        "TrustError",
        ("generation_config.json", "auto_map"),
        file("generation_config.json", {"auto_map": _AUTO_MAP}),
        peer=None,
    ),
    refused("trust in remote code", "TrustError", (C, "trust_remote_code"), config(trust_remote_code=True), peer=None),
    refused(
        "trust in remote code as a word",
        "TrustError",
        (C, "trust_remote_code", "'yes'"),
        config(trust_remote_code="yes"),
        peer=None,
    ),
    refused(
        "trust in remote code in the tokenizer",
        "TrustError",
        ("tokenizer_config.json", "trust_remote_code"),
        tokenizer_files,
        file("tokenizer_config.json", {"trust_remote_code": True}),
        peer="AutoTokenizer",
    ),
    *[
        refused(f"a kernel by key {number} {key}", "TrustError", (C, key, _KERNEL), config(**{key: _KERNEL}))
        for number, key in enumerate(_KERNEL_KEYS)
    ],
    refused(
        "a kernel in a sub model",
        "TrustError",
        (C, "text_config.inner.attn_implementation"),
        config(**_sub_models("attn_implementation", _KERNEL)),
    ),
    refused(
        "a kernel by an alias that the file defines",
        "TrustError CheckpointError",
        (C, "attribute_map"),
        config(attribute_map={"harmless": "_attn_implementation_internal"}, harmless=_KERNEL),
    ),
    refused(
        "a quantized format",
        "TrustError",
        (C, "quantization_config", "gptq", "with 4 bits", "take the checkpoint that it was quantised from"),
        config(quantization_config={"quant_method": "gptq", "bits": 4}),
    ),
    refused(
        "a quantization backend of eight bits",
        "TrustError",
        (C, "quantization_config"),
        config(quantization_config={"load_in_8bit": True, "quant_method": "bitsandbytes"}),
    ),
    refused(
        "an adapter beside the weights",
        "TrustError",
        "adapter_config.json",
        file("adapter_config.json", {"peft_type": "LORA", "base_model_name_or_path": "someone/base"}),
    ),
    refused(
        "heads that are no object", "CheckpointError", (C, "mtp_config"), config(mtp_config=[2]), base=mtp, peer=None
    ),
    refused(
        "heads of a kind that does not exist",
        "MetadataError",
        (C, "mtp_config", "head_type", "'medusa'"),
        config(mtp_config={"n_future_tokens": 2, "head_type": "medusa"}),
        base=mtp,
        peer=None,
    ),
    refused(
        "no heads in the configuration of a model with heads",
        "CheckpointError",
        (C, "mtp_config"),
        lambda d: d.config.pop("mtp_config"),
        base=mtp,
        peer=None,
    ),
    refused("a trunk without layers", ANY, "config.json|trunk", config(num_hidden_layers=0), base=mtp, peer=None),
    refused(
        "a type unlike the metadata",
        "MetadataError",
        (C, "'mistral'", "'llama'"),
        config(model_type="mistral"),
        peer=None,
    ),
    refused("a type that is a number", "MetadataError CheckpointError", (C, "7"), config(model_type=7), peer=None),
    refused("a backbone to fetch from a hub", ANY, C, _vision, peer="AutoModelForObjectDetection"),
    refused("a class that needs a library which is not there", ANY, C, _timm, peer="AutoModel"),
    refused("a pair of models one of which is unknown", ANY, C, _pairs, peer="AutoModel"),
    refused("no configuration", "NotFoundError", C, file(C, None)),
    refused(
        "generation settings that are a list",
        "CheckpointError",
        "generation_config.json",
        file("generation_config.json", b"[]"),
    ),
    refused(
        "generation settings that override methods",
        "CheckpointError",
        "generation_config.json",
        file("generation_config.json", {"to_dict": "x", "validate": 7, "update": []}),
    ),
    refused("a dropout that is text", ANY, C, config(attention_dropout="x", attn_pdrop="x"), base=gpt2),
    refused(
        "an architecture that no library has",
        "MetadataError",
        ("metadata.json", "base_architecture is 'lama'"),
        config(model_type="lama"),
        meta(base_architecture="lama"),
    ),
    refused(
        "a mixture of experts without experts",
        ANY,
        "config.json|model.layers",
        config(model_type="mixtral", num_local_experts=10**8),
        meta(base_architecture="mixtral"),
        strategy(transformers_class=CAUSAL),
    ),
]


def _loads(sentence: str, *, peer: str | None = CAUSAL, **keys: Any) -> Case:
    return refusals("configuration", peer=peer)(sentence, "", "", config(**keys))


CASES += [
    _loads("a note that older versions wrote about attention", _attn_implementation_autoset=True),
    _loads("remote code denied in words", peer=None, trust_remote_code=False, auto_map=None, quantization_config=None),
    _loads("a path of another machine", _name_or_path="/etc/passwd", name_or_path="../outside"),
    _loads("a context beyond all memory", max_position_embeddings=10**12),
    _loads(
        "unknown keys of many kinds",
        peer=None,
        unknown={"a": [1, None]},
        another=10**30,
        third="\u6f22",
        dtype="no-such",
        torch_dtype=7,
    ),
    _loads("a version of the future", transformers_version="999.0"),
    _loads("settings of generation in the configuration", temperature=0.5, top_k=3, do_sample=False, num_beams=4),
]
