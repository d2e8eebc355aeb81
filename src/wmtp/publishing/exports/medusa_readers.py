"""What readers of Medusa heads look for, by their own rules from config.json, held against what was written.

They say little by themselves: vLLM leaves an unembedding that it does not find as it was allocated, and skips tensors
that it does not know. So each export is read back by the rules of its readers before it gets its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open

from wmtp.checkpoint.configuration import CONFIG_FILE
from wmtp.checkpoint.headers import SINGLE_FILE
from wmtp.errors import CheckpointError
from wmtp.untrusted import first_few, parse_json_object

REFERENCE_FILE = "medusa_lm_head.safetensors"
Shapes = dict[str, tuple[int, ...]]


def check_vllm(directory: Path) -> None:
    """Read an export back as vLLM 0.32 does.

    Raises:
        CheckpointError: If a tensor lacks, is left over, or has another shape than vLLM allocates.
    """
    config = _as_vllm_reads(_read_config(directory))
    width, vocab_size = config["hidden_size"], config["truncated_vocab_size"]
    expected: Shapes = {}
    for i in range(config["num_heads"]):
        for j in range(config["num_hidden_layers"]):
            expected |= _linear(f"blocks.{i}.layers.{j}", width, bias=config["medusa_fc_bias"])
        expected[f"lm_heads.{i}.weight"] = (vocab_size, width)
    if config["original_lm_head"]:
        expected = {name: shape for name, shape in expected.items() if not name.startswith("lm_heads.")}
        expected["lm_head.weight"] = (vocab_size, width)
    _compare(directory / SINGLE_FILE, expected)


def check_reference(directory: Path) -> None:
    """Read an export back as Medusa's own code, TGI and TensorRT-LLM do.

    Raises:
        CheckpointError: If a tensor lacks, is left over, or has a shape that they do not expect, or if TGI would take
            the directory for a model.
    """
    config = _read_config(directory)
    if "architectures" in config:
        _refuse(directory / CONFIG_FILE, ["architectures is there, so that TGI takes it for a model"])
    width, num_layers = config["hidden_size"], config["medusa_num_layers"]
    expected: Shapes = {}
    for i in range(config["medusa_num_heads"]):
        for j in range(num_layers):
            expected |= _linear(f"{i}.{j}.linear", width, bias=True)
        expected[f"{i}.{num_layers}.weight"] = (config["vocab_size"], width)
    _compare(directory / REFERENCE_FILE, expected)


def _read_config(directory: Path) -> dict[str, Any]:
    return parse_json_object(
        (directory / CONFIG_FILE).read_bytes(), where=str(directory / CONFIG_FILE), error=CheckpointError
    )


def _as_vllm_reads(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of vLLM's MedusaConfig, with its defaults; any key with `num` and `heads` is their number."""
    found: dict[str, Any] = {"hidden_size": 4096, "medusa_fc_bias": False, "original_lm_head": False}
    for key, value in config.items():
        name = next((each for word, each in _RENAMED.items() if "num" in key and word in key), key)
        found[name] = value
    return found


_RENAMED = {"heads": "num_heads", "layers": "num_hidden_layers"}


def _linear(name: str, width: int, *, bias: bool) -> Shapes:
    return {f"{name}.weight": (width, width), **({f"{name}.bias": (width,)} if bias else {})}


def _compare(path: Path, expected: Shapes) -> None:
    with safe_open(path, framework="pt") as file:
        found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118  no mapping
    differing = [name for name in sorted({*found, *expected}) if found.get(name) != expected.get(name)]
    if differing:
        _refuse(path, [f"{name} is {found.get(name)}, read as {expected.get(name)}" for name in differing])


def _refuse(path: Path, faults: list[str]) -> None:
    raise CheckpointError(
        f"{path}: {len(faults)} of its parts are not what its readers look for",
        hint="this is a fault in wmtp: please report it with what 'wmtp env' prints",
        faults=first_few(faults),
    )
