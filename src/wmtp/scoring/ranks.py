"""The processes of one run among which scoring is divided: each computes a share, and all get every figure."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor

from wmtp.errors import TrainingError, WmtpError

_T = TypeVar("_T")

# Figures that are exchanged at once: 64 MiB of a device's memory.
_CHUNK = 1 << 24
# Who waits for longer than the group's patience takes the others for dead.
_BEAT_SECONDS = 60.0


class Ranks:
    """What the processes of a run find out together; where there is no process group, the only one.

    Every method is called by all of them, in the same order.

    Attributes:
        rank: The number of this process, from 0.
        count: How many there are.
    """

    def __init__(self) -> None:
        is_joined = dist.is_available() and dist.is_initialized()
        self.rank = dist.get_rank() if is_joined else 0
        self.count = dist.get_world_size() if is_joined else 1

    @property
    def is_first(self) -> bool:
        """Whether this is the process that keeps figures on disk."""
        return self.rank == 0

    def total(self, values: Int[Tensor, "..."]) -> Int[Tensor, "..."]:
        """Return the sum over all processes.

        Raises:
            TrainingError: If one of them is no longer there.
        """
        if self.count == 1:
            return values
        shared = values.to("cuda" if dist.get_backend() == "nccl" else "cpu", copy=True)
        try:
            dist.all_reduce(shared)
        except RuntimeError as error:
            raise TrainingError(
                f"another process of this run ended while scores were computed: {str(error).partition(chr(10))[0]}",
                hint="what was wrong stands in its output; the same command goes on from the figures that are kept",
            ) from error
        return shared.to(values.device)

    def each(self, act: Callable[[], _T]) -> _T:
        """Do something, and return its answer once all processes have done it.

        Raises:
            WmtpError: What was raised here; on the others a TrainingError that points to this process.
        """
        if self.count == 1:
            return act()
        failure: WmtpError | OSError | None = None
        answer: Any = None
        try:
            answer = act()
        except (WmtpError, OSError) as error:
            failure = error
        failed = self._of_all(torch.tensor([failure is not None], dtype=torch.int32)).flatten().nonzero()
        if failure is not None:
            raise failure
        if len(failed):
            raise TrainingError(
                f"the process with RANK {int(failed[0])} could not compute its share of the scores, and this one ends"
                " with it",
                hint="what was wrong stands in the output of that process",
            )
        return answer

    def of_first(self, act: Callable[[], Float[Tensor, "figures"] | None]) -> Float[Tensor, "figures"] | None:
        """Return what the first process finds, on all of them; raises what `each` does."""
        found = self.each(lambda: act() if self.is_first else None)
        if self.count == 1:
            return found
        size = int(self.total(torch.tensor(0 if found is None else 1 + len(found)))) - 1
        if size < 0:
            return None
        return self.put_together(torch.zeros(size) if found is None else found)

    def put_together(self, figures: Float[Tensor, "figures"]) -> Float[Tensor, "figures"]:
        """Return the figures of all processes; each gives as many, with zeros in the places of the others."""
        # As whole numbers: the bits stay what they are, those of -0.0 too.
        parts = [self.total(part) for part in figures.contiguous().view(torch.int32).split(_CHUNK)]
        return torch.cat(parts).view(torch.float32) if parts else figures

    def require_same(self, facts: Mapping[str, Any]) -> None:
        """Raise TrainingError unless all processes score by the same model and on the same data.

        Args:
            facts: What figures depend on, by the same names everywhere.
        """
        digests = [hashlib.sha256(repr(value).encode()).digest()[:16] for value in facts.values()]
        found = self._of_all(torch.tensor([list(digest) for digest in digests], dtype=torch.int32))
        differs = (found != found[0]).any(dim=2)
        if differs.any():
            rank = int(differs.any(dim=1).nonzero()[0])
            names = [name for name, differ in zip(facts, differs[rank].tolist(), strict=True) if differ]
            raise TrainingError(
                f"the processes with RANK 0 and {rank} would compute different scores: {', '.join(names)} differ",
                hint="give every machine the same models, data and settings",
            )

    @contextmanager
    def turn(self, turn: Callable[[], AbstractContextManager[None]]) -> Iterator[None]:
        """Do what is in the block when it is the first process's turn among those of other runs."""
        with ExitStack() as stack:
            if self.count == 1:
                stack.enter_context(turn())
            else:
                self._wait_for(lambda: stack.enter_context(turn()) if self.is_first else None)
            yield

    def _wait_for(self, act: Callable[[], None]) -> None:
        with ThreadPoolExecutor(1) as pool:
            waiting: Future[None] = pool.submit(act)
            while int(self.total(torch.tensor(int(self._is_waiting(waiting))))):
                pass
            self.each(waiting.result)

    @staticmethod
    def _is_waiting(future: Future[None]) -> bool:
        return not wait([future], timeout=_BEAT_SECONDS).done

    def _of_all(self, values: Int[Tensor, "..."]) -> Int[Tensor, "rank ..."]:
        table = torch.zeros(self.count, *values.shape, dtype=values.dtype)
        table[self.rank] = values
        return self.total(table)
