"""metadata.json that is malformed, or that states what is not so."""

from __future__ import annotations

from hostile.bases import mtp
from hostile.case import refusals
from hostile.changes import file, meta, strategy, tensors, without
from hostile.draft import WIDTH, Draft, random_tensor
from hostile.good import tokenizer_files

refused = refusals("metadata")
M = "metadata.json"
_REQUIRED = ("wmtp_type", "training_algorithm", "base_architecture", "storage_version", "algorithm_compatibility")
_NO_MODEL = ("pipeline", "AutoTokenizer", "Trainer", "modeling_utils", "LlamaConfig", "llamaforcausallm", "logging")
_NO_CLASS_NAME = (
    "__class__",
    "LlamaForCausalLM.from_pretrained",
    "transformers.LlamaForCausalLM",
    "os;import",
    "A" * 200,
)


def _third_head(draft: Draft) -> None:
    draft.tensors["heads.3.unembedding.weight"] = random_tensor("heads.3", (32, WIDTH))


def _untrue_tokenizer(draft: Draft) -> None:
    tokenizer_files(draft)
    draft.metadata["tokenizer"] = {"sha256": "ab" * 32}


def _untrue_digest(draft: Draft) -> None:
    draft.metadata["files"] = [{"path": "config.json", "size": 3, "sha256": "ab" * 32}]


