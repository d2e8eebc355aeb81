"""Parallel heads on the trunk's final hidden state, in the two forms in which servers read Medusa heads.

Medusa's head i (from 0) is head i + 2 of ours: it drafts the token after the one that the target itself predicts. A
head is residual blocks x + SiLU(W x + b), then an unembedding without bias. A `linear` head gets one block of zeros,
which changes nothing: every reader takes that, and not all take a head without a block.

Source: Cai et al. 2024 (arXiv 2401.10774); the layouts are those of github.com/FasterDecoding/Medusa and of vLLM 0.32,
`vllm/model_executor/models/medusa.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F  # noqa: N812 - the name that everyone knows it by
from torch import Tensor, nn

from wmtp.checkpoint.configuration import CONFIG_FILE
from wmtp.checkpoint.headers import SINGLE_FILE
from wmtp.errors import CheckpointError
from wmtp.loaders.base import LoadResult
from wmtp.models.heads import MTPConfig
from wmtp.models.mtp import MTPForCausalLM
from wmtp.models.resblock import ResBlockHead
from wmtp.publishing.exports.medusa_readers import REFERENCE_FILE, check_reference, check_vllm
from wmtp.publishing.exports.targets import Writer
from wmtp.publishing.write import RECEIPT_FILE, write_json, write_shard
from wmtp.untrusted import show

_PROBE_TOKENS = 8


@dataclass(frozen=True)
class MedusaHead:
    """One head: weight and bias of each block, and the weight of the unembedding."""

    blocks: list[tuple[Tensor, Tensor | None]]
    unembedding: Tensor

    def __call__(self, hidden: Tensor) -> Tensor:
        """Return the logits that a reader computes from the trunk's final hidden state."""
        for weight, bias in self.blocks:
            hidden = hidden + F.silu(F.linear(hidden, weight, bias))
        return F.linear(hidden, self.unembedding)


def prepare_vllm_medusa(loaded: LoadResult) -> Writer:
    """Return what writes the heads as vLLM reads them.

    Raises:
        CheckpointError: If these are no heads that Medusa has.
    """
    heads = medusa_heads(loaded)
    shared = MTPConfig.of(cast("MTPForCausalLM", loaded.model).config).shared_unembedding
    vocab_size, width = heads[0].unembedding.shape
    tensors = _vllm_tensors(heads, shared=shared)
    # Nothing of the trunk's configuration: vLLM takes any key with "num" and "heads" in it for the number of heads.
    config = {
        "model_type": "medusa",
        "architectures": ["MedusaModel"],
        "hidden_size": width,
        "vocab_size": vocab_size,
        "truncated_vocab_size": vocab_size,
        "num_heads": len(heads),
        "num_hidden_layers": len(heads[0].blocks),
        "medusa_fc_bias": heads[0].blocks[0][1] is not None,
        "original_lm_head": shared,
    }

    def write(directory: Path) -> None:
        _write(directory, loaded, config, SINGLE_FILE, tensors)
        check_vllm(directory)

    return write


def _vllm_tensors(heads: list[MedusaHead], *, shared: bool) -> dict[str, Tensor]:
    blocks = {
        f"blocks.{i}.layers.{j}.{name}": tensor
        for i, head in enumerate(heads)
        for j, block in enumerate(head.blocks)
        for name, tensor in zip(("weight", "bias"), block, strict=True)
        if tensor is not None
    }
    unembeddings = {f"lm_heads.{i}.weight": head.unembedding for i, head in enumerate(heads)}
    return blocks | ({"lm_head.weight": heads[0].unembedding} if shared else unembeddings)


