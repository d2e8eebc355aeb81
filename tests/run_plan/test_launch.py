"""Which variables of a launcher fit together, and what is said of those that do not."""

import pytest

from wmtp.run_plan.launch import launch_faults, read_launch

WHOLE = {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "host", "MASTER_PORT": "29500"}


def said(environment):
    return [str(fault) for fault in launch_faults(environment)]


@pytest.mark.parametrize(
    "environment",
    [{}, {"ACCELERATE_USE_FSDP": "false"}, {"WORLD_SIZE": "1"}, {"RANK": "0", "WORLD_SIZE": "1"}, {"MASTER_PORT": "x"}],
)
def test_a_process_alone_has_no_place(environment):
    assert said(environment) == []
    assert read_launch(environment) is None


def test_what_torchrun_sets_is_a_place():
    launch = read_launch({**WHOLE, "LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_USE_AGENT_STORE": "True"})
    assert said(WHOLE) == []
    assert (launch.rank, launch.world_size, launch.local_rank) == (1, 4, 1)
    assert (launch.address, launch.port, launch.agent_listens) == ("host", 29500, True)


def test_one_process_that_torchrun_has_started_is_a_place_too():
    assert read_launch({**WHOLE, "RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}).world_size == 1


@pytest.mark.parametrize(
    ("environment", "fault"),
    [
        ({"RANK": "0"}, "RANK is '0', and WORLD_SIZE is not set"),
        ({"RANK": "3"}, "RANK is '3', and WORLD_SIZE is not set"),
        ({"RANK": "0", "WORLD_SIZE": ""}, "RANK is '0', and WORLD_SIZE is not set"),
        ({"WORLD_SIZE": ""}, "WORLD_SIZE is '', expected a whole number from 1 up"),
        ({"LOCAL_RANK": "0"}, "LOCAL_RANK is '0', and RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT are not set"),
        ({"WORLD_SIZE": "8"}, "WORLD_SIZE is '8', and RANK, MASTER_ADDR, MASTER_PORT are not set"),
        ({**WHOLE, "MASTER_ADDR": ""}, "WORLD_SIZE is '4', and MASTER_ADDR is not set"),
        ({**WHOLE, "RANK": "one"}, "RANK is 'one', expected a whole number from 0 up"),
        ({**WHOLE, "RANK": "-1"}, "RANK is '-1', expected a whole number from 0 up"),
        ({**WHOLE, "WORLD_SIZE": "4.0"}, "WORLD_SIZE is '4.0', expected a whole number from 1 up"),
        ({"RANK": "0", "WORLD_SIZE": "0"}, "WORLD_SIZE is '0', expected a whole number from 1 up"),
        ({**WHOLE, "MASTER_PORT": "70000"}, "MASTER_PORT is '70000', expected a whole number from 1 to 65535"),
        ({**WHOLE, "RANK": "4"}, "RANK is 4, and WORLD_SIZE is 4"),
        ({**WHOLE, "LOCAL_RANK": "2", "LOCAL_WORLD_SIZE": "2"}, "LOCAL_RANK is 2, and LOCAL_WORLD_SIZE is 2"),
        ({**WHOLE, "LOCAL_RANK": "3"}, "LOCAL_RANK is 3, and RANK is only 1"),
        ({**WHOLE, "LOCAL_WORLD_SIZE": "5"}, "LOCAL_WORLD_SIZE is 5, and WORLD_SIZE is only 4"),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, "OMPI_COMM_WORLD_SIZE is 2, and RANK, WORLD_SIZE, LOCAL_RANK are not set"),
        ({"ACCELERATE_USE_FSDP": "true"}, "ACCELERATE_USE_FSDP is 'true', and wmtp shards models by itself"),
        ({**WHOLE, "ACCELERATE_USE_DEEPSPEED": "True"}, "ACCELERATE_USE_DEEPSPEED is 'True', and this version of wmtp"),
        ({"SLURM_STEP_NUM_TASKS": "4"}, "SLURM_STEP_NUM_TASKS is 4, and RANK, WORLD_SIZE, LOCAL_RANK are not set"),
    ],
)  # fmt: skip
def test_variables_that_do_not_fit_are_named(environment, fault):
    assert any(line.startswith(fault) for line in said(environment)), said(environment)


def test_every_fault_is_named_at_once():
    assert said({"RANK": "2", "WORLD_SIZE": "2", "MASTER_PORT": "http"}) == [
        "WORLD_SIZE is '2', and MASTER_ADDR is not set",
        "MASTER_PORT is 'http', expected a whole number from 1 to 65535",
        "RANK is 2, and WORLD_SIZE is 2",
    ]
    assert all(fault.hint for fault in launch_faults({**WHOLE, "RANK": "x", "MASTER_ADDR": ""}))