CASES = [
    *[refused(f"no {name}", "MetadataError", (M, name, "missing"), without(name)) for name in _REQUIRED],
    refused("no loading strategy", "MetadataError", (M, "loading_strategy is missing"), without("loading_strategy")),
    *[
        refused(
            f"no {name} in the strategy",
            "MetadataError",
            (M, f"loading_strategy.{name}", "missing"),
            without("loading_strategy", name),
        )
        for name in ("loader_type", "required_files", "transformers_class")
    ],
    refused(
        "an older storage version",
        "MetadataError",
        (M, "storage_version is '1.0'", "wmtp upgrade"),
        meta(storage_version="1.0"),
    ),
    refused(
        "a storage version that is a number", "MetadataError", (M, "storage_version is 2.0"), meta(storage_version=2.0)
    ),
    refused(
        "a storage version of the future", "MetadataError", (M, "storage_version is '3.0'"), meta(storage_version="3.0")
    ),
    refused(
        "a type that does not exist",
        "MetadataError",
        (M, "wmtp_type is 'base_modle'", "did you mean"),
        meta(wmtp_type="base_modle"),
    ),
    refused(
        "a type that is a list of all",
        "MetadataError",
        (M, "wmtp_type is ["),
        meta(wmtp_type=["base_model", "reward_model"]),
    ),
    refused("an unknown field that grants trust", "MetadataError", (M, "trust", "not a known field"), meta(trust=True)),
    refused(
        "consent given by the checkpoint itself",
        "MetadataError",
        (M, "allow_code", "not a known field"),
        meta(allow_code={"modeling.py": "sha256:" + "0" * 64}),
    ),
    refused(
        "trust in remote code in the strategy",
        "MetadataError",
        (M, "loading_strategy.trust_remote_code", "not a known field"),
        strategy(trust_remote_code=True),
    ),
    refused(
        "strictness switched off in the mapping",
        "MetadataError",
        (M, "state_dict_mapping.strict", "not a known field"),
        strategy(state_dict_mapping={"strict": False}),
    ),
    refused(
        "an unknown loader",
        "MetadataError",
        (M, "loading_strategy.loader_type is 'hugging_face'", "did you mean"),
        strategy(loader_type="hugging_face"),
    ),
    refused(
        "a loader that is a path to code",
        "MetadataError",
        (M, "loading_strategy.loader_type is 'os:system'"),
        strategy(loader_type="os:system"),
    ),
    *[
        refused(
            f"the transformers class {name}",
            "MetadataError",
            (M, "transformers_class", f"'{name}'"),
            strategy(transformers_class=name),
        )
        for name in _NO_MODEL
    ],
    *[
        refused(
            f"a transformers class that is no plain name {number}",
            "MetadataError",
            (M, "transformers_class is", name[:50]),
            strategy(transformers_class=name),
        )
        for number, name in enumerate(_NO_CLASS_NAME)
    ],
    refused(
        "the base class of all models",
        "CheckpointError PlanError MetadataError",
        "PreTrainedModel",
        strategy(transformers_class="PreTrainedModel"),
    ),
    refused(
        "a class of another architecture",
        "CheckpointError PlanError MetadataError",
        "config.json",
        strategy(transformers_class="BertForMaskedLM"),
    ),
    refused(
        "a class for pictures",
        "CheckpointError PlanError MetadataError",
        "config.json",
        strategy(transformers_class="ViTModel"),
    ),
    refused(
        "a class that needs a second model",
        "CheckpointError PlanError MetadataError",
        "config.json",
        strategy(transformers_class="RagModel"),
    ),
    refused(
        "another architecture than the configuration",
        "MetadataError",
        (M, "base_architecture is 'gpt2'", "config.json has model_type 'llama'"),
        meta(base_architecture="gpt2"),
    ),
    refused(
        "an architecture that is a path",
        "MetadataError",
        (M, "base_architecture is '../llama'"),
        meta(base_architecture="../llama"),
    ),
    refused(
        "an architecture that nothing knows",
        "MetadataError",
        (M, "base_architecture is 'lama'", "did you mean"),
        meta(base_architecture="lama"),
        lambda d: d.config.pop("model_type"),
    ),
    refused("a horizon that is true", "MetadataError", (M, "horizon is true"), meta(horizon=True)),
    refused("a horizon of nothing", "MetadataError", (M, "horizon is 0"), meta(horizon=0)),
    refused("a number of heads as text", "MetadataError", (M, "n_heads is '2'"), meta(n_heads="2"), base=mtp),
    refused(
        "two head counts that disagree",
        "MetadataError",
        (M, "n_future_tokens is 2", "n_heads is 3"),
        meta(n_heads=3),
        base=mtp,
    ),
    refused(
        "another number of heads than the configuration",
        "MetadataError",
        (M, "mtp.n_future_tokens is 3", "config.json", "2"),
        meta(mtp={"n_future_tokens": 3}),
        base=mtp,
    ),
    refused(
        "a horizon that the configuration contradicts",
        "MetadataError",
        (M, "horizon is 5", "config.json", "2"),
        meta(horizon=5),
        without("mtp"),
        base=mtp,
    ),
    refused(
        "more heads in the file than declared", "PlanError", ("heads.3.unembedding.weight",), _third_head, base=mtp
    ),
    refused(
        "fewer heads in the file than declared",
        "PlanError",
        ("heads.2.unembedding.weight",),
        tensors(heads__2__unembedding__weight=None),
        base=mtp,
    ),
    refused(
        "no heads at all in the metadata of an own class",
        "UnknownNameError",
        (M, "model_class_name is 'MTPForCausalLn'", "custom_module_file", "did you mean"),
        strategy(model_class_name="MTPForCausalLn"),
        base=mtp,
    ),
    refused(
        "a built in class together with a transformers class",
        "MetadataError",
        (M, "transformers_class is 'AutoModel'"),
        strategy(transformers_class="AutoModel"),
        base=mtp,
    ),
    refused(
        "code beside a transformers class",
        "MetadataError",
        (M, "custom_module_file is 'modeling.py'"),
        strategy(custom_module_file="modeling.py"),
    ),
    refused(
        "an algorithm that nothing knows",
        "MetadataError",
        (M, "algorithm_compatibility.0 is 'rho1'", "did you mean"),
        meta(algorithm_compatibility=["rho1"]),
    ),
    refused(
        "an algorithm that was asked for and not declared",
        "IncompatibleModelError",
        (M, "algorithm_compatibility", "rho1-wmtp"),
        keywords={"algorithm": "rho1-wmtp"},
    ),
    refused(
        "a fingerprint of another tokenizer",
        "MetadataError",
        (M, "tokenizer.sha256", "abab"),
        _untrue_tokenizer,
        call="validate",
    ),
    refused("a digest of another file", "IntegrityError", ("config.json", "abab"), _untrue_digest, call="validate"),
    refused(
        "a digest for a file outside",
        "MetadataError",
        (M, "files.0.path", "'..'"),
        meta(files=[{"path": "../outside/x", "size": 1, "sha256": "0" * 64}]),
    ),
    refused(
        "sixty thousand unknown fields",
        "MetadataError",
        (M, "60,000 faults", "and 59,980 more"),
        meta(**{f"{n}": 0 for n in range(60_000)}),
    ),
    refused(
        "an unknown field with an endless name", "MetadataError", (M, "not a known field"), meta(**{"x" * 900_000: 0})
    ),
    refused(
        "fifty thousand required files",
        "NotFoundError",
        ("required files are missing", "'absent0'", "and 49,980 more"),
        strategy(required_files=[f"absent{n}" for n in range(50_000)]),
    ),
    refused(
        "a required file that is absent",
        "NotFoundError",
        ("metadata.json", "1 required files are missing: 'absent.json'", "required_files"),
        strategy(required_files=["config.json", "absent.json"]),
    ),
    refused(
        "a file named twice",
        "MetadataError",
        (M, "required_files", "'config.json'"),
        strategy(required_files=["config.json", "config.json"]),
    ),
    refused("nothing required", "MetadataError", (M, "loading_strategy.required_files"), strategy(required_files=[])),
    refused("no metadata", "NotFoundError", (M, "wmtp init"), file(M, None)),
    refused("metadata that is a list", "MetadataError", (M, "expected a JSON object"), file(M, b"[]")),
    refused("metadata that is empty", "MetadataError", M, file(M, b"")),
    refused("metadata that is another language", "MetadataError", M, file(M, b"wmtp_type: base_model\n")),
    refused(
        "two statements of one field",
        "MetadataError",
        (M, "wmtp_type", "twice"),
        file(M, b'{"wmtp_type": "base_model", "wmtp_type": "reward_model"}'),
    ),
]
