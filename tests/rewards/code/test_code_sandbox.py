"""The sandbox itself: tiers and their probe, threads and forks, deaths, and nothing left behind."""

import ctypes
import os
import platform
import re
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from hostile_checks import descendants, wait_until

from rewards.code import Sandbox, SandboxError, code_reward, default_sandbox, sandbox, seccomp
from rewards.code.jail import TIERS, Limits
from rewards.code.sandbox import JobLost

ROOT = Path(__file__).parents[3]
TESTS = [{"input": "2", "output": "4"}]
DOUBLE = "```python\nprint(2 * int(input()))\n```"
HANG = "```python\nwhile True: pass\n```"
SLEEP = "```python\nimport time\ntime.sleep(600)\n```"


def rewards(*programs, **more):
    return code_reward(["?"] * len(programs), programs, tests=[TESTS] * len(programs), **more)


def server_of(some_sandbox):
    (server,) = some_sandbox._servers
    return server


@pytest.fixture
def own():
    made = Sandbox()
    yield made
    made.close()


# Tiers


def test_the_strongest_tier_that_works_is_named_in_the_log(caplog):
    with caplog.at_level("INFO", logger="rewards.code.sandbox"):
        made = Sandbox()
        assert f"code sandbox: tier {made.tier} ({TIERS[made.tier]})" in caplog.text
        made.close()


def test_unknown_tiers_are_refused():
    with pytest.raises(ValueError, match="full, landlock, namespaces"):
        Sandbox(["chroot"])


LEAKS = {
    "no wall at all": ("Cage.lock = lambda *a, **k: None", "read a file of its user"),
    "no filter": ("seccomp.install = lambda *a: None", "open a socket"),
    "no rules for files": ("jail._ruleset = lambda *a: sys.exit(1)", "its server ended at once"),
    "nothing runs": ("Cage.lock = lambda *a, **k: 1 / 0", "its walls could not be closed"),
}


@pytest.mark.parametrize("leak", LEAKS)
def test_a_tier_that_leaks_is_not_used(leak, monkeypatch):
    """The probe tries the walls; it does not trust that building them was enough."""
    patch, found = LEAKS[leak]
    start = sandbox.BOOTSTRAP.replace(
        "main(int(control), tier)",
        "from rewards.code import jail, seccomp\nfrom rewards.code.jail import Cage\n"
        f"{patch}\nmain(int(control), tier)",
    )
    monkeypatch.setattr(sandbox, "BOOTSTRAP", start)
    with pytest.raises(SandboxError, match=f"{found}.*Landlock.*docker run"):
        assert Sandbox(["landlock"]).tier
    with pytest.raises(SandboxError):
        rewards(DOUBLE, sandbox=Sandbox(["landlock"]))


def test_elsewhere_than_on_linux_it_says_so(monkeypatch):
    monkeypatch.setattr(sandbox.sys, "platform", "darwin")
    with pytest.raises(SandboxError, match="this is darwin, not Linux"):
        rewards(DOUBLE, sandbox=Sandbox())


