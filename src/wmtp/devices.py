"""On which device a model is put, and where and in which dtype a run trains: what is asked for, and what is there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from wmtp.errors import CheckpointError, TrainingError
from wmtp.faults import Fault
from wmtp.settings.config import Devices
from wmtp.untrusted import show

if TYPE_CHECKING:
    import torch

DType = Literal["auto", "float32", "bfloat16"]
_DEVICE, _DTYPE = ("devices", "device"), ("devices", "dtype")


def training_device(devices: Devices) -> str:
    """Return `cuda`, `mps` or `cpu`: what is configured, or with `auto` CUDA where there is one, else the CPU.

    Raises:
        TrainingError: If that device is not there, or a numbered one was asked for.
    """
    _raise_first([fault for fault in setting_faults(devices) if fault.path == _DEVICE])
    _raise_first(_missing_device(devices))
    return first_device(devices)


def training_dtype(devices: Devices) -> DType:
    """Return the dtype to load for training: what is configured; with `auto` as stored on CUDA, else float32.

    Off CUDA, bf16 saves little time, and its 8 bits lose most updates of a small learning rate.

    Raises:
        TrainingError: For float16, whose small range needs loss scaling that this version does not do.
    """
    _raise_first([fault for fault in setting_faults(devices) if fault.path == _DTYPE])
    if devices.dtype == "auto" and training_device(devices) != "cuda":
        return "float32"
    assert devices.dtype != "float16"
    return devices.dtype


def first_device(devices: Devices) -> str:
    """Return the kind of device that a run would take, whether or not it is there."""
    return chosen_device(devices.device).partition(":")[0]


def chosen_device(device: str) -> str:
    """Return a device as it is configured, and for `auto` CUDA where there is any, else the CPU."""
    return ("cuda" if _is_there("cuda") else "cpu") if device == "auto" else device


def check_device(device: str | torch.device) -> None:
    """Raise CheckpointError unless torch can put a model on that device."""
    import torch

    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise CheckpointError(f"device is {show(str(device))}", hint="use cpu, cuda, cuda:0 or mps") from error
    if not _is_there(kind):
        raise CheckpointError(
            f"device is {show(str(device))}, and torch {torch.__version__} finds none here",
            hint="use cpu, or install a build of torch for this device",
        )


def setting_faults(devices: Devices) -> list[Fault]:
    """Return which settings no machine can train with; torch is not imported for it."""
    faults = []
    if ":" in devices.device:
        number = devices.device.partition(":")[2]
        problem = f"is {devices.device!r}, and training takes the first device that it sees"
        hint = f"set devices.device: cuda and CUDA_VISIBLE_DEVICES={number} in the environment"
        faults.append(Fault(_DEVICE, problem, hint))
    if devices.dtype == "float16":
        problem = "is 'float16', whose gradients underflow to zero"
        faults.append(Fault(_DTYPE, problem, "set devices.dtype to bfloat16 or float32"))
    return faults


def machine_faults(devices: Devices) -> list[Fault]:
    """Return which of the settings this machine cannot train with."""
    if missing := _missing_device(devices):
        return missing
    device = first_device(devices)
    if devices.dtype != "bfloat16" or _computes_bfloat16(device):
        return []
    return [Fault(_DTYPE, f"is 'bfloat16', and {_name(device)} cannot compute in it", "set devices.dtype: float32")]


def num_devices(device: str) -> int:
    """Return how many devices of a kind torch finds on this machine; one CPU."""
    import torch

    return torch.cuda.device_count() if device == "cuda" else 1


def _missing_device(devices: Devices) -> list[Fault]:
    import torch

    kind = first_device(devices)
    if _is_there(kind):
        return []
    problem = f"is {devices.device!r}, and torch finds none"
    if kind == "cuda" and torch.version.cuda is None and torch.version.hip is None:
        problem += f" (torch {torch.__version__} is a build without CUDA)"
    return [Fault(_DEVICE, problem, "set devices.device: cpu")]


def _is_there(kind: str) -> bool:
    """Whether torch finds a device of a kind; of kinds that it cannot be asked about, using one tells."""
    import torch

    if kind == "cuda":
        return torch.cuda.is_available()
    return torch.backends.mps.is_available() if kind == "mps" else True


def _computes_bfloat16(device: str) -> bool:
    import torch

    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    try:
        torch.ones(1, dtype=torch.bfloat16, device=device).add(1)
    except (RuntimeError, TypeError):  # which of them depends on the device
        return False
    return True


def _name(device: str) -> str:
    import torch

    return torch.cuda.get_device_name() if device == "cuda" else f"the device {device!r}"


def _raise_first(faults: list[Fault]) -> None:
    for fault in faults:
        raise TrainingError(str(fault), hint=fault.hint)
