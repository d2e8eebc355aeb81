"""Would vLLM load a directory of Medusa heads as it is meant? From config.json and headers alone.

vLLM skips tensors that it does not know and starts without unembeddings that are absent, both without a word; what it
does not find in config.json it takes from the defaults of its own class.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from wmtp.checkpoint.configuration import CONFIG_FILE
from wmtp.checkpoint.tensors import TensorInfo
from wmtp.serving.counts import whole_number
from wmtp.serving.programs import Evidence, Program
from wmtp.serving.table import VLLM
from wmtp.serving.verdict import MEDUSA, Obstacle, Verdict
from wmtp.untrusted import MAX_SHOWN, show, show_all

_DEFAULTS = {"hidden_size": 4096, "vocab_size": 32001, "num_heads": 5, "num_hidden_layers": 1}
_BLOCK = re.compile(r"blocks\.(0|[1-9][0-9]*)\.layers\.(0|[1-9][0-9]*)\.(weight|bias)")
_HEAD = re.compile(r"lm_heads\.(0|[1-9][0-9]*)\.weight")
_EXPORT = "write it anew with what these heads were trained as: wmtp export SRC DST --to vllm-medusa"
Shapes = dict[str, tuple[int, ...]]


def reference_obstacle(config: Mapping[str, Any]) -> Obstacle | None:
    """Return what stands in the way of heads in the reference's own form, which TGI and TensorRT-LLM read."""
    if config.get("model_type") == "medusa" or "medusa_num_heads" not in config:
        return None
    problem = f"medusa_num_heads is {show(config['medusa_num_heads'])}: these are Medusa heads in the reference's form"
    return Obstacle(CONFIG_FILE, problem, f"{VLLM.label} reads another: {_EXPORT}")


def no_medusa(program: Program) -> Obstacle:
    """Return what stands in the way of Medusa heads in a program that has none."""
    problem = f"model_type is 'medusa': {program.label} has no Medusa heads"
    return Obstacle(CONFIG_FILE, problem, f"serve them with {VLLM.label}")


def medusa_obstacles(config: Mapping[str, Any], tensors: Sequence[TensorInfo], weights: str) -> list[Obstacle]:
    """Return everything by which vLLM would not draft with these heads as they were trained."""
    if fields := [*_clashing(config), *_class(config), *_fields(config)]:
        return fields  # the tensors are held to them
    # vLLM takes this beginning away.
    shapes = {tensor.name.replace("medusa_heads.", ""): tensor.shape for tensor in tensors}
    return [
        Obstacle(weights, problem, hint)
        for problem, hint in [*_blocks(config, shapes), *_heads(config, shapes), *_unknown(config, shapes)]
    ]


def medusa_verdict(config: Mapping[str, Any], where: str) -> Verdict:
    """Return what vLLM does with Medusa heads in whose way nothing stands."""
    count = config["num_heads"]
    command = (
        f'vllm serve TARGET --speculative-config \'{{"method": "medusa", "model": "{where}",'
        f' "num_speculative_tokens": {count}}}\''
    )
    notes = (
        "note: a vision-language target needs a vocab_size at the top level of its config.json",
        "note: which target they were trained on does not stand in the files",
    )
    conventions = {"hidden": "after the final norm", "order": None, "zeroes_first": None}
    return Verdict(VLLM, MEDUSA, count, Evidence.SEEN, conventions, notes, command)


def _clashing(config: Mapping[str, Any]) -> Iterator[Obstacle]:
    """Yield keys of a trunk: of all keys with `num` and `heads` in them, the last one becomes the number of heads."""
    for part, meant in (("heads", "num_heads"), ("layers", "num_hidden_layers")):
        clashing = [key for key in config if "num" in key and part in key and key != meant]
        if clashing:
            problem = f"{', '.join(show_all(clashing))} would become {meant}: {VLLM.label} takes any key with 'num' and"
            yield Obstacle(CONFIG_FILE, f"{problem} '{part}' in it for that", "take the keys of the trunk out")


def _class(config: Mapping[str, Any]) -> Iterator[Obstacle]:
    if config.get("model_type") != "medusa":
        yield Obstacle(CONFIG_FILE, f"model_type is {show(config.get('model_type'))}", "set it to 'medusa'")
    if config.get("architectures", ["MedusaModel"]) != ["MedusaModel"]:
        problem = f"architectures is {show(config['architectures'])}"
        yield Obstacle(CONFIG_FILE, problem, "set it to ['MedusaModel']")


