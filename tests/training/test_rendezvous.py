"""Processes of a run that wait for each other: what is said, and how it ends."""

import logging
import socket
import subprocess
import sys

import pytest

from wmtp.errors import TrainingError
from wmtp.run_plan.launch import Launch
from wmtp.training.rendezvous import join_processes


def launch(port, rank, world_size=3):
    return Launch(rank, world_size, None, "127.0.0.1", port, agent_listens=False)


def test_the_first_process_says_how_many_have_come_and_gives_up(port, caplog):
    with (
        caplog.at_level(logging.WARNING, logger="wmtp"),
        pytest.raises(TrainingError, match=r"waited 1 s in vain .*: 1 of 3 processes are there") as refusal,
    ):
        join_processes(launch(port, 0), "cpu", speaks_after=0.05, patience=1.0)
    assert f"waiting at 127.0.0.1:{port}: 1 of 3 processes are there" in caplog.text
    assert "the same WORLD_SIZE, MASTER_ADDR and MASTER_PORT" in refusal.value.hint


def test_another_process_says_where_nobody_answers_and_gives_up(port, caplog):
    where = f"at 127.0.0.1:{port} for the process with RANK 0 of 3"
    with (
        caplog.at_level(logging.WARNING, logger="wmtp"),
        pytest.raises(TrainingError, match=f"waited 1 s in vain {where}: Connection refused"),
    ):
        join_processes(launch(port, 2), "cpu", speaks_after=0.5, patience=1.0)
    assert f"waiting {where}: " in caplog.text  # for what reason, it may be too early to say


def test_an_address_that_is_no_machine_is_named():
    nowhere = Launch(1, 2, None, "no-such-machine.invalid", 29500, agent_listens=False)
    with pytest.raises(TrainingError, match=r"at no-such-machine\.invalid:29500 for the process with RANK 0 of 2: "):
        join_processes(nowhere, "cpu", patience=0.3)


def test_a_port_that_is_taken_is_named():
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        number = taken.getsockname()[1]
        with pytest.raises(TrainingError, match=rf"cannot meet at 127\.0\.0\.1:{number}") as refusal:
            join_processes(launch(number, 0), "cpu", patience=2.0)
    assert "MASTER_PORT to a port that is free there" in refusal.value.hint


PROCESS = """
import sys
import torch
from wmtp.run_plan.launch import Launch
from wmtp.training.rendezvous import join_processes

rank, port = map(int, sys.argv[1:])
join_processes(Launch(rank, 2, None, "127.0.0.1", port, agent_listens=False), "cpu")
total = torch.ones(1) * (rank + 1)
torch.distributed.all_reduce(total)
print(int(total))
torch.distributed.destroy_process_group()
"""


def test_processes_that_come_in_any_order_form_a_group(port):
    command = [sys.executable, "-c", PROCESS]
    started = [subprocess.Popen([*command, str(rank), str(port)], stdout=subprocess.PIPE, text=True) for rank in (1, 0)]
    assert [process.communicate()[0].strip() for process in started] == ["3", "3"]
