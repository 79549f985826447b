"""The worker pool: time-outs, deaths, threads, forks, and nothing left behind."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from rewards import VerdictKind, WorkerError, WorkerPool, accuracy_reward, default_pool
from rewards.mathematics.pool import Pair

ROOT = Path(__file__).parents[2]
RIGHT = Pair(gold="$x+1$", answer="$1+x$")
BOMB = Pair(gold="$42$", answer="$9^{9^9}$")


def kinds(verdicts):
    return [verdict.kind.value for verdict in verdicts]


def wait_until(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


def is_running(pid):
    """Whether a process lives; one that has ended and waits to be reaped does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def run_python(code, **options):
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, **options)


def test_verdicts_come_back_in_order(pool):
    pairs = [Pair(gold=f"$x+{i}$", answer=f"${i + i % 2}+x$") for i in range(30)]
    assert kinds(pool.verify_many(pairs)) == ["correct", "wrong"] * 15
    assert pool.verify_many([]) == []
    assert kinds(pool.verify_many([RIGHT] * 3)) == ["correct"] * 3


def test_a_null_answer_only_reads_the_gold_answer(pool):
    unanswered = [Pair(gold=gold, answer=None) for gold in ("$x+1$", r"$\frac{1}{$")]
    assert kinds(pool.verify_many(unanswered)) == ["no_answer", "unreadable_gold"]


def test_known_verdicts_need_no_process(single):
    assert kinds(single.verify_many([RIGHT])) == ["correct"]
    single.close()
    assert single.pids() == []
    assert kinds(single.verify_many([RIGHT, RIGHT])) == ["correct"] * 2
    assert single.pids() == []


def test_the_cache_forgets_the_least_recently_used(single, monkeypatch):
    monkeypatch.setattr(single, "cache_size", 2)
    first, second, third = (Pair(gold=f"${i}$", answer=None) for i in range(3))
    single.verify_many([first, second])
    single.verify_many([first])
    single.verify_many([third])
    assert list(single._cache) == [first, third]


def test_a_time_out_ends_the_process_and_is_not_remembered(single):
    single.verify_many([RIGHT])
    (before,) = single.pids()
    single.timeout = 0.5
    assert kinds(single.verify_many([BOMB, Pair(gold="$x$", answer="$y$")])) == ["timeout", "wrong"]
    assert not is_running(before)
    assert BOMB not in single._cache  # a machine that was busy for a moment must not make an answer wrong for good


def test_time_outs_do_not_hold_up_the_others(pool, monkeypatch):
    """Bombs on one worker, honest answers on the other; each time-out costs its own time and little more."""
    monkeypatch.setattr(pool, "timeout", 0.4)
    bombs = [Pair(gold="$7$", answer=f"$9^{{9^9}}+{i}$") for i in range(6)]
    honest = [Pair(gold=f"$t+{i}$", answer=f"${i}+t$") for i in range(6)]
    start = time.monotonic()
    verdicts = pool.verify_many([pair for both in zip(bombs, honest) for pair in both])
    assert [verdict.kind.value for verdict in verdicts[::2]] == ["timeout"] * 6
    assert time.monotonic() - start < 6  # 1.3 s on idle cores


def test_the_first_check_is_not_charged_for_imports():
    """Importing math-verify takes far longer than this time-out; the comparison does not."""
    workers = WorkerPool(size=1, timeout=0.2)
    assert workers.verify_many([Pair(gold="$42$", answer="$43$")])[0].kind is VerdictKind.WRONG
    (pid,) = workers.pids()
    del workers  # and a pool that is dropped takes its processes along
    assert wait_until(lambda: not is_running(pid), 5.0)


def test_a_gold_answer_that_cannot_be_read_in_time_masks(single):
    nested = "$" + "{" * 900 + "42" + "}" * 900 + "$"
    single.timeout = 0.3
    start = time.monotonic()
    verdicts = single.verify_many([Pair(gold=nested, answer=f"${i}$") for i in range(50)])
    assert {verdict.kind for verdict in verdicts} == {VerdictKind.GOLD_TIMEOUT}
    assert {verdict.reward for verdict in verdicts} == {None}
    assert time.monotonic() - start < 5  # the same gold answer is waited for once, 0.3 s


def test_an_idle_process_killed_from_outside_is_replaced(single):
    single.verify_many([RIGHT])
    (pid,) = single.pids()
    os.kill(pid, signal.SIGKILL)
    assert kinds(single.verify_many([Pair(gold="$2x$", answer="$x+x$")])) == ["correct"]
    assert pid not in single.pids()


SLOW = Pair(gold="$500$", answer="$" + "+".join("1" * 500) + "$")
"""Honest, and about 0.4 s of work on an idle core."""


def test_a_busy_process_killed_from_outside_is_replaced_and_its_check_repeated(single):
    single.verify_many([RIGHT])
    (pid,) = single.pids()
    threading.Timer(0.1, os.kill, [pid, signal.SIGKILL]).start()
    assert kinds(single.verify_many([SLOW])) == ["correct"]
    assert pid not in single.pids()


