"""The walls: namespaces with a file system of their own, Landlock, resource limits, and the system-call filter.

The server goes in once, at its start: `Cage.enter` gives it private user, process, mount, network, IPC and host-name
namespaces with a read-only view of the system's libraries, and no /proc. Each of its children then calls `Cage.lock`,
which holds it to what it needs, for good. A wall that a machine does not allow (Docker's default profile has no
namespaces, old kernels no Landlock) is left out only where the tier says so; any other failure raises JailError.

Sources: namespaces(7), pivot_root(2), landlock(7), setrlimit(2), capabilities(7).
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import resource
import shutil
import signal
import stat
import struct
import sysconfig
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rewards.code import seccomp

TIERS = {
    "full": "namespaces, Landlock and seccomp",
    "landlock": "Landlock and seccomp, without namespaces",
    "namespaces": "namespaces and seccomp, without Landlock",
}
"""What holds a program, strongest first."""
SYSTEM_LIBRARIES = (
    *("/lib", "/lib32", "/lib64", "/usr/lib", "/usr/lib32", "/usr/lib64"),
    *("/etc/ld.so.cache", "/usr/share/zoneinfo", "/dev/null", "/dev/zero", "/dev/urandom"),
)
COMPILER_FILES = ("/bin", "/usr/bin", "/usr/libexec", "/usr/include", "/usr/local/include", "/etc/alternatives")
JAIL_UID = 61_234
"""Who a program is when the server was started by root: a user of this number should own nothing."""
MAX_TASKS = 200
"""Threads, and the compiler's processes."""
HEADERS = "headers"
"""Folder beside those that the compiler writes in: what it compiled before."""
SCRATCH_BYTES = 1 << 30
"""All compilations at once, in the private file system."""

_NEWNS, _NEWUTS, _NEWIPC, _NEWUSER, _NEWPID, _NEWNET = 1 << 17, 1 << 26, 1 << 27, 1 << 28, 1 << 29, 1 << 30
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REMOUNT, _MS_BIND = 1, 2, 4, 8, 32, 4096
_MS_REC, _MS_PRIVATE, _MNT_DETACH = 16384, 1 << 18, 2
_PR_SET_PDEATHSIG, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 1, 24, 38
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_ON_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | 1 << 14 | 1 << 15

_libc = ctypes.CDLL(None, use_errno=True)


class JailError(Exception):
    """A wall that cannot be built here."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one jailed process may use."""

    cpu_seconds: int
    memory_bytes: int
    file_bytes: int
    """Of each file that it writes, standard output included."""
    stack_bytes: int = 8 << 20


