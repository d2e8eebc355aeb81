"""What each process of a run needs: memory, bytes to read, and how long loading and saving take at a bandwidth."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from wmtp.checkpoint.contents import Checkpoint
from wmtp.run_plan.activations import activations_of
from wmtp.run_plan.cost import optimizer_steps
from wmtp.run_plan.memory import FULL_BYTES, optimizer_bytes
from wmtp.run_plan.shapes import ModelShapes, Parameter
from wmtp.wording import counted, size

if TYPE_CHECKING:
    from wmtp.run_plan.data import DataEstimate
    from wmtp.run_plan.trained import TrainedParameters
    from wmtp.settings.recipe import Recipe

_AHEAD = 2  # units that are whole at a time: one that computes, and the next one, which is fetched meanwhile


@dataclass(frozen=True)
class Processes:
    """How many processes a run is to have.

    Attributes:
        world_size: In all.
        nodes: On how many machines, each with as many.
        bandwidth: Bytes a second that a machine reads and writes; None: not known.
    """

    world_size: int
    nodes: int = 1
    bandwidth: int | None = None


@dataclass(frozen=True)
class ScalePlan:
    """What each process of a run needs.

    Attributes:
        processes: How many there are.
        sharding: As the recipe has it.
        memory: Bytes of the process with most, by what they hold.
        read: Bytes of files that the process with most reads: `sharded`, what it keeps a share of; `replicated`, what
            every process reads whole; and `node`, what a machine reads.
        fetched: Bytes that each machine fetches from elsewhere before.
        checkpoint: Bytes of one with all that going on needs, by what they hold; and `written`, all that is written for
            it.
        seconds: To `load` and to `save`, at the bandwidth that was given; empty without one.
        steps: Optimizer steps of the run.
        step_rows: Rows of each, over all processes.
        row_tokens: About how many tokens of a row are not padding.
        notes: What is not counted.
    """

    processes: Processes
    sharding: str
    memory: dict[str, int]
    read: dict[str, int]
    fetched: int
    checkpoint: dict[str, int]
    seconds: dict[str, float]
    steps: int
    step_rows: int
    row_tokens: int
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as plain JSON values."""
        return {**asdict(self.processes), **{k: v for k, v in asdict(self).items() if k != "processes"}}

    def lines(self) -> Iterator[str]:
        """Yield the plan in lines for a person."""
        count, nodes = self.processes.world_size, counted(self.processes.nodes, "machine")
        how = "the model in shards" if self.sharding == "fsdp" else "the whole model in each"
        yield f"{count:,} process{'es' * (count > 1)} on {nodes}, {how}"
        yield f"  memory of a process: {size(sum(self.memory.values()))}"
        yield from (f"    {what.replace('_', ' ')}: {size(number)}" for what, number in self.memory.items() if number)
        own, shared, node = (size(self.read[what]) for what in ("sharded", "replicated", "node"))
        yield f"  read by a process: {own} as its share, {shared} as every other; by a machine: {node}"
        if self.fetched:
            yield f"  fetched by each machine, once: {size(self.fetched)}"
        kept = {what: number for what, number in self.checkpoint.items() if what != "written"}
        parts = ", ".join(f"{size(number)} of {what.replace('_', ' ')}" for what, number in kept.items() if number)
        yield f"  a checkpoint: {size(sum(kept.values()))} ({parts}); {size(self.checkpoint['written'])} written for it"
        if self.processes.bandwidth:
            load, save = self.seconds["load"], self.seconds["save"]
            yield f"  at {size(self.processes.bandwidth)} a second: {load:.1f} s to load, {save:.1f} s to save"
        rows = f"{self.step_rows:,} rows, {self.step_rows * self.row_tokens:,} tokens"
        yield f"  {self.steps} optimizer steps of {rows}"
        yield from (f"  {note}" for note in self.notes)


@dataclass(frozen=True)
class Counted:
    """What else of a run is known when its processes are planned.

    Attributes:
        width: Bytes of a value that the model computes with.
        trained: What is trained.
        data: About how much there is to train on.
        memory: On one device that has the whole model.
        others: Models beside the one that is trained.
    """

    width: int
    trained: TrainedParameters
    data: DataEstimate
    memory: Mapping[str, int]
    others: list[Checkpoint]


