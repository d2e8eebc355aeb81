"""What a bug report should say about a machine, and nothing that should stay on it."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from wmtp.cli.output import table
from wmtp.extras import is_installed
from wmtp.untrusted import plain

_PACKAGES = (
    "wmtp", "torch", "transformers", "accelerate", "safetensors", "tokenizers", "numpy", "pydantic", "pydantic-core",
    "typer", "rich", "ruamel.yaml", "google-re2", "jaxtyping", "tensorboard", "mlflow-skinny", "wandb", "obstore",
    "botocore", "huggingface-hub", "datasets", "pyarrow",
)  # fmt: skip
_PREFIXES = (
    "AWS_", "HF_", "WMTP_", "XDG_", "CUDA_", "NVIDIA_", "NCCL_", "GLOO_", "TORCH", "PYTORCH_", "OMP_", "MKL_",
    "TOKENIZERS_", "TRANSFORMERS_", "ACCELERATE_", "FSDP_", "PYTHON", "VIRTUAL_ENV", "LOCAL_RANK", "RANK", "WORLD_SIZE",
    "MASTER_", "NO_COLOR", "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY",
)  # fmt: skip
# Values are shown of these only: numbers, switches and places. An address may carry a password, a token is one.
_SHOWN = (
    "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE", "CUDA_VISIBLE_DEVICES", "HF_HOME", "HF_HUB_OFFLINE",
    "LOCAL_RANK", "MASTER_PORT", "MKL_NUM_THREADS", "NO_COLOR", "OMP_NUM_THREADS", "PYTHONPATH",
    "PYTORCH_CUDA_ALLOC_CONF", "RANK", "TOKENIZERS_PARALLELISM", "TRANSFORMERS_OFFLINE", "VIRTUAL_ENV", "WMTP_CACHE",
    "WMTP_TRANSFER_TIMEOUT", "WORLD_SIZE", "XDG_CACHE_HOME", "XDG_CONFIG_HOME",
)  # fmt: skip


def describe_environment() -> dict[str, Any]:
    """Return versions, processors, devices and the environment variables that matter, as plain JSON values."""
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": {name: found for name in _PACKAGES if (found := _version(name)) is not None},
        "num_cpus": os.cpu_count(),
        "devices": _devices() if is_installed("torch") else [],
        "environment": {
            name: value if name in _SHOWN else "(set, not shown)"
            for name, value in sorted(os.environ.items())
            if name.startswith(_PREFIXES)
        },
    }


def environment_lines(facts: dict[str, Any]) -> Iterator[str]:
    """Yield what `describe_environment` returns in lines for a person."""
    yield from table([("python", facts["python"]), *facts["packages"].items()], ("PACKAGE", "VERSION"))
    yield ""
    yield f"system   {facts['system']}"
    yield f"cpus     {facts['num_cpus']}"
    none = "none but the CPU" if "torch" in facts["packages"] else "not known without torch"
    yield f"devices  {', '.join(map(plain, facts['devices'])) or none}"
    yield ""
    variables = [(plain(name), plain(value)) for name, value in facts["environment"].items()]
    yield from table(variables, ("VARIABLE", "VALUE"))


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _devices() -> list[str]:
    import torch

    devices = [f"cuda:{index} {torch.cuda.get_device_name(index)}" for index in range(torch.cuda.device_count())]
    return [*devices, *(["mps"] if torch.backends.mps.is_available() else [])]
