"""Packages that `pip install wmtp` does not bring, the extra that brings each, and what to say to whoever lacks one.

The base reads, lists, compares, locks and moves checkpoints. What computes with weights needs more, and is imported
where it is used: `pyproject.toml` has the same table as extras, and a contract test holds the two together.
"""

from __future__ import annotations

from importlib.util import find_spec

from wmtp.errors import MissingPackageError

# Modules as they are imported, by the extra that brings them.
EXTRAS = {
    "torch": ("jaxtyping", "numpy", "safetensors", "tokenizers", "torch", "transformers"),
    "train": ("accelerate", "datasets", "pyarrow", "tensorboard"),
    "s3": ("botocore",),
    "gguf": ("gguf",),
    "lora": ("peft",),
    "quantize": ("torchao", "bitsandbytes"),
    "signing": ("model_signing", "OpenSSL"),
    "tracking": ("alembic", "mlflow", "sqlalchemy", "trackio", "wandb"),
}
_EXTRA_OF = {package: extra for extra, packages in EXTRAS.items() for package in packages}


def is_installed(package: str) -> bool:
    """Return whether a package could be imported; imports nothing."""
    spec = find_spec(package)
    # A directory that merely has the name, such as the wandb/ that an earlier run left here, has no origin.
    return spec is not None and spec.origin is not None


def install_hint(extra: str) -> str:
    """Return the next step for someone who lacks what an extra brings."""
    return f"install it (python -m pip install 'wmtp[{extra}]')"


def require_package(package: str) -> None:
    """Raise MissingPackageError unless a package of an extra is installed; imports nothing.

    For what others would ask for later and in words of their own, or after a package of a smaller extra.
    """
    if not is_installed(package):
        raise _missing(package)


def refuse_missing(error: BaseException) -> None:
    """Raise MissingPackageError if what could not be imported is a package of an extra; else return."""
    # A module that is missing within a package which is there is no reason to install that package.
    if isinstance(error, ModuleNotFoundError) and error.name in _EXTRA_OF:
        raise _missing(error.name) from error


def _missing(package: str) -> MissingPackageError:
    problem = f"this needs the package {package!r}, which is not installed"
    return MissingPackageError(problem, hint=install_hint(_EXTRA_OF[package]))
