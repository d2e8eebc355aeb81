"""One of several processes: what a launcher says in the environment, and whether that fits together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from wmtp.faults import Fault
from wmtp.untrusted import show

# What torchrun sets for each process that it starts; without any of the first three a process is alone.
_PLACES = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
_ADDRESS = ("MASTER_ADDR", "MASTER_PORT")
_LEAST = {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 1, "MASTER_PORT": 1}
_MOST_PORT = 65535
# What `accelerate launch` sets, and transformers would follow: models in shards, whose checkpoints would not be whole.
_ENGINES = {
    "ACCELERATE_USE_FSDP": "wmtp shards models by itself, where train.sharding is fsdp",
    "ACCELERATE_USE_DEEPSPEED": "this version of wmtp does not train with DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "this version of wmtp does not train with Megatron-LM",
}
_ON = ("1", "true", "yes", "on", "y", "t")
# What mpirun and srun set, which nothing here reads: each of the processes would train by itself, over the others.
_MPI_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")
_START = "let torchrun set them: 'wmtp train ... -- --nproc-per-node 2'"


@dataclass(frozen=True)
class Launch:
    """The place of this process among those of a run.

    Attributes:
        rank: From 0, among all.
        world_size: How many there are.
        local_rank: From 0, among those of this machine; None where the launcher does not say it.
        address: Of the machine with rank 0.
        port: On which it listens there.
        agent_listens: Whether torchrun itself listens, rather than the process with rank 0.
    """

    rank: int
    world_size: int
    local_rank: int | None
    address: str
    port: int
    agent_listens: bool


def read_launch(environment: Mapping[str, str]) -> Launch | None:
    """Return the place that an environment without `launch_faults` gives to a process; None: it is alone."""
    if "LOCAL_RANK" not in environment and int(environment.get("WORLD_SIZE", 1)) == 1:
        return None
    return Launch(
        rank=int(environment["RANK"]),
        world_size=int(environment["WORLD_SIZE"]),
        local_rank=int(environment["LOCAL_RANK"]) if "LOCAL_RANK" in environment else None,
        address=environment["MASTER_ADDR"],
        port=int(environment["MASTER_PORT"]),
        agent_listens=environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
    )


def launch_faults(environment: Mapping[str, str]) -> list[Fault]:
    """Return what is wrong with the variables of a launcher: too few, no numbers, or numbers that do not fit."""
    if engine := next((name for name in _ENGINES if environment.get(name, "").lower() in _ON), None):
        return [
            Fault((engine,), f"is {show(environment[engine])}, and {_ENGINES[engine]}", f"unset {engine}, and {_START}")
        ]
    given = [name for name in _PLACES if name in environment]
    filled = [name for name in given if environment[name]]
    if not given:
        return list(_unread_launchers(environment))
    # An empty one is as good as none beside one that says something; alone, it is no number.
    there = [name for name in environment if environment[name] or not filled]
    missing = [name for name in _needed(environment) if name not in there]
    numbers = {name: number for name in _LEAST if (number := _number(environment, name)) is not None}
    faults = [*_no_numbers(environment, numbers, missing), *_misfits(numbers)]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        # The one that asks for the others: an address belongs to several processes.
        asking = max(filled or given, key=["RANK", "LOCAL_RANK", "WORLD_SIZE"].index)
        problem = f"is {show(environment[asking])}, and {', '.join(missing)} {verb} not set"
        return [Fault((asking,), problem, f"{_START}; or unset {', '.join(given)} to train in one process"), *faults]
    return faults


def _needed(environment: Mapping[str, str]) -> tuple[str, ...]:
    if "LOCAL_RANK" in environment or (_number(environment, "WORLD_SIZE") or 1) > 1:
        return ("RANK", "WORLD_SIZE", *_ADDRESS)
    return ("WORLD_SIZE",)


def _number(environment: Mapping[str, str], name: str) -> int | None:
    """Return a variable as a number that it may be; None where it is none, or not there."""
    text = environment.get(name, "")
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        return None
    number = int(text)
    return number if number >= _LEAST[name] and (name != "MASTER_PORT" or number <= _MOST_PORT) else None


def _no_numbers(environment: Mapping[str, str], numbers: Mapping[str, int], missing: list[str]) -> Iterator[Fault]:
    for name, least in _LEAST.items():
        if name in environment and name not in numbers and name not in missing:
            bound = f"{least} to {_MOST_PORT}" if name == "MASTER_PORT" else f"{least} up"
            yield Fault((name,), f"is {show(environment[name])}, expected a whole number from {bound}", _START)


def _misfits(numbers: Mapping[str, int]) -> Iterator[Fault]:
    for name, total in (("RANK", "WORLD_SIZE"), ("LOCAL_RANK", "LOCAL_WORLD_SIZE")):
        if name in numbers and total in numbers and numbers[name] >= numbers[total]:
            count = numbers[total]
            problem = f"is {numbers[name]}, and {total} is {count}"
            yield Fault((name,), problem, f"number the processes from 0 to {count - 1}")
    for name, whole in (("LOCAL_RANK", "RANK"), ("LOCAL_WORLD_SIZE", "WORLD_SIZE")):
        if name in numbers and whole in numbers and numbers[name] > numbers[whole]:
            problem = f"is {numbers[name]}, and {whole} is only {numbers[whole]}"
            yield Fault((name,), problem, "those of one machine are among all of them")


def _unread_launchers(environment: Mapping[str, str]) -> Iterator[Fault]:
    for name in _MPI_SIZES:
        text = environment.get(name, "")
        if text.isascii() and text.isdigit() and int(text) > 1:
            problem = f"is {text}, and {', '.join(_PLACES)} are not set: each process would train alone"
            yield Fault((name,), problem, f"{_START}; or set them, MASTER_ADDR and MASTER_PORT in each process")
