"""On which device, and in which dtype, a run computes: what config.yaml says, and what is there."""

from __future__ import annotations

from typing import Literal

import torch

from wmtp.errors import TrainingError
from wmtp.settings.config import Devices

DType = Literal["auto", "float32", "bfloat16"]


def training_device(devices: Devices) -> str:
    """Return `cuda`, `mps` or `cpu`: what is configured, or with `auto` CUDA where there is one, else the CPU.

    Raises:
        TrainingError: If that device is not there, or a numbered one was asked for.
    """
    device = devices.device
    if ":" in device:
        raise TrainingError(
            f"devices.device is {device!r}, and training takes the first device that it sees",
            hint=f"set devices.device: cuda and CUDA_VISIBLE_DEVICES={device.partition(':')[2]} in the environment",
        )
    is_there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not is_there.get(device, True):
        raise TrainingError(f"devices.device is {device!r}, and torch finds none", hint="set devices.device: cpu")
    return ("cuda" if is_there["cuda"] else "cpu") if device == "auto" else device


def training_dtype(devices: Devices) -> DType:
    """Return the dtype to load for training: what is configured; with `auto` as stored on CUDA, else float32.

    Off CUDA, bf16 saves little time, and its 8 bits lose most updates of a small learning rate.

    Raises:
        TrainingError: For float16, whose small range needs loss scaling that this version does not do.
    """
    if devices.dtype == "float16":
        raise TrainingError(
            "devices.dtype is 'float16', whose gradients underflow to zero",
            hint="set devices.dtype to bfloat16 or float32",
        )
    if devices.dtype == "auto" and training_device(devices) != "cuda":
        return "float32"
    return devices.dtype