def test_a_whole_worker_killed_from_outside_is_replaced(single):
    single.verify_many([RIGHT])
    (pid,) = single.pids()
    single._workers[0].process.kill()
    os.kill(pid, signal.SIGKILL)
    assert kinds(single.verify_many([Pair(gold="$3x$", answer="$x+2x$")])) == ["correct"]


def test_a_check_whose_process_dies_twice_is_given_up(single):
    single.verify_many([RIGHT])
    verdicts, killed = [], set()
    thread = threading.Thread(target=lambda: verdicts.extend(single.verify_many([BOMB])))
    thread.start()
    while thread.is_alive():
        for worker in list(single._workers):
            child = worker.child
            if child and worker.gold_read and worker.job and child not in killed:
                killed.add(child)
                os.kill(child, signal.SIGKILL)
        time.sleep(0.02)
    assert kinds(verdicts) == ["unparsable"]
    assert len(killed) == 2


def test_threads_share_a_pool(pool):
    results = {}

    def verify(number):
        results[number] = pool.verify_many([Pair(gold=f"$y+{number}$", answer=f"${number}+y$"), RIGHT])

    threads = [threading.Thread(target=verify, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {number: kinds(verdicts) for number, verdicts in results.items()} == {n: ["correct"] * 2 for n in range(6)}


def test_time_outs_work_off_the_main_thread(single):
    single.timeout = 0.3
    verdicts = []
    thread = threading.Thread(target=lambda: verdicts.extend(single.verify_many([BOMB])))
    thread.start()
    thread.join(timeout=20)
    assert kinds(verdicts) == ["timeout"]


def test_a_forked_process_makes_its_own_pool_and_leaves_its_parents_alone():
    parents = default_pool()
    parents.verify_many([RIGHT])
    before = parents.pids()
    child = os.fork()
    if child == 0:
        right = accuracy_reward([""], [r"\boxed{1+z}"], answer=["z+1"]) == [1.0]
        own = default_pool() is not parents and not set(default_pool().pids()) & set(before)
        default_pool().close()
        os._exit(0 if right and own else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert parents.pids() == before
    assert kinds(parents.verify_many([Pair(gold="$2y$", answer="$y+y$")])) == ["correct"]


SCRIPT = """
from rewards import WorkerPool
from rewards.mathematics.pool import Pair
pool = WorkerPool(size=1, timeout=0.2)
pool.verify_many([Pair(gold="$42$", answer=None)])
print(pool._workers[0].process.pid, *pool.pids(), flush=True)
"""


def test_no_process_outlives_the_interpreter():
    done = run_python(SCRIPT)
    assert done.returncode == 0, done.stderr
    pids = [int(pid) for pid in done.stdout.split()]
    assert len(pids) == 2
    assert wait_until(lambda: not any(map(is_running, pids)), 5.0)


def test_no_process_outlives_a_killed_parent():
    """The parent dies without a chance to clean up, its worker in the middle of a bomb: the alarm rings, and stdin
    ends.
    """
    code = SCRIPT + "pool.timeout = 60.0\npool.verify_many([Pair(gold='$42$', answer='$9^{9^9}$')])"
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        time.sleep(0.2)
        parent.kill()
    assert len(pids) == 2
    assert wait_until(lambda: not any(map(is_running, pids)), 10.0)


def test_an_interrupted_batch_leaves_no_stale_reply(single, monkeypatch):
    single.verify_many([RIGHT])
    with monkeypatch.context() as patch:
        patch.setattr(single, "_wait_for_news", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            single.verify_many([Pair(gold="$3z$", answer="$z$")])
    assert kinds(single.verify_many([Pair(gold="$2z$", answer="$z+z$")])) == ["correct"]


def test_a_missing_math_verify_is_named(tmp_path):
    (tmp_path / "math_verify.py").write_text("raise ImportError('No module named math_verify')")
    code = "from rewards import check; check(gold='sin(2x)', answer='2sin(x)cos(x)')"
    done = run_python(code, env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert done.returncode != 0
    assert "No module named math_verify; run: pip install math-verify" in done.stderr


def test_a_worker_that_never_starts_is_an_error(monkeypatch, tmp_path):
    broken = tmp_path / "broken.py"
    broken.write_text("raise SystemExit(3)")
    monkeypatch.setattr("rewards.mathematics.pool.SCRIPT", broken)
    with pytest.raises(WorkerError, match="exit code 3"):
        WorkerPool(size=1).verify_many([RIGHT])


@pytest.mark.skipif(sys.platform != "linux", reason="macOS does not bound the address space")
def test_memory_and_files_are_bounded(tmp_path):
    code = (
        "import rewards.mathematics.worker as w; w.limit_resources(1 << 29)\n"
        "try: bytearray(1 << 30)\n"
        "except MemoryError: print('memory')\n"
        "try: print('x', file=open('{}', 'w', buffering=1))\n"
        "except OSError: print('files')"
    )
    assert run_python(code.format(tmp_path / "written")).stdout.split() == ["memory", "files"]


@pytest.mark.parametrize("options", [{"size": 0}, {"timeout": 0}, {"timeout": float("nan")}])
def test_senseless_pools_are_refused(options):
    with pytest.raises(ValueError, match=r"worker|timeout"):
        WorkerPool(**options)