@dataclass(kw_only=True)
class Cage:
    """The walls of one server: made before, entered once, then locked around each child."""

    tier: str
    scratch: Path = Path("/scratch")
    """Where the compiler may write, a folder for each run."""
    outside: Path | None = None
    """The same, where it lies in the file system that others see."""
    _nproc: bool = True
    _base_memory: int = 0
    _library_ruleset: int = -1
    _compiler_files: tuple[str, ...] = ()
    _libraries: tuple[str, ...] = ()

    @property
    def namespaces(self) -> bool:
        return self.tier != "landlock"

    @property
    def landlock(self) -> bool:
        return self.tier != "namespaces"

    def enter(self) -> None:
        """Put this process behind the outer walls. Returns in a child of the caller where namespaces are used: the
        first process of its own process namespace, whose end is the end of all in it. Raises JailError.
        """
        if platform.machine() not in seccomp.AUDIT_ARCH:
            raise JailError(f"the sandbox knows x86-64 and aarch64, this machine is {platform.machine()}")
        self._libraries, self._compiler_files = _existing(python_files()), _existing(compiler_files())
        self._base_memory = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        try:
            if self.namespaces:
                by_root = _unshare()
                _build_view(dict.fromkeys([*self._libraries, *self._compiler_files]), self.scratch)
                _fork_into_namespace()
            else:
                by_root = os.getuid() == 0
                self.scratch = self.outside = Path(tempfile.mkdtemp(prefix="r1lab-sandbox-"))
                self._nproc = by_root
            self._drop_privileges(by_root)
            if self.landlock:
                ruleset = _ruleset(self._libraries, _READ_FILE | _READ_DIR)
                self._library_ruleset = fcntl.fcntl(ruleset, fcntl.F_DUPFD_CLOEXEC, 100)  # beyond a child's own
                os.close(ruleset)
        except OSError as error:
            raise JailError(str(error)) from error
        seccomp.build()  # once, for all children
        if self.namespaces:  # of ours, the outer process: a client may start a server in a thread that ends
            die_with_parent()
        os.umask(0o077)

    def keep_only(self, count: int) -> None:
        """Close all descriptors of a child but the first `count`, and what `lock` needs."""
        ruleset = max(count, self._library_ruleset)
        os.closerange(count, ruleset)
        os.closerange(ruleset + (self._library_ruleset >= 0), 1 << 20)

    def lock(self, limits: Limits, scratch: Path | None = None, binary_fd: int | None = None) -> None:
        """Close the walls around this process, for good. scratch: it is the compiler, and may write there.
        binary_fd: it may execute that file.
        """
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)
        self._limit(limits)
        if self.landlock:
            rules = self._library_ruleset
            if scratch is not None:
                readable = (*self._libraries, *self._compiler_files, str(self.scratch / HEADERS))
                rules = _ruleset(readable, _READ_FILE | _READ_DIR | _EXECUTE, scratch)
            elif binary_fd is not None:
                rules = _ruleset(self._libraries, _READ_FILE | _READ_DIR | _EXECUTE)
            _check(_libc.syscall(seccomp.number("landlock_restrict_self"), rules, 0), "landlock_restrict_self")
            for ruleset in {rules, self._library_ruleset}:
                os.close(ruleset)
        seccomp.install(seccomp.build(scratch is not None, binary_fd))

    def _limit(self, limits: Limits) -> None:
        memory = limits.memory_bytes + self._base_memory
        for kind, soft, hard in (
            (resource.RLIMIT_CPU, limits.cpu_seconds, limits.cpu_seconds + 1),
            (resource.RLIMIT_AS, memory, memory),
            (resource.RLIMIT_FSIZE, limits.file_bytes, limits.file_bytes),
            (resource.RLIMIT_STACK, limits.stack_bytes, limits.stack_bytes),
            (resource.RLIMIT_NOFILE, 64, 64),
            (resource.RLIMIT_CORE, 0, 0),
            (resource.RLIMIT_MEMLOCK, 0, 0),
            (resource.RLIMIT_MSGQUEUE, 0, 0),
            *([(resource.RLIMIT_NPROC, MAX_TASKS, MAX_TASKS)] if self._nproc else []),
        ):
            ceiling = resource.getrlimit(kind)[1]
            if ceiling != resource.RLIM_INFINITY:
                soft, hard = min(soft, ceiling), min(hard, ceiling)
            resource.setrlimit(kind, (soft, hard))

    def _drop_privileges(self, by_root: bool) -> None:
        """Become a user who owns nothing, without capabilities.

        Where that user could not read Python's library (it lies in a private home), root stays root without any
        capability, behind the same walls.
        """
        for capability in range(64):
            _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)  # fails beyond the last one, or where none are held
        if by_root and (self.namespaces or _readable_by(JAIL_UID, sysconfig.get_path("stdlib"))):
            os.chown(self.scratch, JAIL_UID, JAIL_UID)
            os.setgroups([])
            os.setresgid(JAIL_UID, JAIL_UID, JAIL_UID)
            os.setresuid(JAIL_UID, JAIL_UID, JAIL_UID)
        else:
            self._nproc = self._nproc and not by_root
        header, none = struct.pack("=Ii", 0x20080522, 0), bytes(24)
        _check(_libc.capset(header, none), "capset")

    def leave(self) -> None:
        """Remove what others see."""
        if self.outside is not None:
            shutil.rmtree(self.outside, ignore_errors=True)


def python_files() -> list[str]:
    """Python's standard library without what is installed beside it (a data set's package may hold the hidden tests),
    and the shared libraries that it may load.
    """
    library = Path(sysconfig.get_path("stdlib"))
    entries = [entry for entry in library.iterdir() if entry.name not in ("site-packages", "dist-packages", "test")]
    prefixes = {Path("/usr/local/lib"), Path(sysconfig.get_config_var("installed_base") or "/usr") / "lib"}
    beside = [
        entry
        for prefix in prefixes - {Path("/usr/lib")}
        if prefix.is_dir()
        for entry in prefix.iterdir()
        if ".so" in entry.suffixes
    ]
    return [*map(str, entries + beside), *SYSTEM_LIBRARIES]


def compiler_files() -> list[str]:
    """What the compiler reads and runs besides the libraries; nothing where there is none."""
    found = compiler()
    if found is None:
        return []
    prefix = found.resolve().parent.parent
    return [*COMPILER_FILES, *([] if prefix == Path("/usr") else [str(prefix)])]


def compiler() -> Path | None:
    """The C++ compiler of this machine."""
    found = shutil.which("g++", path=os.environ.get("PATH") or os.defpath)
    return Path(found) if found else None