def _fields(config: Mapping[str, Any]) -> Iterator[Obstacle]:
    for key, default in _DEFAULTS.items():
        if config.get(key) is None:
            yield Obstacle(CONFIG_FILE, f"{key} is missing, and {VLLM.label} takes {default} for it", f"set {key}")
    for key in (*_DEFAULTS, "truncated_vocab_size"):
        if config.get(key) is not None and whole_number(config[key]) is None:
            yield Obstacle(CONFIG_FILE, f"{key} is {show(config[key])}, not a whole number above 0", f"set {key}")
    for key in ("medusa_fc_bias", "original_lm_head"):
        if not isinstance(config.get(key, False), bool):
            yield Obstacle(CONFIG_FILE, f"{key} is {show(config[key])}, not true or false", f"set {key}")


def _blocks(config: Mapping[str, Any], shapes: Shapes) -> Iterator[tuple[str, str]]:
    count, num_layers, width = config["num_heads"], config["num_hidden_layers"], config["hidden_size"]
    parts = ("weight", "bias") if config.get("medusa_fc_bias") else ("weight",)
    found = {name: match for name in shapes if (match := _BLOCK.fullmatch(name))}
    heads = {int(match[1]) for match in found.values()}
    if heads != set(range(min(count, len(shapes) + 1))):
        problem = f"num_heads is {show(count)}, and the tensors hold blocks of {len(heads)} heads"
        yield (
            problem,
            "keep every block, the all-zero ones of linear heads too: an absent one is refused, as is a wrong count",
        )
        return
    needed = (
        f"blocks.{head}.layers.{layer}.{part}"
        for head in sorted(heads)
        for layer in range(num_layers)
        for part in parts
    )
    # A hostile count asks for any number of them: no more are looked for than are shown.
    if lacking := list(islice((name for name in needed if name not in shapes), MAX_SHOWN)):
        yield (
            f"{', '.join(show_all(lacking))} missing: {VLLM.label} refuses to load",
            "keep every block, all-zero ones too",
        )
    for name, match in found.items():
        wanted = (width, width) if match[3] == "weight" else (width,)
        if shapes[name] != wanted:
            yield f"{show(name)} has the shape {list(shapes[name])}, and hidden_size is {show(width)}", _EXPORT


def _heads(config: Mapping[str, Any], shapes: Shapes) -> Iterator[tuple[str, str]]:
    vocab_size = config["vocab_size"]
    truncated = config.get("truncated_vocab_size") or vocab_size
    if config.get("original_lm_head"):
        wanted = ["lm_head.weight" if "lm_head.weight" in shapes else "lm_heads.0.weight"]
    else:
        wanted = [f"lm_heads.{head}.weight" for head in range(min(config["num_heads"], len(shapes) + 1))]
    if lacking := [name for name in wanted if name not in shapes]:
        problem = f"{', '.join(show_all(lacking))} missing: {VLLM.label} starts without a word"
        yield f"{problem}, and no draft of it is accepted", "an unembedding for each head, or original_lm_head and one"
    for name in wanted:
        shape = shapes.get(name)
        if shape not in (None, (truncated, config["hidden_size"]), (vocab_size, config["hidden_size"])):
            sizes = f"vocab_size is {show(vocab_size)}, hidden_size is {show(config['hidden_size'])}"
            yield f"{show(name)} has the shape {list(shape)}, and {sizes}", _EXPORT
    if truncated != vocab_size and shapes.get("token_map") != (truncated,):
        problem = f"truncated_vocab_size is {show(truncated)}, and no token_map has that many tokens"
        yield problem, "write the token_map of the tokens that are drafted, or set it to vocab_size"


def _unknown(config: Mapping[str, Any], shapes: Shapes) -> Iterator[tuple[str, str]]:
    """Yield what would be skipped in silence: it was trained for nothing."""
    known = {"token_map", "lm_head.weight"} if config.get("original_lm_head") else {"token_map"}
    skipped = [name for name in shapes if not (name in known or _BLOCK.fullmatch(name) or _HEAD.fullmatch(name))]
    if not config.get("medusa_fc_bias"):
        skipped += [name for name in shapes if (match := _BLOCK.fullmatch(name)) and match[3] == "bias"]
    if skipped:
        problem = f"{', '.join(show_all(sorted(skipped)))}: {VLLM.label} skips them without a word"
        yield (
            problem,
            "a bias of a block needs medusa_fc_bias, and heads have none; take out what is not of these heads",
        )
