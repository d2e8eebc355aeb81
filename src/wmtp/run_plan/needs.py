"""What a run needs of the machine that it starts on: asked before a model or the data is read, all of it at once.

`wmtp plan`, `wmtp train --dry-run` and `wmtp train` ask here. Packages, settings and a launcher's variables are asked
by all of them, without torch. Whether a device is there, only torch can tell, and only on the machine that trains: a
plan, which may be made elsewhere, leaves that open and says so.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from wmtp.devices import first_device, machine_faults, num_devices, setting_faults
from wmtp.errors import TrainingError
from wmtp.extras import install_hint, is_installed
from wmtp.factory import ComponentFactory
from wmtp.faults import Fault
from wmtp.run_plan.launch import Launch, launch_faults, read_launch
from wmtp.settings.quantize import PACKAGES

if TYPE_CHECKING:
    from wmtp.settings.config import Config, Devices
    from wmtp.settings.recipe import Recipe

# What an optimizer needs beyond torch and transformers.
_OPTIMIZER_PACKAGES = {"adamw_bnb_8bit": "bitsandbytes"}


def require_needs(
    config: Config, recipe: Recipe, environment: Mapping[str, str] | None = None, *, trains_here: bool
) -> None:
    """Refuse a run whose needs are not met, naming every one that is not.

    Args:
        config: Device, dtype and trackers.
        recipe: Its optimizer.
        environment: Variables of this process; None: `os.environ`. Empty where a launcher will set its own.
        trains_here: Whether this machine is the one that trains, so that its devices are asked too; imports torch.

    Raises:
        TrainingError: If a package, a device, a precision or a launcher's variable is missing or does not fit.
    """
    environment = os.environ if environment is None else environment
    launched = launch_faults(environment)
    faults = [*setting_faults(config.devices), *_missing_packages(config, recipe), *launched]
    if trains_here:
        missing = machine_faults(config.devices)
        faults += missing
        if not missing and not launched:
            launch = read_launch(environment)
            faults += [*_place_faults(config.devices, launch), *_sharding_faults(recipe, environment)]
    _refuse(faults)


def require_scoring_needs(config: Config, recipe: Recipe, environment: Mapping[str, str] | None = None) -> None:
    """Refuse to score where the needs of that alone are not met; takes and raises what `require_needs` does."""
    environment = os.environ if environment is None else environment
    faults = launched = launch_faults(environment)
    if _scoring_roles(recipe):
        missing = machine_faults(config.devices)
        placed = [] if missing or launched else _place_faults(config.devices, read_launch(environment))
        faults = [*setting_faults(config.devices), *_missing_quantisers(config, recipe), *launched, *missing, *placed]
    _refuse(faults)


def _scoring_roles(recipe: Recipe) -> set[str]:
    """Return in which roles models score."""
    return {score.role for score in ComponentFactory.create_algorithm(recipe).scores if score.role is not None}


def _refuse(faults: list[Fault]) -> None:
    if len(faults) == 1:
        raise TrainingError(str(faults[0]), hint=faults[0].hint)
    if faults:
        listed = [f"{fault}; {fault.hint}" for fault in faults]
        raise TrainingError(
            f"{len(faults)} needs of this run are not met", hint="nothing was read yet: mend them all", faults=listed
        )


def open_questions(devices: Devices) -> list[str]:
    """Return what only the machine that trains can answer, a line each."""
    if not devices.device.startswith(("cuda", "mps")):
        return []
    precision = " and whether it computes in bfloat16" if devices.dtype == "bfloat16" else ""
    return [f"asked when training begins: whether torch finds a device {devices.device!r}{precision}"]


def _sharding_faults(recipe: Recipe, environment: Mapping[str, str]) -> Iterator[Fault]:
    will_be_set = not environment  # by a launcher that is still to come
    if recipe.train.sharding != "none" and not will_be_set and read_launch(environment) is None:
        problem = f"is {recipe.train.sharding!r}, and this process is alone: there is nobody to share with"
        hint = "start several with '-- --nproc-per-node 2', or set train.sharding: none"
        yield Fault(("train", "sharding"), problem, hint)


def _missing_packages(config: Config, recipe: Recipe) -> Iterator[Fault]:
    if not is_installed("accelerate"):  # transformers' Trainer asks for it, in words of its own
        yield Fault(("train",), "needs the package 'accelerate', and that is not installed", install_hint("train"))
    for tracker in dict.fromkeys(config.tracking.report_to):
        if not is_installed(tracker):
            extra, instead = ("train", "[]") if tracker == "tensorboard" else ("tracking", "[tensorboard]")
            hint = f"{install_hint(extra)}, or set tracking.report_to: {instead}"
            yield Fault(("tracking", "report_to"), f"names {tracker!r}, and that package is not installed", hint)
    optimizer = recipe.train.optim
    package = _OPTIMIZER_PACKAGES.get(optimizer)
    if package is not None and not is_installed(package):
        problem = f"is {optimizer!r}, which needs the package {package!r}, and that is not installed"
        hint = f"install it (python -m pip install {package}), or set train.optim: adamw_torch_fused"
        yield Fault(("train", "optim"), problem, hint)

    if recipe.train.trainable == "lora" and not is_installed("peft"):
        problem = "is 'lora', which needs the package 'peft', and that is not installed"
        hint = f"{install_hint('lora')}, or set train.trainable: all"
        yield Fault(("train", "trainable"), problem, hint)

    yield from _missing_quantisers(config, recipe)


def _missing_quantisers(config: Config, recipe: Recipe) -> Iterator[Fault]:
    roles = _scoring_roles(recipe)
    for role in ("ref", "rm"):
        bits = config.devices.quantize.of(role)
        if bits is not None and role in roles and not is_installed(PACKAGES[bits]):
            problem = f"is {bits!r}, which needs the package {PACKAGES[bits]!r}, and that is not installed"
            hint = f"{install_hint('quantize')}, or leave it out"
            yield Fault(("devices", "quantize", role), problem, hint)


def _place_faults(devices: Devices, launch: Launch | None) -> list[Fault]:
    """Return why a process of several would not get a device of its own."""
    device = first_device(devices)
    if launch is None or device == "cpu":
        return []
    if device == "mps":
        problem = f"is {launch.world_size}, and several processes train together on CUDA or on CPUs only"
        return [Fault(("WORLD_SIZE",), problem, "train in one process, or set devices.device: cpu")]
    if launch.local_rank is None:
        problem = "is not set, and it says which of this machine's devices is for this process"
        return [Fault(("LOCAL_RANK",), problem, "number the processes of each machine from 0, or start with torchrun")]
    if launch.local_rank >= (found := num_devices(device)):
        problem = f"is {launch.local_rank}, and torch finds {found} CUDA device(s) on this machine"
        return [Fault(("LOCAL_RANK",), problem, f"start at most {found} process(es) on it: --nproc-per-node {found}")]
    return []
