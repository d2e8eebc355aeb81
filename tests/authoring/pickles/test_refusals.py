"""What torch and the system say about a pickle, and what becomes of it. torch's words are its own, got from it here."""

import builtins
import io
import os
import pickle
import signal

import pytest
import torch

from hostile_pickles import Call, old_pickle
from wmtp.authoring.pickles.refusals import ended_error, refusal
from wmtp.confinement.limits import Limits
from wmtp.errors import CheckpointError, FormatError, StorageError, TrustError

LIMITS = Limits(memory_bytes=1234, seconds=7, output_bytes=5678)


class OfTheEnvironment:
    """A class that stands where the pickle is opened, but that nobody put on torch's list."""


def what_torch_says(data: bytes):
    with pytest.raises(Exception) as raised:  # noqa: PT011  whatever it is, it becomes one of ours
        torch.load(io.BytesIO(data), weights_only=True)
    return refusal(type(raised.value).__name__, str(raised.value), "", where="d/x.bin", limits=LIMITS)


def zipped(content) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


@pytest.mark.parametrize("write", [old_pickle, zipped])
@pytest.mark.parametrize(
    ("content", "name"),
    [
        (Call(os.system, "true"), "posix.system"),
        (Call(builtins.eval, "1"), "builtins.eval"),
        (Call(builtins.getattr, 1, "real"), "builtins.getattr"),
        (Call(torch.load, "x"), "torch.serialization.load"),
        (torch.nn.Linear(1, 1), "torch.nn.modules.linear.Linear"),
    ],
)
def test_a_refused_global_is_named(write, content, name):
    error = what_torch_says(write(content))
    assert type(error) is TrustError
    assert error.problem == f"d/x.bin: the pickle asks for '{name}', which weights do not need"
    assert "nothing in it was run" in error.hint


def test_a_class_of_the_environment_is_refused_by_its_name():
    error = what_torch_says(b"\x80\x02c" + b"test_refusals\nOfTheEnvironment\n)\x81.")
    assert error.problem == "d/x.bin: the pickle asks for 'test_refusals.OfTheEnvironment', which weights do not need"


def test_names_in_a_refusal_cannot_write_to_the_terminal():
    error = what_torch_says(b"\x80\x02c\x1b[2J\nx\x1b]0;y\x07\n.")
    assert error.problem == r"d/x.bin: the pickle asks for '\x1b[2J.x\x1b]0;y\x07', which weights do not need"


def test_a_call_of_what_is_no_function_is_refused():
    error = what_torch_says(b"\x80\x02]K\x01\x85R.")
    assert type(error) is TrustError
    assert error.problem == "d/x.bin: the pickle calls or makes '[]'"


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_instructions_of_later_protocols_are_named():
    error = what_torch_says(pickle.dumps(Call(os.system, "true"), protocol=4))
    assert type(error) is FormatError
    assert error.problem == "d/x.bin: the pickle has the instruction FRAME (149), which torch.save does not write"


@pytest.mark.parametrize(
    "data", [b"", b"\x80\x02", b"\x80\x02N.", b"\x80\x02(.", b"\x80\x02h\x05.", b"\x80\x02X\xff\xff"]
)
def test_bytes_that_are_no_weights_are_refused_with_what_torch_says(data):
    error = what_torch_says(data)
    assert type(error) is FormatError
    assert error.problem.startswith("d/x.bin: not weights as torch.save writes them (")


def test_an_allocation_that_fails_is_the_limit_on_memory():
    said = what_torch_says(old_pickle(Call(torch.FloatTensor, 2**55)))
    assert type(said) is CheckpointError
    assert said.problem == "d/x.bin: opening it takes more than 1,234 bytes, the limit on memory"
    assert "memory_limit_bytes (--memory-limit)" in said.hint


@pytest.mark.parametrize(
    ("said", "kind", "problem"),
    [
        ("Error while serializing: I/O error: File too large (os error 27)", CheckpointError, "more than 5,678 bytes"),
        ("I/O error: No space left on device (os error 28)", StorageError, "no space is left"),
    ],
)
def test_a_full_disk_and_a_full_file_are_told_apart(said, kind, problem):
    error = refusal("SafetensorError", said, "", where="d/x.bin", limits=LIMITS)
    assert type(error) is kind
    assert problem in error.problem


def test_one_of_our_own_errors_comes_back_as_it_was_with_the_file_before_it_and_escaped():
    error = refusal("CheckpointError", "holds \x1b[31m", "do\nthis", where="d/x.bin", limits=LIMITS)
    assert type(error) is CheckpointError
    assert (error.problem, error.hint) == (r"d/x.bin: holds \x1b[31m", r"do\nthis")


@pytest.mark.parametrize("status", [None, -signal.SIGXCPU])
def test_too_much_time_names_the_limit(status):
    error = ended_error(status, "", where="d", limits=LIMITS)
    assert error.problem == "d: opening it took more than 7 seconds, the limit on time"
    assert "time_limit_seconds (--time-limit)" in error.hint


def test_a_signal_names_itself_and_the_limit_that_it_may_come_from():
    error = ended_error(-signal.SIGSEGV, "terminate called", where="d", limits=LIMITS)
    assert error.problem == (
        "d: the process that opened it was ended by SIGSEGV after saying 'terminate called'; it was allowed 1,234 bytes"
        " of memory"
    )


def test_any_other_end_is_told_with_its_status():
    assert ended_error(3, "", where="d", limits=LIMITS).problem == "d: the process that opened it ended with status 3"
