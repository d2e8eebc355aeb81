"""torchrun, whose processes have said already what was wrong: of one that failed, a line in place of a traceback.

`python -m wmtp.cli.torchrun` takes what `python -m torch.distributed.run` takes.
"""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Sequence
from typing import Any

_HINT = "see 'python -m torch.distributed.run --help' for what may stand behind '--'"


def main(options: Sequence[str]) -> None:
    """Run torchrun; ends with the exit status of the process that failed first, or of the signal that ended it all."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous import RendezvousError
    from torch.distributed.run import main as torchrun

    if not any(option.replace("_", "-").startswith("--max-restarts") for option in options):
        # With one attempt alone it logs what it then raises.
        logging.getLogger("torch.distributed.elastic.multiprocessing.api").addFilter(_is_news)
    try:
        torchrun(list(options))
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        sys.stderr.write(f"the process with RANK {rank} {_ended(failure.exitcode)}\n")
        raise SystemExit(failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode) from None
    except SignalException as error:
        raise SystemExit(128 + int(error.sigval)) from None
    except (RendezvousError, RuntimeError, ValueError) as error:
        sys.stderr.write(f"error: torchrun: {str(error).partition(chr(10))[0]}\nhint: {_HINT}\n")
        raise SystemExit(1) from None


def _ended(status: int) -> str:
    if status >= 0:
        return f"ended with exit status {status}; what was wrong stands above"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    return f"was ended by {name}" + ("; most often for want of memory: 'dmesg' tells" if name == "SIGKILL" else "")


def _is_news(record: Any) -> bool:
    said = record.getMessage()
    return "Sending process" not in said and "failed (exitcode" not in said


if __name__ == "__main__":
    main(sys.argv[1:])
