"""What exports of heads that stand side by side on the trunk ask of a model before anything else."""

from __future__ import annotations

from wmtp.errors import CheckpointError
from wmtp.loaders.base import LoadResult
from wmtp.models.mtp import MTPForCausalLM
from wmtp.models.native import NativeMTPForCausalLM

_GROWN = "'wmtp grow DIR DST --heads 4 --head-type {}' makes such heads on a plain model; they then have to be trained"


def model_with_heads(loaded: LoadResult, *types: str, reader: str) -> MTPForCausalLM:
    """Return a model whose heads are of one of these types.

    Args:
        loaded: The checkpoint.
        *types: Head types that the reader has, the one to grow for it first.
        reader: Whose they are, as a refusal says it.

    Raises:
        CheckpointError: If it has none, native ones, or those of another type; with what they can be exported to.
    """
    model, where = loaded.model, loaded.checkpoint.where
    grown = _GROWN.format(types[0])
    if isinstance(model, NativeMTPForCausalLM):
        raise CheckpointError(
            f"{where}: its heads are native modules, which run one after another, and {reader} has no such heads",
            hint="--to native writes them as the servers of their family read them",
        )
    if not isinstance(model, MTPForCausalLM):
        raise CheckpointError(
            f"{where}: loads as {type(model).__name__}, and {reader} reads heads of the class MTPForCausalLM",
            hint=grown,
        )
    if model.head_type not in types:
        raise CheckpointError(
            f"{where}: its heads are of the type {model.head_type!r}, which {reader} does not have",
            hint=f"{other_export(model.head_type)}; {grown}",
        )
    return model


def other_export(head_type: str) -> str:
    """Return what can be written of parallel heads of a type, or of their trunk, for other programs."""
    if head_type == "transformer":
        return "--to meta writes heads of the type 'transformer', on a llama; --to transformers the trunk alone"
    return f"--to vllm-medusa and --to medusa write heads of the type {head_type!r}"
