"""torchrun, whose processes have said already what was wrong: of one that failed, a line in place of a traceback.

`python -m wmtp.cli.torchrun` takes what `python -m torch.distributed.run` takes.
"""

from __future__ import annotations

import logging
import signal
import sys
from typing import Any


def main() -> None:
    """Run torchrun; ends with the exit status of the process that failed first."""
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    # What it logs of a process that failed is what it raises.
    logging.getLogger("torch.distributed.elastic.multiprocessing.api").addFilter(_is_no_failure)
    try:
        torchrun()
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        sys.stderr.write(f"the process with RANK {rank} {_ended(failure.exitcode)}; what was wrong stands above\n")
        raise SystemExit(failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode) from None


def _ended(status: int) -> str:
    if status >= 0:
        return f"ended with exit status {status}"
    return f"was ended by {signal.Signals(-status).name}"


def _is_no_failure(record: Any) -> bool:
    return "Sending process" not in record.msg and "failed (exitcode" not in record.msg


if __name__ == "__main__":
    main()
