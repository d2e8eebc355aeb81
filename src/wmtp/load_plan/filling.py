"""Filling a built model with the tensors of a plan, and holding the model to them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import nn

from wmtp.errors import IntegrityError, TrustError
from wmtp.load_plan.parameters import TORCH_DTYPES, ParameterSlot, parameter_slots
from wmtp.load_plan.plan import Assignment
from wmtp.load_plan.share import Share
from wmtp.load_plan.weights import planned_values
from wmtp.storage.store import Store
from wmtp.untrusted import show, show_all

_logger = logging.getLogger(__name__)


def assign_tensors(
    slots: Mapping[str, ParameterSlot],
    assignments: Sequence[Assignment],
    store: Store,
    *,
    device: str | torch.device,
    mmap: bool,
    share: Share | None = None,
) -> dict[str, torch.Tensor]:
    """Carry out the assignments of a plan.

    Args:
        slots: Where the parameters of the model hang that the plan was made for, by name.
        assignments: Its plan.
        store: The checkpoint's files.
        device: Where parameters and buffers end up.
        mmap: Use the files' pages as the parameters' memory, where they have paths on this machine.
        share: Of the parameters that are put together in memory, only the rows of this process are read, and others may
            be zero; for models that are cut right afterwards. None: all of them are.

    Returns:
        What each parameter and buffer was given, by every name of it.

    Raises:
        IntegrityError: If what was read has another digest than it must, or a tied tensor differs from its twin.
    """
    _say_casts(store, assignments)
    if share is not None:
        share.whole.update(name for name, slot in slots.items() if not isinstance(slot.tensor, nn.Parameter))
    given: dict[str, torch.Tensor] = {}
    for assignment, value in proven_values(store, assignments, device=device, mmap=mmap, share=share):
        given |= _assign(slots, assignment, value)
    return given


def assign_blanks(
    slots: Mapping[str, ParameterSlot],
    assignments: Sequence[Assignment],
    store: Store,
    *,
    device: str | torch.device,
    mmap: bool,
) -> dict[str, torch.Tensor]:
    """Check what `assign_tensors` checks, and fill the model with stand-ins that take no memory.

    Tensors that stand once are not read: see `wmtp.comparison.deep.verify_bytes` for what only their bytes can say.
    Arguments, result and errors are those of `assign_tensors`.
    """
    twice = {frozenset(assignment.names) for assignment in assignments if assignment.repeats}
    compared = [assignment for assignment in assignments if frozenset(assignment.names) in twice]
    for _ in proven_values(store, compared, device="cpu", mmap=mmap):
        pass
    given: dict[str, torch.Tensor] = {}
    for assignment in assignments:
        if not assignment.repeats:
            blank = torch.empty((), dtype=TORCH_DTYPES[assignment.dtype], device=device)
            given |= _assign(slots, assignment, blank.expand(assignment.source.shape))
    return given


def proven_values(
    store: Store,
    assignments: Sequence[Assignment],
    *,
    device: str | torch.device,
    mmap: bool,
    share: Share | None = None,
) -> Iterator[tuple[Assignment, torch.Tensor]]:
    """Yield what `planned_values` yields, but second copies of tied tensors, which are compared with the first.

    Raises:
        IntegrityError: If what was read has another digest than it must, or a tied tensor differs from its twin.
    """
    twice = {frozenset(assignment.names) for assignment in assignments if assignment.repeats}
    first: dict[frozenset[str], torch.Tensor] = {}
    waiting: list[tuple[Assignment, torch.Tensor]] = []
    for assignment, value in planned_values(store, assignments, device=device, mmap=mmap, share=share):
        if assignment.repeats:
            waiting.append((assignment, value))
            continue
        if frozenset(assignment.names) in twice:
            first[frozenset(assignment.names)] = value
        yield assignment, value
    for assignment, value in waiting:
        _check_repeated(first[frozenset(assignment.names)], value, assignment)


def _say_casts(store: Store, assignments: Sequence[Assignment]) -> None:
    casts = Counter((a.source.dtype, a.dtype) for a in assignments if a.source.dtype != a.dtype)
    for (stored, loaded), count in casts.items():
        _logger.info("%s: %d tensors are cast from %s to %s", store.uri, count, stored, loaded)


def _assign(slots: Mapping[str, ParameterSlot], assignment: Assignment, value: torch.Tensor) -> dict[str, torch.Tensor]:
    first = slots[assignment.names[0]]
    first.assign(value)
    for name in assignment.names[1:]:
        slots[name].assign(first.tensor)
    return dict.fromkeys(assignment.names, value)


def assign_initial(
    slots: Mapping[str, ParameterSlot], initial: nn.Module, names: Sequence[str], *, device: str | torch.device
) -> dict[str, torch.Tensor]:
    """Give the named parameters, for which there is no tensor, the values of another model of the same class.

    Args:
        slots: Where the parameters of the model hang, by name.
        initial: A model as plain construction makes it.
        names: Which parameters.
        device: Where they end up.

    Returns:
        What each parameter and buffer was given, by every name of it.
    """
    values = dict(parameter_slots(initial))
    given: dict[str, torch.Tensor] = {}
    for name in names:
        blank, value = slots[name].tensor, values[name].tensor.detach().to(device)
        tied = [other for other, slot in slots.items() if slot.tensor is blank]
        slots[name].assign(value)
        for other in tied:
            slots[other].assign(slots[name].tensor)
        given |= dict.fromkeys(tied, value)
    return given


def verify_assigned(model: nn.Module, given: Mapping[str, torch.Tensor], *, where: str) -> None:
    """Raise TrustError unless a model holds exactly what it was given.

    Code that the operator agreed to can give its class other ways to store and show parameters.

    Args:
        model: The model.
        given: What `assign_tensors` returned, and initial values that a plan let through.
        where: The file that the class is built from, as errors show it.
    """
    held = {name: slot.tensor for name, slot in parameter_slots(model)}
    changed = [name for name in held.keys() | given.keys() if not _is_same(held.get(name), given.get(name))]
    if changed:
        raise TrustError(
            f"{where}: the model does not hold the weights that it was given: {', '.join(show_all(sorted(changed)))}",
            hint="the class changes its own parameters: look at what it does with them, or do not use it",
        )


def _is_same(held: torch.Tensor | None, given: torch.Tensor | None) -> bool:
    if held is None or given is None:
        return False
    return (held.data_ptr(), held.shape, held.dtype) == (given.data_ptr(), given.shape, given.dtype)


def _check_repeated(kept: torch.Tensor, repeated: torch.Tensor, assignment: Assignment) -> None:
    # Bits as well: NaN is not equal to itself.
    if not torch.equal(kept, repeated) and not torch.equal(_bits(kept), _bits(repeated)):
        file, name = show(assignment.tensors[0].file), show(assignment.source.name)
        raise IntegrityError(
            f"{file}: {name} differs from the tensor that the model ties it to",
            hint='if the two are meant to differ, set "tie_word_embeddings": false in config.json',
        )


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().reshape(-1).view(torch.uint8)
