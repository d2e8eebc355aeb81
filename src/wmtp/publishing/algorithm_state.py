"""What an algorithm keeps beside the weights: its running figures, and value heads where it has them.

Some of it belongs together with the weights: value heads without the normaliser of the rewards that they were fitted to
are as good as random ones. So all of it stands in one file, which is read whole or refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from wmtp.errors import CheckpointError
from wmtp.storage.store import Store
from wmtp.untrusted import first_few, show

if TYPE_CHECKING:
    from torch import Tensor

ALGORITHM_STATE_FILE = "algorithm_state.safetensors"
_FIGURES, _VALUE_HEAD = "algorithm.", "value_head."
_DTYPES = ("torch.float32", "torch.float64")
_MAX_BYTES = 1 << 30
_HINT = "take the file again from where the checkpoint was published, or train from a checkpoint without one"


def write_state(figures: Mapping[str, Tensor], value_heads: Mapping[str, Tensor]) -> bytes:
    """Return the content of the file; empty when there is nothing to keep.

    Args:
        figures: What `Algorithm.state` returned.
        value_heads: Their state dict; empty without them.
    """
    from safetensors.torch import save

    named = {_FIGURES + name: figure for name, figure in figures.items()}
    named |= {_VALUE_HEAD + name: tensor for name, tensor in value_heads.items()}
    return save({name: tensor.detach().cpu().contiguous() for name, tensor in named.items()}) if named else b""


def read_state(store: Store) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return running figures and value heads of a checkpoint.

    Raises:
        CheckpointError: If the file is malformed, holds something else, or a number in it is not finite.
    """
    where = store.where(ALGORITHM_STATE_FILE)
    tensors = _parse(store.read_bytes(ALGORITHM_STATE_FILE, max_bytes=_MAX_BYTES), where)
    unknown = [name for name in tensors if not name.startswith((_FIGURES, _VALUE_HEAD))]
    wrong = {name: str(tensor.dtype) for name, tensor in tensors.items() if str(tensor.dtype) not in _DTYPES}
    broken = [name for name, tensor in tensors.items() if name not in wrong and not bool(tensor.isfinite().all())]
    if unknown or wrong or broken:
        faults = [f"{show(name)} is neither a running figure nor of value heads" for name in unknown]
        faults += [f"{show(name)} is {dtype}, expected {' or '.join(_DTYPES)}" for name, dtype in wrong.items()]
        faults += [f"{show(name)} has a value that is not finite" for name in broken]
        raise CheckpointError(f"{where}: cannot be restored", hint=_HINT, faults=first_few(faults))
    return _below(tensors, _FIGURES), _below(tensors, _VALUE_HEAD)


def _parse(data: bytes, where: str) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(data)
    except SafetensorError as error:
        raise CheckpointError(f"{where}: not a safetensors file: {show(str(error))}", hint=_HINT) from error


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