DOCKER = """
import ctypes, errno, logging, struct, sys
sys.path[:0] = [{root!r}, {here!r}]
from rewards.code import Sandbox, code_reward, seccomp
# What Docker's default profile forbids without CAP_SYS_ADMIN: namespaces and mounts.
forbidden = {forbidden!r}
program = [seccomp._op(0x20, 0)]
for number in forbidden:
    program += [seccomp._op(0x15, number, 0, 1), seccomp._op(0x06, 0x00050000 | errno.EPERM)]
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
seccomp.install(b"".join([*program, seccomp._op(0x06, 0x7FFF0000)]))
import hostile_checks, hostile_programs
assert Sandbox().tier == "landlock", Sandbox().tier
hostile_checks.main(["full", "landlock"])
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the numbers are x86-64's")
def test_under_dockers_default_profile(sandboxes):
    """Neither namespaces nor mounts may be had: the second tier is taken, and holds."""
    sandboxes("landlock")
    forbidden = [272, 165, 155, 308, 166]  # unshare, mount, pivot_root, setns, umount2
    code = DOCKER.format(root=str(ROOT), here=str(Path(__file__).parent), forbidden=forbidden)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "no tier full" in done.stdout
    assert "held: landlock" in done.stdout


HEADERS = {
    "x86_64": ("/usr/include/x86_64-linux-gnu/asm/unistd_64.h", 0),
    "aarch64": ("/usr/include/asm-generic/unistd.h", 1),
}


@pytest.mark.parametrize("machine", HEADERS)
def test_system_call_numbers_are_the_kernels(machine):
    path, column = HEADERS[machine]
    if not Path(path).exists():
        pytest.skip(f"needs {path}")
    known = dict(re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", Path(path).read_text()))
    known.setdefault("newfstatat", known.get("fstatat"))
    for call, numbers in seccomp.NUMBERS.items():
        if numbers[column] is not None:
            assert known[call] == str(numbers[column]), call


def run_filter(instructions, nr, *arguments, arch=None):
    """The verdict of a filter on one call, by a plain interpreter of its instructions."""
    arch = arch or seccomp.AUDIT_ARCH[platform.machine()]
    data = struct.pack("=IIQ6Q", nr, arch, 0, *arguments, *[0] * (6 - len(arguments)))
    place = accumulator = 0
    while True:
        code, if_true, if_false, value = struct.unpack_from("=HBBI", instructions, 8 * place)
        place += 1
        if code == 0x06:
            return value
        if code == 0x20:
            (accumulator,) = struct.unpack_from("=I", data, value)
        elif code == 0x54:
            accumulator &= value
        elif code == 0x05:
            place += value
        else:
            holds = accumulator == value if code == 0x15 else accumulator >= value
            place += if_true if holds else if_false


ALLOW, KILL, ERROR = 0x7FFF0000, 0x80000000, 0x00050000


def test_filters_decide_every_call():
    """All numbers, through an interpreter of its own: what is allowed is what the lists say, and nothing else."""
    for compiler, binary in ((False, None), (False, 7), (True, None)):
        instructions = seccomp.build(compiler, binary)
        listed = {seccomp.number(call) for call in (seccomp.COMPILER if compiler else seccomp.PROGRAM)} - {None}
        ruled = {seccomp.number(rule.call) for rule in seccomp.rules(compiler, binary)} - {None}
        for nr in set(range(600)) - ruled:
            assert (run_filter(instructions, nr) == ALLOW) is (nr in listed), nr
        assert run_filter(instructions, 1, arch=0x40000003) == KILL  # 32-bit calls have other numbers
        if platform.machine() == "x86_64":
            assert run_filter(instructions, 0x40000001) == KILL


def test_filters_look_at_arguments():
    def verdict(call, *arguments, **build):
        return run_filter(seccomp.build(**build), seccomp.number(call), *arguments)

    thread, fork = 0x3D0F00, 0x11
    assert verdict("clone", thread) == ALLOW
    assert verdict("clone", fork) == verdict("clone", 0x01200011) == ERROR | 11
    assert verdict("clone", thread | 0x10000000) == ERROR | 11
    assert verdict("clone", fork, compiler=True) == ALLOW
    assert verdict("clone", fork | 0x10000000, compiler=True) == ERROR | 1
    assert verdict("clone3", 0) == ERROR | 38
    assert verdict("openat", 0, 0, os.O_RDONLY | os.O_CLOEXEC) == ALLOW
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_CREAT, os.O_TRUNC, os.O_WRONLY | os.O_CREAT | os.O_EXCL):
        assert verdict("openat", 0, 0, flags) == ERROR | 13
    assert verdict("execveat", 7, 0, 0, 0, 0x1000, binary_fd=7) == ALLOW
    assert verdict("execveat", 6, 0, 0, 0, 0x1000, binary_fd=7) == ERROR | 1
    assert verdict("execveat", 7, 0, 0, 0, 0, binary_fd=7) == ERROR | 1
    assert verdict("execveat", 7, 0, 0, 0, 0x1000) == ERROR | 1
    assert verdict("fcntl", 3, 1030) == ALLOW
    assert verdict("fcntl", 3, 8) == ERROR | 1
    assert verdict("prlimit64", 0, 7) == ALLOW
    assert verdict("prlimit64", 1, 7) == ERROR | 1


# Life and death


def test_threads_share_a_sandbox(own):
    results = {}

    def judge(number):
        results[number] = rewards(DOUBLE, "```python\nprint(5)\n```", DOUBLE, sandbox=own)

    threads = [threading.Thread(target=judge, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: [1.0, 0.0, 1.0] for number in range(6)}


def test_a_forked_process_starts_its_own_server():
    assert rewards(DOUBLE) == [1.0]
    parents = server_of(default_sandbox()).process.pid
    child = os.fork()
    if child == 0:
        right = rewards(DOUBLE) == [1.0]
        own_server = server_of(default_sandbox()).process.pid != parents
        default_sandbox().close()
        os._exit(0 if right and own_server else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert rewards(DOUBLE) == [1.0]
    assert server_of(default_sandbox()).process.pid == parents


def test_a_fork_in_the_middle_of_a_batch_keeps_nothing_alive(own, monkeypatch):
    """It holds copies of the sockets by which a job is cancelled."""
    assert own.tier
    monkeypatch.setattr("rewards.code.judging._wall", lambda seconds: 1.5)
    judging = threading.Thread(target=rewards, args=(SLEEP,), kwargs={"sandbox": own})
    judging.start()
    server = server_of(own).process.pid
    assert wait_until(lambda: len(lasting(server)) == 1 + (own.tier != "landlock"))
    bystander = os.fork()
    if bystander == 0:
        time.sleep(60)
        os._exit(0)
    judging.join()
    gone = wait_until(lambda: len(descendants(server)) == (own.tier != "landlock"))
    own.close()
    ended = wait_until(lambda: not Path(f"/proc/{server}").exists())
    os.kill(bystander, signal.SIGKILL)
    os.waitpid(bystander, 0)
    assert gone
    assert ended


@pytest.mark.parametrize("tier", TIERS)
def test_a_killed_server_is_replaced(tier, sandboxes):
    own = sandboxes(tier)
    assert rewards(DOUBLE, sandbox=own) == [1.0]
    server_of(own).process.kill()
    assert rewards(DOUBLE, sandbox=own) == [1.0]
    for pid in descendants(server_of(own).process.pid):
        os.kill(pid, signal.SIGKILL)
    assert rewards(DOUBLE, sandbox=own) == [1.0]


def test_a_server_killed_in_the_middle_of_a_program_is_replaced(own):
    """The program is judged again."""
    program = "```python\nimport time\ntime.sleep(0.5)\nprint(2 * int(input()))\n```"
    assert rewards(DOUBLE, sandbox=own) == [1.0]
    threading.Timer(0.25, server_of(own).process.kill).start()
    assert rewards(program, sandbox=own) == [1.0]


def test_a_sandbox_that_fails_again_and_again_is_an_error(own, monkeypatch):
    monkeypatch.setattr(own, "start", lambda *a, **k: (_ for _ in ()).throw(JobLost("gone")))
    with pytest.raises(SandboxError, match="lost a program 3 times in a row: gone"):
        rewards(DOUBLE, sandbox=own)


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("program", [HANG, SLEEP])
def test_nothing_outlives_a_killed_client(tier, program, sandboxes):
    """It dies without a chance to clean up, in the middle of a program."""
    sandboxes(tier)
    folders = set(Path(tempfile.gettempdir()).glob("r1lab-sandbox-*"))
    code = (
        "from rewards.code import *\n"
        f"s = Sandbox([{tier!r}]); s.tier\nprint(s._servers[0].process.pid, flush=True)\n"
        f"code_reward(['?'], [{program!r}], tests=[{TESTS!r}], time_limit=[30], sandbox=s)"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) as client:
        server = int(client.stdout.readline())
        jobs = 1 if tier == "landlock" else 2
        assert wait_until(lambda: len(lasting(server)) >= jobs)
        pids = {server, *descendants(server)}
        client.kill()
    assert wait_until(lambda: not any(is_running(pid) for pid in pids))
    assert wait_until(lambda: set(Path(tempfile.gettempdir()).glob("r1lab-sandbox-*")) <= folders)


def lasting(server):
    """Its processes without one that is just ending, such as the probe's."""
    before = descendants(server)
    time.sleep(0.3)
    return before & descendants(server)


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_nothing_outlives_the_interpreter():
    code = (
        "from rewards.code import *\nfrom rewards.code import default_sandbox\n"
        f"assert code_reward(['?'], [{DOUBLE!r}], tests=[{TESTS!r}]) == [1.0]\n"
        "print(default_sandbox()._servers[0].process.pid)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert wait_until(lambda: not is_running(int(done.stdout)))


def test_an_interrupted_batch_leaves_no_program(own):
    """Leaving the job ends the process, whatever the reason."""
    assert own.tier
    limits = Limits(cpu_seconds=60, memory_bytes=256 << 20, file_bytes=0)
    order = {"role": "functions", "program": "while True: pass", "call_seconds": 60}
    with pytest.raises(KeyboardInterrupt), own.start(order, limits):
        raise KeyboardInterrupt
    assert wait_until(lambda: len(descendants(server_of(own).process.pid)) == (own.tier != "landlock"))


def test_descriptors_do_not_pile_up(own):
    rewards(DOUBLE, sandbox=own)
    before = len(os.listdir("/proc/self/fd"))
    rewards(*[DOUBLE, "```python\nprint(\n```", "```python\n1/0\n```"] * 10, sandbox=own)
    assert len(os.listdir("/proc/self/fd")) == before
    servers = descendants(server_of(own).process.pid) | {server_of(own).process.pid}
    assert all(len(os.listdir(f"/proc/{pid}/fd")) < 20 for pid in servers)


def test_no_secret_reaches_the_server(own, monkeypatch):
    """It starts with an empty environment: nothing of ours is in its memory to begin with."""
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert own.tier
    server = server_of(own).process.pid
    assert wait_until(lambda: len(descendants(server)) == (own.tier != "landlock"))
    for pid in {server, *descendants(server)}:
        names = {item.split(b"=")[0] for item in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0") if item}
        assert names <= {b"PYTHONHASHSEED", b"LANG", b"PATH", b"LD_LIBRARY_PATH"}


def test_sets_have_the_same_order_in_every_run():
    program = "```python\nprint(list({'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'}))\n```"
    outputs = set()
    for _ in range(2):
        made = Sandbox()
        limits = Limits(cpu_seconds=5, memory_bytes=256 << 20, file_bytes=1 << 16)
        fds = [os.memfd_create("test") for _ in range(3)]
        order = {"role": "script", "program": program.split("\n")[1]}
        with made.start(order, limits, fds) as job:
            assert job.wait(time.monotonic() + 30).status == 0
        outputs.add(os.pread(fds[1], 1000, 0))
        for fd in fds:
            os.close(fd)
        made.close()
    assert len(outputs) == 1
    assert b"'a'" in outputs.pop()


def test_structures_of_the_kernel():
    """The filter's header is a length and a pointer."""
    assert ctypes.sizeof(seccomp._Program) == 16
