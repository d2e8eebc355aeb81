"""How the processes of one run find each other, and what is said while one of them waits for the others."""

from __future__ import annotations

import gc
import logging
import socket
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from torch._C._distributed_c10d import TCPStore
from torch.distributed import DistError
from torch.distributed.constants import default_pg_timeout

from wmtp.errors import TrainingError
from wmtp.run_plan.launch import Launch
from wmtp.untrusted import plain, show

logger = logging.getLogger("wmtp")

_SPEAKS_AFTER_SECONDS = 30.0
_PAUSE_SECONDS = 0.2
_HINT = (
    "start every process of the run with the same WORLD_SIZE, MASTER_ADDR and MASTER_PORT, and a RANK of its own;"
    " between machines, check that the port is open"
)


def join_processes(
    launch: Launch,
    device: str,
    *,
    speaks_after: float = _SPEAKS_AFTER_SECONDS,
    patience: float = default_pg_timeout.total_seconds(),
) -> None:
    """Wait until every process of a run is there, and make them one process group, which accelerate takes over.

    Torch waits for half an hour in silence. Here the log says what is missing, and torch's own patience is kept.

    Args:
        launch: The place of this process.
        device: `cuda` or `cpu`; decides how the processes talk.
        speaks_after: Seconds after which a warning says what is waited for.
        patience: Seconds after which the wait is an error.

    Raises:
        TrainingError: If they do not all come, or the address cannot be had.
    """
    if torch.distributed.is_initialized():
        return
    meeting = _Meeting(launch, time.monotonic() + patience, patience)
    with _speaking(speaks_after, meeting):
        # torchrun has brought its processes together itself, and its store outlives them: no numbers are kept in it.
        store = None if launch.agent_listens else meeting.gather()
        try:
            torch.distributed.init_process_group(
                "nccl" if device == "cuda" else "gloo",
                store=store,
                rank=launch.rank,
                world_size=launch.world_size,
                timeout=timedelta(seconds=patience),
            )
        except RuntimeError as error:
            raise meeting.failed(error) from error


def part_after(error: BaseException) -> None:
    """Leave the process group after a failure, without a word to processes that may be waiting in vain.

    What wraps the model, and is held by the frames of the error, keeps threads of gloo alive; they abort the process
    now and then when the interpreter takes itself apart under them.
    """
    if torch.distributed.is_initialized() and torch.distributed.get_backend() == "gloo":
        traceback.clear_frames(error.__traceback__)
        gc.collect()
        torch.distributed.destroy_process_group()


class _Meeting:
    """The wait for the other processes, and how far it is."""

    def __init__(self, launch: Launch, deadline: float, patience: float) -> None:
        self._launch, self._deadline, self._patience = launch, deadline, patience
        # The one that the others come to is there itself, whatever it has yet to begin.
        self._present = 1 if launch.rank == 0 else 0
        self._problem = "nothing answers there yet"

    @property
    def state(self) -> str:
        place, total = f"at {plain(self._launch.address)}:{self._launch.port}", self._launch.world_size
        if self._launch.agent_listens:
            return f"{place} for the {total} processes of torchrun"
        if self._present:
            return f"{place}: {self._present} of {total} processes are there"
        return f"{place} for the process with RANK 0 of {total}: {self._problem}"

    def failed(self, error: RuntimeError) -> TrainingError:
        first = str(error).partition("\n")[0]
        return TrainingError(
            f"the processes of this run cannot meet {self.state}: {show(first)}",
            hint="set MASTER_ADDR to the machine of RANK 0, and MASTER_PORT to a port that is free there",
        )

    def gather(self) -> TCPStore:
        """Return the store in which every process of the run has signed."""
        listens = self._launch.rank == 0
        if not listens:
            self._wait_for_answer()
        left = timedelta(seconds=max(1.0, self._deadline - time.monotonic()))
        try:
            store = TCPStore(
                self._launch.address,
                self._launch.port,
                is_master=listens,
                timeout=left,
                wait_for_workers=False,
                multi_tenant=listens,
            )
            self._wait_for_all(store)
        except DistError as error:
            raise self.failed(error) from error
        return store

    def _wait_for_answer(self) -> None:
        # By hand: torch's client cannot be interrupted while it tries, and fills stderr with what it tried.
        while True:
            try:
                socket.create_connection((self._launch.address, self._launch.port), timeout=5).close()
            except OSError as error:
                self._problem = str(error.strerror or error)
                self._pause()
            else:
                return

    def _wait_for_all(self, store: TCPStore) -> None:
        if store.add(f"wmtp/rank/{self._launch.rank}", 1) > 1:
            raise TrainingError(
                f"RANK is {self._launch.rank}, and another process of this run has that number already", hint=_HINT
            )
        self._present = store.add("wmtp/present", 1)
        while self._present < self._launch.world_size:
            self._pause()
            self._present = store.add("wmtp/present", 0)

    def _pause(self) -> None:
        if time.monotonic() > self._deadline:
            raise TrainingError(f"waited {self._patience:,.0f} s in vain {self.state}", hint=_HINT)
        time.sleep(_PAUSE_SECONDS)


@contextmanager
def _speaking(after: float, meeting: _Meeting) -> Iterator[None]:
    """Say once what is waited for, should it last."""
    timer = threading.Timer(after, lambda: logger.warning("waiting %s; %s", meeting.state, _HINT))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
