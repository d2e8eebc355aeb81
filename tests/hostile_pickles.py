"""Pickles for the tests of conversion: harmless ones, and some that were made to do harm."""

import hashlib
import os
import pickle
from pathlib import Path

import torch


class Call:
    """What calls a function when it is unpickled."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def save(directory: Path, content, name: str = "pytorch_model.bin", *, legacy: bool = False) -> Path:
    """One pickle in a directory that is made for it."""
    directory.mkdir(exist_ok=True)
    torch.save(content, directory / name, _use_new_zipfile_serialization=not legacy)
    return directory


def touching(marker: Path):
    """What would make a file appear if anybody ran it."""
    return Call(os.system, f"touch {marker}")


def tuples_that_take_ages_to_hash(depth: int = 60) -> bytes:
    """A dictionary whose key is a tuple of a tuple of ..., each twice: short, and 2**depth steps to hash."""
    pairs = b"q\x00h\x00\x86" * depth
    return b"\x80\x02}K\x01" + pairs + b"Ns."


def raw(directory: Path, data: bytes, name: str = "pytorch_model.bin") -> Path:
    """Any bytes under the name of weights."""
    directory.mkdir(exist_ok=True)
    (directory / name).write_bytes(data)
    return directory


def old_pickle(content) -> bytes:
    """A pickle without torch's frame, of the protocol that torch's reader knows."""
    return pickle.dumps(content, protocol=2)


def digests(directory: Path) -> dict[str, str]:
    """Every file below a directory with its digest."""
    files = [path for path in sorted(directory.rglob("*")) if path.is_file()]
    return {str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
