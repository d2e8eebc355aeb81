"""Parameters kept in shards, one a process: FSDP2 on a model that is in memory as its files are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Shard

from wmtp.load_plan.parameters import ParameterSlot, move_buffers, parameter_slots
from wmtp.models.units import sharding_units
from wmtp.models.value_heads import ValueHeads

_MASTER = torch.float32


@dataclass(frozen=True)
class ShardReport:
    """What one process keeps of a model.

    Attributes:
        rank: Its number, from 0.
        world_size: How many processes share the model.
        kept_bytes: Of its shards, as the files hold them: all that it reads of parameters that are pages of files.
        total_bytes: Of all parameters, as the files hold them.
        replicated_bytes: Of buffers, which every process has whole.
    """

    rank: int
    world_size: int
    kept_bytes: int
    total_bytes: int
    replicated_bytes: int

    def __str__(self) -> str:
        return (
            f"process {self.rank} of {self.world_size} keeps {self.kept_bytes:,} of the {self.total_bytes:,} bytes of"
            f" parameters, and {self.replicated_bytes:,} bytes of buffers"
        )


def is_sharded(model: nn.Module) -> bool:
    """Return whether a model's parameters are in shards."""
    return isinstance(model, FSDPModule)


def shard_model(model: nn.Module, device: torch.device, compute: torch.dtype) -> ShardReport:
    """Keep of every parameter the rows that are this process's, and gather it only while it is needed.

    Parameters that are pages of mapped files are read in those rows alone: the model is sharded without values, and
    then given the rows. They are kept in float32, in which small updates are not lost, and gathered in `compute`. Value
    heads compute in float32: it is small differences of values that are used.

    Args:
        model: What is trained, on the CPU, in the dtype of its files; changed in place.
        device: Where shards and buffers go. The processes have met.
        compute: In which trunk and prediction heads compute.

    Returns:
        What this process keeps.
    """
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    slots = [slot for _, slot in parameter_slots(model) if isinstance(slot.tensor, nn.Parameter)]
    values = [slot.tensor.detach() for slot in slots]
    _take_out_values(slots)
    move_buffers(model, device)
    _shard(model, mesh, compute)
    kept = _fill(slots, values, mesh, device)
    # What `Trainer` asks of a model: this one is neither to be moved nor to be wrapped.
    sharded: Any = model
    sharded.is_distributed_loading_by_transformers = True
    return ShardReport(
        rank=mesh.get_local_rank(),
        world_size=mesh.size(),
        kept_bytes=kept,
        total_bytes=sum({slot.tensor: value.nbytes for slot, value in zip(slots, values, strict=True)}.values()),
        replicated_bytes=sum(buffer.nbytes for buffer in model.buffers()),
    )


def shard_like(value: Tensor, like: Tensor) -> Tensor:
    """Return a tensor in shards where one of that shape is, with this process's rows alone; else as it is."""
    if not isinstance(like, DTensor) or value.shape != like.shape:
        return value
    local = _rows_of(value, like.device_mesh).to(like.device, copy=True)
    return DTensor.from_local(
        local, like.device_mesh, like.placements, run_check=False, shape=like.shape, stride=like.stride()
    )


def _take_out_values(slots: list[ParameterSlot]) -> None:
    """Leave parameters without values in a model; those that were one object stay one."""
    blanks: dict[Tensor, nn.Parameter] = {}
    for slot in slots:
        if (value := slot.tensor) not in blanks:
            empty = torch.empty_like(value, device="meta", dtype=_MASTER)
            blanks[value] = nn.Parameter(empty, requires_grad=value.requires_grad)
        slot.assign(blanks[value])


def _shard(model: nn.Module, mesh: DeviceMesh, compute: torch.dtype) -> None:
    exact = MixedPrecisionPolicy()
    policy = exact if compute == _MASTER else MixedPrecisionPolicy(param_dtype=compute, reduce_dtype=_MASTER)
    valued = {part for heads in model.modules() if isinstance(heads, ValueHeads) for part in heads.modules()}
    for unit in sharding_units(model):
        fully_shard(unit, mesh=mesh, mp_policy=exact if unit in valued else policy)
    # Let go after the forward pass too, as layers are: what stays whole after a validation is not told when parameters
    # are frozen or set free, and is of an earlier step when they are gathered.
    fully_shard(model, mesh=mesh, mp_policy=policy, reshard_after_forward=True)


def _fill(slots: list[ParameterSlot], values: list[Tensor], mesh: DeviceMesh, device: torch.device) -> int:
    """Give this process its rows of every parameter, and return how many bytes the files hold of them."""
    given: dict[Tensor, nn.Parameter] = {}
    num_bytes = 0
    for slot, value in zip(slots, values, strict=True):
        if (blank := slot.tensor) not in given:
            rows = _rows_of(value, mesh)
            num_bytes += rows.nbytes
            local = rows.to(device, _MASTER, copy=True)
            shape, stride = blank.shape, blank.stride()
            shard = DTensor.from_local(local, mesh, [Shard(0)], run_check=False, shape=shape, stride=stride)
            given[blank] = nn.Parameter(shard, requires_grad=blank.requires_grad)
        slot.assign(given[blank])
    return num_bytes


def _rows_of(value: Tensor, mesh: DeviceMesh) -> Tensor:
    """Return the rows of a process, as FSDP2 divides them: the last ones may have fewer, or none."""
    chunks = value.chunk(mesh.size())
    rank = mesh.get_local_rank()
    return chunks[rank] if rank < len(chunks) else value[:0]
