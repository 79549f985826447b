"""Runs the hostile programs in a world with a secret to steal and things to break, and looks whether any of it
happened.

Needs no pytest, so that another user's Python can run it: `python hostile_checks.py TIER …`.
"""

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import hostile_programs as hostile

from rewards.code import Sandbox, SandboxError, code_verdicts

FAILURES = {"wrong_output", "runtime_error", "timeout", "memory", "compile_error", "no_program"}


@dataclass
class World:
    """What a hostile program may reach for."""

    secret: str
    secret_file: Path
    folder: Path
    port: int
    victim: subprocess.Popen
    visitors: list

    def fill_in(self, program):
        return program.format(
            secret_file=str(self.secret_file),
            folder=str(self.folder),
            port=self.port,
            parent=os.getpid(),
            victim=self.victim.pid,
        )

    def assert_unharmed(self):
        assert self.secret_file.read_text() == self.secret
        assert list(self.folder.iterdir()) == []
        assert self.folder.stat().st_mode & 0o777 == 0o777
        assert self.victim.poll() is None
        assert self.visitors == []


@contextlib.contextmanager
def make_world():
    secret = "SECRET-" + secrets.token_hex(8)
    base = Path(tempfile.mkdtemp())
    base.chmod(0o755)  # so that only the walls keep a program out
    secret_file, folder = base / "secret", base / "open"
    secret_file.write_text(secret)
    secret_file.chmod(0o644)
    folder.mkdir()
    folder.chmod(0o777)
    os.environ["R1LAB_SECRET"] = secret
    visitors = []
    victim = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            threading.Thread(target=give_away, args=(server, secret, visitors), daemon=True).start()
            yield World(secret, secret_file, folder, server.getsockname()[1], victim, visitors)
            server.shutdown(socket.SHUT_RDWR)
    finally:
        victim.kill()
        victim.wait()
        shutil.rmtree(base)
        del os.environ["R1LAB_SECRET"]


def give_away(server, secret, visitors):
    """Tell the secret to everybody who connects, and remember that somebody did."""
    with contextlib.suppress(OSError):
        while True:
            connection, address = server.accept()
            visitors.append(address)
            with connection:
                connection.sendall(secret.encode())


def descendants(pid):
    """All processes below one, as far as they live."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            if state != "Z":
                parents[int(entry.name)] = int(parent)
    below, size = {pid}, 0
    while len(below) > size:
        size = len(below)
        below |= {child for child, parent in parents.items() if parent in below}
    return below - {pid}


def wait_until(condition, seconds=10.0):
    """Whether it comes true in time."""
    end = time.monotonic() + seconds
    while not (holds := condition()) and time.monotonic() < end:
        time.sleep(0.02)
    return holds


def check_functions(programs, world, sandbox):
    """Each fails, and the honest one beside them passes."""
    programs = {**programs, "honest": f"def reveal(n):\n    return {world.secret!r}"}
    test = f"def check(candidate):\n    assert candidate(0) == {world.secret!r}\n"
    check(programs, world, sandbox, test=test, entry_point="reveal")


def check_scripts(programs, world, sandbox):
    programs = {**programs, "honest": f"print({world.secret!r})"}
    check(programs, world, sandbox, tests=[{"input": "1 2 3", "output": world.secret}])


def check_cpp(programs, world, sandbox):
    honest = f'#include <cstdio>\nint main() {{{{ std::puts("{world.secret}"); }}}}'
    tests = [{"input": "1 2 3", "output": world.secret}]
    check({**programs, "honest": honest}, world, sandbox, lang="cpp", tests=tests)


def check(programs, world, sandbox, **row):
    """The time limit is 1 s."""
    assert sandbox.tier
    before = descendants(os.getpid())  # the server is among them, no program is
    completions = [f"```\n{world.fill_in(program)}\n```" for program in programs.values()]
    columns = {name: [value] * len(programs) for name, value in {**row, "time_limit": 1.0}.items()}
    verdicts = dict(zip(programs, code_verdicts(["Tell."] * len(programs), completions, sandbox=sandbox, **columns)))
    for name, verdict in verdicts.items():
        print(f"{name} | {verdict.kind} | {verdict.detail}")
    assert verdicts.pop("honest").kind == "passed"
    assert {name: verdict for name, verdict in verdicts.items() if verdict.kind not in FAILURES} == {}
    world.assert_unharmed()
    assert wait_until(lambda: descendants(os.getpid()) <= before)


def main(tiers):
    for tier in tiers:
        sandbox = Sandbox([tier])
        try:
            print(f"user {os.getuid()}, tier {sandbox.tier}")
        except SandboxError as error:
            print(f"no tier {tier}: {error}")
            continue
        with make_world() as world:
            check_functions(hostile.FUNCTIONS, world, sandbox)
            check_scripts(hostile.SCRIPTS, world, sandbox)
        sandbox.close()
        print(f"held: {tier}")


if __name__ == "__main__":
    main(sys.argv[1:])