def die_with_parent() -> None:
    """SIGKILL for this process when its parent ends."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _existing(paths: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(path for path in paths if os.path.lexists(path)))


def _unshare() -> bool:
    """Enter new namespaces; whether that was done as root. An ordinary user makes a user namespace first."""
    uid, gid = os.getuid(), os.getgid()
    flags = _NEWNS | _NEWUTS | _NEWIPC | _NEWPID | _NEWNET
    if uid == 0 and _libc.unshare(flags) == 0:
        return True
    _check(_libc.unshare(flags | _NEWUSER), "unshare")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    return False


def _build_view(paths: Iterable[str], scratch: Path) -> None:
    """Replace the file system by a read-only view of `paths`, and an empty folder `scratch` to write in."""
    stage = "/proc"  # exists everywhere and holds none of the paths; the mount is ours alone
    _mount("none", "/", None, _MS_REC | _MS_PRIVATE)
    _mount("tmpfs", stage, "tmpfs", _MS_NOSUID | _MS_NODEV, "size=4m,mode=755")
    for path in paths:
        target = Path(stage + path)
        target.parent.mkdir(parents=True, exist_ok=True)
        if os.path.islink(path):  # /lib on most systems
            target.symlink_to(os.readlink(path))
            continue
        if os.path.isdir(path):
            target.mkdir(exist_ok=True)
        else:
            target.touch()
        _mount(path, str(target), None, _MS_BIND | _MS_REC)
        _mount("none", str(target), None, _MS_REMOUNT | _MS_BIND | _MS_RDONLY | _mount_flags(path))
    room = Path(stage) / scratch.relative_to("/")
    room.mkdir()
    _mount("tmpfs", str(room), "tmpfs", _MS_NOSUID | _MS_NODEV, f"size={SCRATCH_BYTES},mode=700")
    _mount("none", stage, None, _MS_REMOUNT | _MS_BIND | _MS_RDONLY | _MS_NOSUID | _MS_NODEV)
    os.chdir(stage)
    _check(_libc.syscall(seccomp.number("pivot_root"), b".", b"."), "pivot_root")
    _check(_libc.umount2(b".", _MNT_DETACH), "umount2")
    os.chdir("/")


def _mount_flags(path: str) -> int:
    """The flags of a mount that a remount must keep, or the kernel refuses it."""
    flags = os.statvfs(path).f_flag
    kept = flags & (_MS_NOSUID | _MS_NODEV | _MS_NOEXEC | os.ST_NOATIME | os.ST_NODIRATIME)
    return kept | (1 << 21 if flags & os.ST_RELATIME else 0)


def _mount(source: str, target: str, kind: str | None, flags: int, options: str = "") -> None:
    result = _libc.mount(
        source.encode(), target.encode(), kind.encode() if kind else None, ctypes.c_ulong(flags), options.encode()
    )
    _check(result, f"mount {target}")


def _fork_into_namespace() -> None:
    """Go on in a child; the parent waits for it and then ends in the same way."""
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        os._exit(max(0, os.waitstatus_to_exitcode(status)))


def _ruleset(paths: Iterable[str], rights: int, scratch: Path | None = None) -> int:
    """A Landlock ruleset as a file descriptor: `rights` below `paths`, everything below `scratch`, no TCP, no signals
    and no sockets outside, as far as this kernel knows them.
    """
    create, add = seccomp.number("landlock_create_ruleset"), seccomp.number("landlock_add_rule")
    abi = _libc.syscall(create, None, ctypes.c_size_t(0), 1)
    if abi < 1:
        raise JailError("this kernel has no Landlock (Linux 5.13 and later have it, where it is not switched off)")
    handled = (1 << (13 if abi < 2 else 14 if abi < 3 else 15 if abi < 5 else 16)) - 1
    attributes = struct.pack("=QQQ", handled, 3, 3)[: 8 if abi < 4 else 16 if abi < 6 else 24]
    ruleset = _check(_libc.syscall(create, attributes, ctypes.c_size_t(len(attributes)), 0), "landlock_create_ruleset")
    grants = [(path, rights) for path in paths]
    grants.append((sysconfig.get_path("stdlib"), _READ_DIR))  # Python looks for modules by listing it
    if scratch is not None:
        grants += [(str(scratch), handled), ("/dev/null", _READ_FILE | _WRITE_FILE)]
    for path, right in grants:
        try:
            below = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except FileNotFoundError:  # a link whose target is not in view
            continue
        if not stat.S_ISDIR(os.fstat(below).st_mode):
            right &= _ON_FILES
        rule = struct.pack("=Qi", right & handled, below)
        _check(_libc.syscall(add, ruleset, 1, rule, 0), f"landlock_add_rule {path}")
        os.close(below)
    return ruleset


def _readable_by(uid: int, folder: str) -> bool:
    os.seteuid(uid)
    try:
        return os.access(folder, os.R_OK | os.X_OK, effective_ids=True)
    finally:
        os.seteuid(0)


def _prctl(option: int, value: int) -> None:
    _check(_libc.prctl(option, value, 0, 0, 0), f"prctl {option}")


def _check(result: int, call: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{call}: {os.strerror(code)} ({errno.errorcode.get(code, code)})")
    return result
