"""Fewer bits for a model that only scores, once it was filled and proven; layer by layer, so that a large one fits."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import nn

from wmtp.errors import IncompatibleModelError
from wmtp.settings.quantize import Bits

if TYPE_CHECKING:
    from bitsandbytes.nn.modules import Linear4bit

_IN_A_LAYER = re.compile(r"\.\d{1,6}\.")


@torch.no_grad()
def quantise(model: nn.Module, bits: Bits, device: str, where: str) -> nn.Module:
    """Put the weights of a loaded model's linear layers into fewer bits, in place, and the model on its device.

    Those of its numbered layers: embedding, unembedding, norms and what turns states into a reward stay as they are,
    being small, or read as a matrix. Each layer is on the device only once it is small; the rest follows.

    Args:
        model: On the CPU, in floating point.
        bits: `int8`: one scale for each row of a weight, by torchao. `nf4`: 4-bit normal floats in blocks of 64, by
            bitsandbytes (Dettmers et al. 2023, QLoRA, arXiv 2305.14314, section 3).
        device: Where it is to compute.
        where: Its address, for messages.

    Raises:
        IncompatibleModelError: If it has no such layers.
    """
    names = [name for name, _ in _layers(model)]
    if not names:
        raise IncompatibleModelError(
            f"{where}: {type(model).__name__} has no linear layers in numbered layers, which {bits} is for",
            hint="take the role out of devices.quantize",
        )
    model.requires_grad_(False)
    if bits == "int8":
        _to_int8(model, set(names), device)
    else:
        for name in names:
            parent, _, last = name.rpartition(".")
            setattr(model.get_submodule(parent), last, _four_bits(model.get_submodule(name), device))
    return model.to(device)


def _layers(model: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    for name, module in model.named_modules():
        # Exactly that class: another one may compute something else from its weight.
        if type(module) is nn.Linear and _IN_A_LAYER.search(name):
            yield name, module


def _to_int8(model: nn.Module, names: set[str], device: str) -> None:
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    def is_chosen(_: nn.Module, name: str) -> bool:
        return name in names

    quantize_(model, Int8WeightOnlyConfig(), filter_fn=is_chosen, device=torch.device(device))


def _four_bits(layer: nn.Module, device: str) -> Linear4bit:
    from bitsandbytes.nn.modules import Linear4bit, Params4bit

    assert isinstance(layer, nn.Linear)
    dtype, has_bias = layer.weight.dtype, layer.bias is not None
    made = Linear4bit(
        layer.in_features, layer.out_features, has_bias, compute_dtype=dtype, quant_type="nf4", device="meta"
    )
    made.weight = Params4bit(layer.weight.data, requires_grad=False, quant_type="nf4", module=made)
    made.bias = layer.bias
    return made.to(device)
