"""System-call filters: an allowlist each for programs and for the compiler, as classic BPF, in plain struct and ctypes.

What is not listed fails with EPERM, so that an honest program that asks for a luxury goes on. A program gets memory,
reading, writing to what is open already, clocks and threads: no file opened for writing, no process,
no socket, no signal. The compiler may also start processes and change files (where Landlock lets it).
Source: seccomp(2), and Documentation/userspace-api/seccomp_filter.rst of Linux. x86-64 and aarch64.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import platform
import struct
from collections.abc import Sequence
from dataclasses import dataclass

AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
NUMBERS: dict[str, tuple[int | None, int | None]] = {  # (x86-64, aarch64)
    "access": (21, None),
    "alarm": (37, None),
    "arch_prctl": (158, None),
    "brk": (12, 214),
    "chdir": (80, 49),
    "chmod": (90, None),
    "clock_getres": (229, 114),
    "clock_gettime": (228, 113),
    "clock_nanosleep": (230, 115),
    "clone": (56, 220),
    "clone3": (435, 435),
    "close": (3, 57),
    "close_range": (436, 436),
    "dup": (32, 23),
    "dup2": (33, None),
    "dup3": (292, 24),
    "execve": (59, 221),
    "execveat": (322, 281),
    "exit": (60, 93),
    "exit_group": (231, 94),
    "faccessat": (269, 48),
    "faccessat2": (439, 439),
    "fadvise64": (221, 223),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fcntl": (72, 25),
    "fork": (57, None),
    "fstat": (5, 80),
    "ftruncate": (77, 46),
    "futex": (202, 98),
    "getcpu": (309, 168),
    "getcwd": (79, 17),
    "getdents64": (217, 61),
    "getegid": (108, 177),
    "geteuid": (107, 175),
    "getgid": (104, 176),
    "getitimer": (36, 102),
    "getpgrp": (111, None),
    "getpid": (39, 172),
    "getppid": (110, 173),
    "getrandom": (318, 278),
    "getrlimit": (97, 163),
    "getrusage": (98, 165),
    "gettid": (186, 178),
    "gettimeofday": (96, 169),
    "getuid": (102, 174),
    "ioctl": (16, 29),
    "landlock_add_rule": (445, 445),
    "landlock_create_ruleset": (444, 444),
    "landlock_restrict_self": (446, 446),
    "lseek": (8, 62),
    "lstat": (6, None),
    "madvise": (28, 233),
    "mincore": (27, 232),
    "mkdir": (83, None),
    "mkdirat": (258, 34),
    "mmap": (9, 222),
    "mprotect": (10, 226),
    "mremap": (25, 216),
    "munmap": (11, 215),
    "nanosleep": (35, 101),
    "newfstatat": (262, 79),
    "open": (2, None),
    "openat": (257, 56),
    "pipe": (22, None),
    "pipe2": (293, 59),
    "pivot_root": (155, 41),
    "poll": (7, None),
    "ppoll": (271, 73),
    "pread64": (17, 67),
    "prlimit64": (302, 261),
    "pselect6": (270, 72),
    "pwrite64": (18, 68),
    "read": (0, 63),
    "readlink": (89, None),
    "readlinkat": (267, 78),
    "readv": (19, 65),
    "rename": (82, None),
    "renameat": (264, 38),
    "renameat2": (316, 276),
    "restart_syscall": (219, 128),
    "rmdir": (84, None),
    "rseq": (334, 293),
    "rt_sigaction": (13, 134),
    "rt_sigpending": (127, 136),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "rt_sigtimedwait": (128, 137),
    "sched_getaffinity": (204, 123),
    "sched_yield": (24, 124),
    "select": (23, None),
    "set_robust_list": (273, 99),
    "set_tid_address": (218, 96),
    "setitimer": (38, 103),
    "setrlimit": (160, 164),
    "sigaltstack": (131, 132),
    "stat": (4, None),
    "statx": (332, 291),
    "sysinfo": (99, 179),
    "time": (201, None),
    "times": (100, 153),
    "umask": (95, 166),
    "uname": (63, 160),
    "unlink": (87, None),
    "unlinkat": (263, 35),
    "vfork": (58, None),
    "wait4": (61, 260),
    "waitid": (247, 95),
    "write": (1, 64),
    "writev": (20, 66),
}
PROGRAM = (
    *("access", "alarm", "brk", "clock_getres", "clock_gettime", "clock_nanosleep", "close", "dup", "exit"),
    *("exit_group", "faccessat", "faccessat2", "fadvise64", "fstat", "futex", "getcpu", "getcwd", "getdents64"),
    *("getegid", "geteuid", "getgid", "getitimer", "getpid", "getppid", "getrandom", "getrlimit", "getrusage"),
    *("gettid", "gettimeofday", "getuid", "lseek", "lstat", "madvise", "mincore", "mmap", "mprotect", "mremap"),
    *("munmap", "nanosleep", "newfstatat", "poll", "ppoll", "pread64", "pselect6", "pwrite64", "read", "readv"),
    *("restart_syscall", "rseq", "rt_sigaction", "rt_sigpending", "rt_sigprocmask", "rt_sigreturn"),
    *("rt_sigtimedwait", "sched_getaffinity", "sched_yield", "select", "set_robust_list", "set_tid_address"),
    *("setitimer", "sigaltstack", "stat", "statx", "sysinfo", "time", "times", "uname", "write", "writev"),
)
COMPILER = (
    *PROGRAM,
    *("chdir", "chmod", "close_range", "dup2", "dup3", "execve", "fchmod", "fchmodat", "fork", "ftruncate"),
    *("getpgrp", "mkdir", "mkdirat", "open", "openat", "pipe", "pipe2", "readlink", "readlinkat", "rename"),
    *("renameat", "renameat2", "rmdir", "umask", "unlink", "unlinkat", "vfork", "wait4", "waitid"),
)
"""Names; the numbers that a machine lacks are left out."""

# Flags of clone(2): what a thread has, and the namespaces that nobody may make.
_THREAD = 0x100 | 0x200 | 0x400 | 0x800 | 0x10000 | 0x40000  # VM, FS, FILES, SIGHAND, THREAD, SYSVSEM
_NAMESPACES = 0x20000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000
_WRITING = os.O_ACCMODE | os.O_CREAT | os.O_TRUNC
_FCNTL_COMMANDS = (0, 1, 2, 3, 4, 1030)  # duplicate; read and set flags. F_SETOWN would send signals to others
_AT_EMPTY_PATH = 0x1000


@dataclass(frozen=True)
class Rule:
    """A call that is allowed where `argument & mask` is one of `values`, for each of the tests; else it fails so."""

    call: str
    tests: Sequence[tuple[int, int, tuple[int, ...]]] = ()
    """(argument, mask, values). Of the 64 bits the lower 32 are looked at; all these arguments are ints or flags."""
    error: int = errno.EPERM
    never: bool = False


def rules(compiler: bool, binary_fd: int | None) -> list[Rule]:
    """The calls that are allowed for some arguments only. binary_fd: the one file that may be executed."""
    everything = 0xFFFFFFFF
    shared = [
        Rule("clone3", error=errno.ENOSYS, never=True),  # its flags lie in memory; the C library then uses clone
        Rule("ioctl", error=errno.ENOTTY, never=True),
        Rule("arch_prctl", [(0, everything, (0x1002,))]),  # ARCH_SET_FS: thread-local storage of a new program
        Rule("fcntl", [(1, everything, _FCNTL_COMMANDS)]),
        Rule("prlimit64", [(0, everything, (0,))]),
    ]
    if compiler:
        return [*shared, Rule("clone", [(0, _NAMESPACES, (0,))])]
    shared += [
        Rule("clone", [(0, _THREAD | _NAMESPACES, (_THREAD,))], error=errno.EAGAIN),
        Rule("openat", [(2, _WRITING, (0,))], error=errno.EACCES),
    ]
    if binary_fd is not None:
        shared.append(Rule("execveat", [(0, everything, (binary_fd,)), (4, everything, (_AT_EMPTY_PATH,))]))
    return shared


_LOAD, _AND, _EQUAL, _AT_LEAST, _JUMP, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x05, 0x06
_ALLOW, _KILL, _ERROR = 0x7FFF0000, 0x80000000, 0x00050000


def _op(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


def number(call: str) -> int | None:
    """The number of a system call on this machine; None where it has none."""
    return NUMBERS[call][platform.machine() == "aarch64"]


@functools.cache
def build(compiler: bool = False, binary_fd: int | None = None) -> bytes:
    """The filter as BPF instructions: for the compiler, or a program, which may execute the file `binary_fd`."""
    machine = platform.machine()
    program = [_op(_LOAD, 4), _op(_EQUAL, AUDIT_ARCH[machine], 1, 0), _op(_RETURN, _KILL), _op(_LOAD, 0)]
    if machine == "x86_64":  # the x32 calls share the architecture and have this bit
        program += [_op(_AT_LEAST, 0x40000000, 0, 1), _op(_RETURN, _KILL)]
    numbers = [nr for call in (COMPILER if compiler else PROGRAM) if (nr := number(call)) is not None]
    program += [_op(_EQUAL, nr, len(numbers) - place, 0) for place, nr in enumerate(numbers)]
    program += [_op(_JUMP, 1), _op(_RETURN, _ALLOW)]
    for rule in rules(compiler, binary_fd):
        if (nr := number(rule.call)) is not None:
            block = _block(rule)
            program += [_op(_EQUAL, nr, 0, len(block)), *block]
    return b"".join([*program, _op(_RETURN, _ERROR | errno.EPERM)])


def _block(rule: Rule) -> list[bytes]:
    refuse = _op(_RETURN, _ERROR | rule.error)
    block: list[bytes] = []
    for argument, mask, values in rule.tests:
        block += [_op(_LOAD, 16 + 8 * argument), _op(_AND, mask)]
        block += [_op(_EQUAL, value, len(values) - place, 0) for place, value in enumerate(values)]
        block.append(refuse)
    return [*block, refuse if rule.never else _op(_RETURN, _ALLOW)]


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def install(instructions: bytes) -> None:
    """Put the filter on this process, for good. It must have set no_new_privs. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    program = _Program(len(instructions) // 8, instructions)
    if libc.prctl(22, 2, ctypes.byref(program), 0, 0):  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
        code = ctypes.get_errno()
        raise OSError(code, f"seccomp: {os.strerror(code)}")