def prepare_medusa(loaded: LoadResult) -> Writer:
    """Return what writes the heads as Medusa's own code, TGI and TensorRT-LLM read them.

    Raises:
        CheckpointError: If these are no heads that Medusa has.
    """
    heads = medusa_heads(loaded)
    tensors: dict[str, Tensor] = {}
    for i, head in enumerate(heads):
        for j, (weight, bias) in enumerate(head.blocks):
            tensors[f"{i}.{j}.linear.weight"] = weight
            tensors[f"{i}.{j}.linear.bias"] = weight.new_zeros(len(weight)) if bias is None else bias
        # Each head has one of its own here, and safetensors writes no tensor under two names.
        repeated = i > 0 and head.unembedding is heads[0].unembedding
        tensors[f"{i}.{len(head.blocks)}.weight"] = head.unembedding.clone() if repeated else head.unembedding
    # No "architectures": TGI would then take this for a model. The last three are for vLLM, which reads this form too.
    config = {
        "base_model_name_or_path": str(loaded.checkpoint.store.uri),
        "medusa_num_heads": len(heads),
        "medusa_num_layers": len(heads[0].blocks),
        "medusa_fc_bias": True,
        "hidden_size": heads[0].unembedding.shape[1],
        "vocab_size": heads[0].unembedding.shape[0],
    }

    def write(directory: Path) -> None:
        _write(directory, loaded, config, REFERENCE_FILE, tensors)
        check_reference(directory)

    return write


def _write(
    directory: Path, loaded: LoadResult, config: Mapping[str, Any], file: str, tensors: Mapping[str, Tensor]
) -> None:
    write_json(directory / CONFIG_FILE, config)
    write_shard(directory / file, tensors)
    (directory / RECEIPT_FILE).write_text(loaded.receipt.to_json(), encoding="utf-8")


def medusa_heads(loaded: LoadResult) -> list[MedusaHead]:
    """Return heads 2..H of a model as Medusa's heads 0..H-2, proven to have the logits of the model.

    Raises:
        CheckpointError: If they are none, of another kind, with a bias behind the blocks, or if something is done to
            their logits after the unembedding.
    """
    model, where = loaded.model, loaded.checkpoint.where
    if not isinstance(model, MTPForCausalLM):
        raise CheckpointError(
            f"{where}: loads as {type(model).__name__}, whose heads are not known",
            hint="export models of the built-in class MTPForCausalLM, as 'wmtp grow' makes them",
        )
    if model.head_type not in ("linear", "resblock"):
        raise CheckpointError(
            f"{where}: its heads are of the type {model.head_type!r}, which Medusa does not have",
            hint="grow and train heads of the type 'resblock' or 'linear' for Medusa; --to transformers writes head 1",
        )
    if model.num_heads < 2:
        raise CheckpointError(
            f"{where}: it has no head but the next-token head, which is the target's own",
            hint="'wmtp grow DIR DST --heads 4 --head-type resblock' adds heads, which then have to be trained",
        )
    heads = [_medusa_head(model, k, where) for k in range(2, model.num_heads + 1)]
    _check_logits(model, heads, loaded.checkpoint.config, where)
    return heads


def _medusa_head(model: MTPForCausalLM, k: int, where: str) -> MedusaHead:
    unembedding, bias = model.unembedding(k)
    if bias is not None:
        raise CheckpointError(
            f"{where}: the unembedding of head {k} has a bias, and Medusa's has none",
            hint="no reader of Medusa heads would add it; train heads on a trunk whose unembedding has no bias",
        )
    return MedusaHead(_blocks(model.heads[str(k)], unembedding), unembedding)


def _blocks(head: nn.Module, like: Tensor) -> list[tuple[Tensor, Tensor | None]]:
    if not isinstance(head, ResBlockHead):
        return [(like.new_zeros(like.shape[1], like.shape[1]), None)]
    linears: list[Any] = [block.linear for block in head.blocks]
    return [(linear.weight, linear.bias) for linear in linears]


@torch.no_grad()
def _check_logits(model: MTPForCausalLM, heads: list[MedusaHead], config: Mapping[str, Any], where: str) -> None:
    """Refuse a model that does more than a reader of its heads: a factor, a soft cap, or anything else."""
    ids = torch.arange(_PROBE_TOKENS, device=heads[0].unembedding.device).unsqueeze(0)
    hidden, _ = model.forward_heads(ids)
    logits = model(ids).logits
    for k, head in enumerate(heads, start=2):
        # Bit for bit: these are the same operations, and a soft cap changes small logits by very little.
        if not torch.equal(head(hidden), logits[:, :, k - 1]):
            named = ", ".join(f"{key} is {show(config[key])}" for key in sorted(config) if "logit" in key)
            raise CheckpointError(
                f"{where}: the logits of head {k} are not those of its blocks and unembedding alone"
                f"{f', and in config.json {named}' if named else ''}",
                hint="readers of Medusa heads apply no factor and no soft cap; export heads of a model without them",
            )
