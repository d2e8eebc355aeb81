"""Refusing system calls to this process and for good: starting processes, reaching others, opening connections.

Limits on processes do not hold for root, and namespaces are not everywhere; a filter of system calls is, on Linux, for
everybody. It is written here for the two machines that the numbers below are of, with the standard library alone.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2
_LOAD, _IF_EQUAL, _IF_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_NUMBER, _MACHINE = 0, 4  # where seccomp_data holds them
_ALLOW, _REFUSE, _KILL = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x80000000
_SECOND_INTERFACE = 0x40000000  # numbers from here on are those of x32, under which the same calls hide

# The same numbers on every machine: pidfd_send_signal, io_uring_setup, pidfd_open, clone3, pidfd_getfd.
_EVERYWHERE = (424, 425, 434, 435, 438)
_CALLS = {
    "x86_64": (
        *(41, 53, 56, 57, 58, 59, 322),  # socket, socketpair, clone, fork, vfork, execve, execveat
        *(62, 129, 200, 234, 297),  # kill, rt_sigqueueinfo, tkill, tgkill, rt_tgsigqueueinfo
        *(101, 302, 310, 311),  # ptrace, prlimit64, process_vm_readv, process_vm_writev
        *(141, 165, 272, 298, 308, 321),  # setpriority, mount, unshare, perf_event_open, setns, bpf
    ),
    "aarch64": (
        *(198, 199, 220, 221, 281),  # socket, socketpair, clone, execve, execveat
        *(129, 130, 131, 138, 240),  # kill, tkill, tgkill, rt_sigqueueinfo, rt_tgsigqueueinfo
        *(117, 261, 270, 271),  # ptrace, prlimit64, process_vm_readv, process_vm_writev
        *(40, 97, 140, 241, 268, 280),  # mount, unshare, setpriority, perf_event_open, setns, bpf
    ),
}
_AUDITED_AS = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # how seccomp_data calls the machine


def bar_processes() -> bool:
    """Give up starting processes, threads and programs, signals, other processes and sockets; says whether it could.

    It can on Linux, on x86_64 and aarch64. Limits have to be set before: after it they can no longer be read.
    """
    machine = _machine()
    if not sys.platform.startswith("linux") or machine not in _CALLS:
        return False
    program = _program(_AUDITED_AS[machine], _CALLS[machine])
    buffer = ctypes.create_string_buffer(program, len(program))
    # sock_fprog: how many instructions, and where they are.
    header = struct.pack("@HP", len(program) // 8, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    refused: int = libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, header, 0, 0)
    return refused == 0


def _machine() -> str:
    # A 32-bit process on a 64-bit machine uses other numbers.
    return os.uname().machine if struct.calcsize("P") == 8 else ""


def _program(machine: int, numbers: tuple[int, ...]) -> bytes:
    refused = (*numbers, *_EVERYWHERE)
    last = len(refused) + 1  # places from the first comparison of a number to `refuse`, less the one passed over
    steps = [
        (_LOAD, 0, 0, _MACHINE),
        (_IF_EQUAL, 1, 0, machine),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
        (_IF_AT_LEAST, last, 0, _SECOND_INTERFACE),
        *((_IF_EQUAL, last - 1 - place, 0, number) for place, number in enumerate(refused)),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _REFUSE),
    ]
    return b"".join(struct.pack("=HBBI", *step) for step in steps)