def scale_plan(recipe: Recipe, base: Checkpoint, found: Counted, processes: Processes) -> ScalePlan:
    """Return what each process of a run needs.

    Args:
        recipe: What is trained, and whether the model is in shards.
        base: The model that is trained: its headers and its mapping say which parameters there are.
        found: What the plan of the run says already.
        processes: How many there are to be.
    """
    shapes, is_sharded = ModelShapes.of(recipe, base), recipe.train.sharding == "fsdp"
    memory = (_sharded if is_sharded else _whole)(recipe, shapes, found, processes.world_size)
    activations = activations_of(recipe, base, shapes, found.width)
    notes = list(_made_notes(shapes)) if is_sharded else []
    if activations is None:
        notes.append("activations are not counted: config.json does not say how wide the model is")
    else:
        memory |= {"activations": activations.kept + activations.recomputed, "loss": activations.loss}
    read = _read(shapes, found.others, processes, is_sharded=is_sharded)
    checkpoint = _checkpoint(recipe, shapes, found, is_sharded=is_sharded)
    stores = [base, *found.others]
    fetched = sum(each.store.bytes_to_fetch({tensor.file for tensor in each.tensors}) for each in stores)
    seconds = {}
    if processes.bandwidth:
        # What is fetched is in memory yet when it is read.
        loaded = fetched or read["node"]
        seconds = {"load": loaded / processes.bandwidth, "save": checkpoint["written"] / processes.bandwidth}
    steps, rows = optimizer_steps(recipe, found.data, processes.world_size)
    return ScalePlan(
        processes=processes,
        sharding=recipe.train.sharding,
        memory=memory,
        read=read,
        fetched=fetched,
        checkpoint=checkpoint,
        seconds=seconds,
        steps=steps,
        step_rows=rows,
        row_tokens=found.data.row_tokens,
        notes=tuple(notes),
    )


def _whole(recipe: Recipe, shapes: ModelShapes, found: Counted, world_size: int) -> dict[str, int]:
    """Bytes of a process that has the whole model, and exchanges gradients."""
    adapters, trained = found.trained.adapters * FULL_BYTES, shapes.trained_count * found.width
    kept = optimizer_bytes(recipe, shapes.trained_count, found.width)
    return {
        "weights": shapes.count * found.width + adapters,
        "gradients": trained + adapters,
        "optimizer": kept + optimizer_bytes(recipe, found.trained.adapters, FULL_BYTES),
        # DistributedDataParallel adds gradients up in memory of its own.
        "exchange": trained + adapters if world_size > 1 else 0,
        "other_models": found.memory["other_models"],
        "value_head": found.memory["value_head"],
    }


def _sharded(recipe: Recipe, shapes: ModelShapes, found: Counted, world_size: int) -> dict[str, int]:
    """Bytes of a process that has a share of everything, in float32, and gathers what computes."""
    own = sum(each.share(world_size) for each in shapes.parameters)
    trained = sum(each.share(world_size) for each in shapes.trained())
    units = shapes.units()
    root, layers = units.pop(""), sorted(map(_size, units.values()), reverse=True)
    together = _size(root) + sum(layers[:_AHEAD])
    largest = max([_trained(root), *map(_trained, units.values())])
    return {
        "weights": own * FULL_BYTES,
        "gradients": trained * FULL_BYTES,
        "optimizer": optimizer_bytes(recipe, trained, FULL_BYTES),
        "gathered": together * found.width,
        # Gradients of what is whole, and the largest of them once more while it is summed, in float32.
        "exchange": (_trained(root) + max(map(_trained, units.values()), default=0)) * found.width
        + largest * FULL_BYTES,
        "other_models": found.memory["other_models"],
        "value_head": math.ceil(found.memory["value_head"] / world_size),
    }


def _read(shapes: ModelShapes, others: list[Checkpoint], processes: Processes, *, is_sharded: bool) -> dict[str, int]:
    """Bytes of files that processes read, where all share what is in the memory of their machine."""
    shared = [each for each in shapes.parameters if each.is_made or not is_sharded]
    cut = [each for each in shapes.parameters if is_sharded and not each.is_made]
    replicated = sum(each.stored_bytes for each in shared)
    replicated += sum(tensor.num_bytes for other in others for tensor in other.tensors)
    count = processes.world_size
    ranks = [sum(each.read_bytes(count, rank) for each in cut) for rank in range(count // processes.nodes)]
    return {"sharded": ranks[0], "replicated": replicated, "node": sum(ranks) + replicated}


def _checkpoint(recipe: Recipe, shapes: ModelShapes, found: Counted, *, is_sharded: bool) -> dict[str, int]:
    width = FULL_BYTES if is_sharded else found.width
    adapters = found.trained.adapters
    optimizer = optimizer_bytes(recipe, shapes.trained_count, width) + optimizer_bytes(recipe, adapters, FULL_BYTES)
    value_head = found.memory["value_head"] // 4  # in memory with its gradients and two moments
    own = adapters * FULL_BYTES + value_head
    saved = {
        "weights": shapes.count * found.width,
        "optimizer_state": optimizer + 2 * value_head if recipe.train.save_optimizer else 0,
        "adapters_and_value_heads": own,
    }
    # In shards everything is gathered into a file of its own first, from which the checkpoint is written.
    return {**saved, "written": sum(saved.values()) * (2 if is_sharded else 1)}


def _made_notes(shapes: ModelShapes) -> Iterator[str]:
    if made := [each for each in shapes.parameters if each.is_made]:
        num_bytes = size(sum(each.stored_bytes for each in made))
        yield f"while it loads, each process has {len(made):,} parameters whole that are made of several: {num_bytes}"


def _size(unit: list[Parameter]) -> int:
    return sum(each.count for each in unit)


def _trained(unit: list[Parameter]) -> int:
    return sum(each.count for each in unit if each.is_trained)
