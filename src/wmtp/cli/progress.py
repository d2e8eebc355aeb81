"""A bar on the terminal for what is being transferred."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from wmtp.storage.progress import Transfer


class TransferBars:
    """Draws one bar for each transfer on stderr, and takes it away when the transfer is over.

    Where stderr is no terminal nothing is drawn, and `is_wanted` says so.
    """

    def __init__(self) -> None:
        self._bars: Progress | None = None
        self._tasks: dict[int, TaskID] = {}

    @staticmethod
    def is_wanted() -> bool:
        """Say whether somebody can see a bar."""
        return sys.stderr.isatty()

    def __call__(self, transfer: Transfer) -> None:
        """Show how far a transfer is."""
        bars, key = self._started(), id(transfer)
        if key not in self._tasks:
            self._tasks[key] = bars.add_task(transfer.what, total=transfer.num_bytes or None)
        bars.update(self._tasks[key], completed=transfer.num_done)
        if transfer.is_over:
            bars.remove_task(self._tasks.pop(key))
            if not self._tasks:
                bars.stop()
                self._bars = None

    def _started(self) -> Progress:
        if self._bars is None:
            # rich takes 0.1 s to import, which commands that transfer nothing need not wait for.
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                DownloadColumn,
                Progress,
                TextColumn,
                TimeRemainingColumn,
                TransferSpeedColumn,
            )

            columns = (DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
            text = TextColumn("{task.description}", markup=False)
            self._bars = Progress(text, BarColumn(), *columns, console=Console(stderr=True), transient=True)
            self._bars.start()
        return self._bars
