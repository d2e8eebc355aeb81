"""`quantization_config` of config.json, as far as wmtp loads what it describes: FP8 by block, and MXFP4."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from wmtp.untrusted import plain, show

FIELD = "quantization_config"
_MAX_BLOCK = 1 << 20
_ANYTHING = object()  # what says how a server computes, and nothing of what is stored
# By quant_method: the fields that it may have, and the values that each may have.
_FIELDS: dict[str, dict[str, Any]] = {
    "fp8": {
        "fmt": ("e4m3", None),
        "activation_scheme": ("dynamic", None),
        "scale_fmt": ("ue8m0", "float", None),
        "weight_block_size": _ANYTHING,
        "modules_to_not_convert": _ANYTHING,
        "ignored_layers": _ANYTHING,
        "dequantize": _ANYTHING,
    },
    "mxfp4": {"modules_to_not_convert": _ANYTHING, "dequantize": _ANYTHING},
}
_KINDS = {"fp8": "fp8_block", "mxfp4": "mxfp4"}
_ENDINGS = {"fp8_block": ("", "_scale_inv"), "mxfp4": ("_blocks", "_scales")}


@dataclass(frozen=True)
class Quantisation:
    """How weights are stored in fewer bits.

    Attributes:
        kind: As `dequantise` in metadata.json names it: `fp8_block` or `mxfp4`.
        block: Rows and columns that have one scale; None where the kind says it.
    """

    kind: str
    block: tuple[int, int] | None

    @property
    def endings(self) -> tuple[str, str]:
        """What names of values and of scales have behind the name that the plain tensor would have."""
        return _ENDINGS[self.kind]


def quantisation_of(config: dict[str, Any]) -> Quantisation | None:
    """Return how a checkpoint's weights are stored in fewer bits; None where they are plain, or of another kind."""
    found = config.get(FIELD)
    if not isinstance(found, dict) or quantisation_fault(found) is not None:
        return None
    kind = _KINDS[found["quant_method"]]
    if kind != "fp8_block":
        return Quantisation(kind, None)
    rows, columns = found["weight_block_size"]
    return Quantisation(kind, (rows, columns))


def without_quantisation(config: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration without the field that says how weights are stored, where it is one of the known kinds."""
    if quantisation_of(config) is None:
        return config
    return {key: value for key, value in config.items() if key != FIELD}


def quantisation_fault(found: dict[str, Any]) -> str | None:
    """Say what in a `quantization_config` is of no kind that is known here, or return None."""
    method = found.get("quant_method")
    if not isinstance(method, str) or method not in _FIELDS:
        return f"quant_method is {show(method)}"
    for key, value in found.items():
        allowed = _FIELDS[method].get(key, ())
        if key != "quant_method" and allowed is not _ANYTHING and value not in allowed:
            return f"{plain(key)} is {show(value)}"
    block = found.get("weight_block_size")
    if method == "fp8" and not (isinstance(block, list) and len(block) == 2 and all(map(_is_size, block))):
        return f"weight_block_size is {show(block)}"
    return None


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 < value <= _MAX_BLOCK
