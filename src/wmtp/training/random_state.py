"""Random numbers of a process: the generators of Python, numpy, torch and the device, taken down and put back."""

from __future__ import annotations

import random

import numpy as np
import torch

from wmtp.publishing.training_state import RandomNumbers

_PYTHON_VERSION, _NUMPY_KIND = 3, "MT19937"


def random_numbers(device: torch.device) -> RandomNumbers:
    """Return the generators of this process as they stand; `device` is where it trains."""
    _, words, gauss = random.getstate()
    _, keys, place, has_normal, normal = np.random.get_state(legacy=True)
    return RandomNumbers(
        python=list(words),
        python_gauss=gauss,
        numpy=[*keys.tolist(), int(place)],  # type: ignore[union-attr]
        numpy_gauss=float(normal) if has_normal else None,
        torch=_hex(torch.get_rng_state()),
        device=None if device.type == "cpu" else _hex(torch.get_device_module(device).get_rng_state(device)),
    )


def set_random_numbers(state: RandomNumbers, device: torch.device) -> None:
    """Put the generators of this process where `random_numbers` found them; those of another device stay."""
    random.setstate((_PYTHON_VERSION, tuple(state.python), state.python_gauss))
    *keys, place = state.numpy
    normal = state.numpy_gauss
    words = np.array(keys, dtype=np.uint32)
    np.random.set_state((_NUMPY_KIND, words, place, int(normal is not None), normal or 0.0))
    torch.set_rng_state(_tensor(state.torch))
    if device.type != "cpu" and state.device is not None:
        torch.get_device_module(device).set_rng_state(_tensor(state.device), device)


def _hex(state: torch.Tensor) -> str:
    return bytes(state.tolist()).hex()


def _tensor(text: str) -> torch.Tensor:
    return torch.tensor(list(bytes.fromhex(text)), dtype=torch.uint8)
