"""SIGTERM and SIGINT end a run after its step with a checkpoint; see tests/faults for a second one."""

import logging
import os
import signal

import pytest

import wmtp
from run_files import RunFiles
from wmtp.publishing.publish import is_complete
from wmtp.training.saved_steps import published_steps


class SignalAt(logging.Handler):
    """Sends this process a signal when a log line of that step comes."""

    def __init__(self, step, number):
        super().__init__()
        self.step, self.number, self.is_sent = step, number, False

    def emit(self, record):
        if record.getMessage().startswith(f"step {self.step} of") and not self.is_sent:
            self.is_sent = True  # validation has a line of its own
            os.kill(os.getpid(), self.number)


@pytest.fixture
def signal_at(caplog):
    logger, handlers = logging.getLogger("wmtp"), []

    def add(step, number):
        handlers.append(SignalAt(step, number))
        logger.addHandler(handlers[-1])

    with caplog.at_level(logging.INFO, logger="wmtp"):
        yield add
    for handler in handlers:
        logger.removeHandler(handler)


@pytest.mark.parametrize(
    ("number", "ending", "status"),
    [(signal.SIGTERM, SystemExit, 143), (signal.SIGINT, KeyboardInterrupt, "SIGINT")],
)
def test_a_signal_ends_a_run_after_its_step_with_a_checkpoint_and_a_line(
    tmp_path, signal_at, caplog, number, ending, status
):
    files = RunFiles(tmp_path, "baseline-mtp", train={"logging_steps": 1, "save_steps": 50})
    before = signal.getsignal(number)
    signal_at(2, number)
    with pytest.raises(ending) as ended:
        wmtp.train(*files.settings("run"))
    assert ended.value.args == (status,)
    assert signal.getsignal(number) is before
    step = files.run("run") / "step-3"
    assert published_steps(files.run("run")) == [step]
    assert is_complete(step)
    assert f"{number.name}: stopped after step 3; the same command with --resume goes on from {step}" in caplog.text
    assert wmtp.train(*files.settings("run"), resume=True).steps == 7


def test_a_run_that_is_asked_to_stop_in_its_last_step_is_finished(tmp_path, signal_at):
    files = RunFiles(tmp_path, "baseline-mtp", train={"logging_steps": 1, "max_steps": 3})
    signal_at(3, signal.SIGTERM)
    assert wmtp.train(*files.settings("run")).steps == 3
