"""Keys by which config.json and its companions could pick other code, kernels, weights or files; what to do then."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from wmtp.checkpoint.quantisation import LOADED_METHODS, quantisation_fault
from wmtp.errors import TrustError
from wmtp.untrusted import first_few, plain, show

# transformers takes each by several names, and the value may name a kernel to fetch from the Hub.
_KERNELS = (
    *("attn_implementation", "_attn_implementation", "_attn_implementation_internal"),
    *("experts_implementation", "_experts_implementation", "_experts_implementation_internal"),
)
_REFUSED_IF_TRUE = ("trust_remote_code", "use_pretrained_backbone", "use_timm_backbone")

_LOAD = "AutoModelForCausalLM.from_pretrained"
_DEQUANTIZE = f"model = {_LOAD}(...); model.dequantize(); model.save_pretrained(...)"
_NO_WAY_BACK = "take the checkpoint that it was quantised from"
# How transformers gives the plain weights back, by quant_method.
_PLAIN_WEIGHTS = {
    "bitsandbytes": _DEQUANTIZE,
    "higgs": _DEQUANTIZE,
    "fp8": f"{_LOAD}(..., quantization_config=FineGrainedFP8Config(dequantize=True)), then save_pretrained",
    "mxfp4": f"{_LOAD}(..., quantization_config=Mxfp4Config(dequantize=True)), then save_pretrained",
    "compressed-tensors": f"{_LOAD}(..., quantization_config=CompressedTensorsConfig(run_compressed=False)), then"
    " save_pretrained",
}
_REMOTE_CLASS = re.compile(r"(?:[^\s]+--)?([\w.]+)\.(\w+)")
_MAX_EXPLAINED = 5


@dataclass(frozen=True)
class KeyRules:
    """Which keys of one kind of file are refused.

    Attributes:
        refused: Matches them.
        about: What to do about some of them, given their value.
        otherwise: What to do about any other, given the key.
    """

    refused: re.Pattern[str]
    about: Mapping[str, Callable[[Any], str]]
    otherwise: Callable[[str], str]


def check_keys(where: str, document: dict[str, Any], rules: KeyRules) -> None:
    """Refuse a document with keys that a checkpoint may not set.

    Raises:
        TrustError: Naming each key and its value, what it asks for, and how to do without.
    """
    found = list(_refused_values(document, rules.refused))
    if found:
        listed = [f"{plain(path)} = {show(value)}" for path, value in found]
        raise TrustError(
            f"{where}: {', '.join(first_few(listed))}: a checkpoint may not set this", hint=_hints(found, rules)
        )


def _refused_values(value: Any, refused: re.Pattern[str], path: str = "") -> Iterator[tuple[str, Any]]:
    """Sub-models read the same keys from the objects inside, in lists as well."""
    if isinstance(value, list):
        for position, item in enumerate(value):
            yield from _refused_values(item, refused, f"{path}{position}.")
    elif isinstance(value, dict):
        for key, item in value.items():
            if (refused.fullmatch(key) and item is not None) or (key in _REFUSED_IF_TRUE and item):
                yield path + key, item
            else:
                yield from _refused_values(item, refused, f"{path}{key}.")


def _hints(found: list[tuple[str, Any]], rules: KeyRules) -> str:
    hints: dict[str, str] = {}
    for path, value in found[:_MAX_EXPLAINED]:
        key = path.rpartition(".")[2]
        hints.setdefault(_hint(key, value, rules), plain(key))
    return next(iter(hints)) if len(hints) == 1 else "; ".join(f"{key}: {hint}" for hint, key in hints.items())


def _hint(key: str, value: Any, rules: KeyRules) -> str:
    if key in _REFUSED_IF_TRUE:
        return "remove it from the file, or set it to false; consent is given by hash: 'wmtp trust'"
    return rules.about[key](value) if key in rules.about else rules.otherwise(key)


def _about_quantisation(value: Any) -> str:
    kind, bits = _kind_of_quantisation(value if isinstance(value, dict) else {})
    way = _PLAIN_WEIGHTS.get(kind)
    said = f"the weights are stored quantised: quant_method is {show(kind) if kind else 'missing'}{bits}"
    if kind in LOADED_METHODS and (fault := quantisation_fault(value)):
        said = f"{said}, where {fault}"
    plain_weights = f"write plain ones with transformers: {way}" if way else _NO_WAY_BACK
    return (
        f"{said}, and wmtp loads plain weights, FP8 by block and MXFP4; {plain_weights}. If the weights are plain"
        " already, remove quantization_config from the file"
    )


def _kind_of_quantisation(config: dict[str, Any]) -> tuple[str, str]:
    kind, bits = config.get("quant_method"), config.get("bits", config.get("w_bit"))
    for key in ("load_in_4bit", "load_in_8bit"):
        if config.get(key) is True:
            kind, bits = kind or "bitsandbytes", 4 if "4" in key else 8
    return (kind if isinstance(kind, str) else ""), f" with {bits} bits" if type(bits) is int and bits < 64 else ""


def _about_code(value: Any) -> str:
    modules = sorted(set(_remote_classes(value)))
    if not modules:
        return "remove auto_map; a class of the checkpoint is declared as custom_module_file in metadata.json"
    module, name = next((found for found in modules if "Config" not in found[1]), modules[0])
    return (
        f"auto_map names {_listed_classes(modules)}: to load it, remove auto_map and declare in metadata.json"
        f' "loader_type": "custom_mtp", "model_class_name": "{plain(name)}", "custom_module_file": "{_file(module)}"'
    )


def _about_tokenizer_code(value: Any) -> str:
    modules = sorted(set(_remote_classes(value)))
    names = f"auto_map names {_listed_classes(modules)}, and no" if modules else "no"
    return (
        f"{names} code is run for a tokenizer: save it once as a fast one (tokenizer.json, with tokenizer_class"
        " PreTrainedTokenizerFast) and remove auto_map"
    )


def _about_kernels(_: Any) -> str:
    return "remove it from the file; transformers picks an implementation that this machine has"


def _remote_classes(value: Any) -> Iterator[tuple[str, str]]:
    parts: Iterable[Any] = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for part in parts:
        if isinstance(part, str) and len(part) < 1024 and (named := _REMOTE_CLASS.fullmatch(part)):
            yield named[1], named[2]
        elif isinstance(part, list):
            yield from _remote_classes(part)


def _file(module: str) -> str:
    return f"{plain(module).replace('.', '/')}.py"


def _listed_classes(modules: list[tuple[str, str]]) -> str:
    return ", ".join(f"{plain(name)} of {_file(module)}" for module, name in modules[:_MAX_EXPLAINED])


# attribute_map gives any key another name.
IN_CONFIG = KeyRules(
    re.compile(
        "|".join(
            (
                "auto_map",
                "quantization_config",
                "attribute_map",
                "sub_configs",
                "backbone",
                r"__(?!float__)\w+__",
                *_KERNELS,
            )
        )
    ),
    {
        "quantization_config": _about_quantisation,
        "auto_map": _about_code,
        **dict.fromkeys(_KERNELS, _about_kernels),
    },
    lambda _: "remove it from the file; code is declared as custom_module_file in metadata.json",
)
IN_TOKENIZER_SETTINGS = KeyRules(
    re.compile(r"auto_map|source_spm|target_spm|(?!special_tokens_map_)\w+_files?"),
    {"auto_map": _about_tokenizer_code},
    lambda key: (
        f"remove {plain(key)} from the file; files of a tokenizer are found by their usual names beside it, such"
        " as tokenizer.json, tokenizer.model, vocab.json and merges.txt"
    ),
)
IN_GENERATION = KeyRules(
    re.compile("auto_map"), {}, lambda key: f"remove {plain(key)} from the file; settings of generation need no code"
)
