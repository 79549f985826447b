"""The code rewards: right programs earn, wrong ones do not, and rows that cannot be judged are masked."""

import gzip
import json
import shutil
from collections import Counter
from pathlib import Path

import pytest

from rewards.code import code_reward, code_share_reward, code_step_reward, code_verdicts

HUMANEVAL = Path(__file__).parents[4] / "shared" / "data" / "HumanEval.jsonl.gz"
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
DOUBLE = [{"input": "2\n", "output": "4"}, {"input": "5\n", "output": "10"}]


def fenced(program, language="python"):
    return f"<think>Hm.</think>Here it is:\n```{language}\n{program}\n```\n"


def verdicts(program, sandbox, language="python", **row):
    columns = {name: [value] for name, value in {**row, "lang": language}.items()}
    (verdict,) = code_verdicts(["Write it."], [fenced(program, language)], sandbox=sandbox, **columns)
    return verdict


def kind(program, sandbox, **row):
    return verdicts(program, sandbox, **row).kind.value


RUNS = {
    "passed": "n = int(input())\nprint(2 * n)",
    "wrong_output": "n = int(input())\nprint(2 + n)",
    "runtime_error": "print(1 / 0)",
    "compile_error": "print((1)",
    "memory": "print(len('x' * (1 << 40)))",
}


@pytest.mark.parametrize("expected", RUNS)
def test_scripts(expected, sandbox):
    assert kind(RUNS[expected], sandbox, tests=DOUBLE) == expected


@pytest.mark.parametrize(
    "program",
    [
        "import sys\nfor line in sys.stdin:\n    sys.stdout.write(str(2 * int(line)) + '\\n')",
        "import sys\nprint(2 * int(sys.stdin.buffer.read()))",
        "print(2 * int(open(0).read()))",
        "import os\nprint(2 * int(os.read(0, 100)))",
        "import sys\nsys.setrecursionlimit(10**6)\ndef f(n):\n    return n and 2 + f(n - 1)\nprint(f(int(input())))",
        "import threading\nthreading.stack_size(2**26)\n"
        "threading.Thread(target=lambda: print(2 * int(input()))).start()",
        "import numbers, hashlib, sqlite3, asyncio, zoneinfo, ctypes\nprint(2 * int(input()))",
        "def main():\n    print(2 * int(input()))\nif __name__ == '__main__':\n    main()",
        "from dataclasses import dataclass\n@dataclass\nclass A:\n    n: int\n"
        "print(2 * A(int(input())).n)\nraise SystemExit",
        "import pickle\nclass A:\n    pass\npickle.loads(pickle.dumps(A()))\nprint(2 * int(input()))",
        "import sys\nn = int(input())\nprint('ü ok', file=sys.stderr)\nprint(2 * n)\nsys.exit(0)",
        "import multiprocessing, time, random\ntime.sleep(0.01)\nprint(2 * int(input()))",
        "try:\n    import numpy\nexcept ImportError:\n    pass\nprint(2 * int(input()))",
    ],
)
def test_honest_scripts_find_what_they_need(program, sandbox):
    assert kind(program, sandbox, tests=DOUBLE) == "passed"


def test_a_large_input_and_output(sandbox):
    numbers = "\n".join(map(str, range(300_000)))
    program = "import sys\nprint(sys.stdin.read())"
    assert kind(program, sandbox, tests=[{"input": numbers, "output": numbers}]) == "passed"


def test_text_beyond_ascii(sandbox):
    assert kind("print(input()[::-1])", sandbox, tests=[{"input": "añ漢🎉", "output": "🎉漢ña"}]) == "passed"


def test_a_status_other_than_0_fails(sandbox):
    assert kind("print(2 * int(input()))\nraise SystemExit(3)", sandbox, tests=DOUBLE) == "runtime_error"


def test_an_endless_loop_ends_in_time(sandbox):
    verdict = verdicts("while True: pass", sandbox, tests=DOUBLE, time_limit=1)
    assert verdict.kind == "timeout"


SOLUTION = "class Solution:\n    def twice(self, n):\n        return [2 * x for x in n]"
CALLS = {"tests": [{"args": [[1, 2]], "expected": [2, 4]}, {"args": [[]], "expected": []}], "entry_point": "twice"}


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("def twice(n):\n    return [2 * x for x in n]", "passed"),
        ("def twice(n):\n    return tuple(2 * x for x in n)", "passed"),
        (SOLUTION, "passed"),
        ("twice = lambda n: [x + x for x in n]", "passed"),
        ("def twice(n):\n    return n", "wrong_output"),
        ("def twice(n):\n    return str(n)", "wrong_output"),
        ("def twice(n, m):\n    return n", "runtime_error"),
        ("def thrice(n):\n    return n", "runtime_error"),
        ("def twice(n):\n    return object()", "runtime_error"),
        ("import missing_module\ndef twice(n): pass", "runtime_error"),
        ("def twice(n) return n", "compile_error"),
        ("def twice(n):\n    return ' ' * (1 << 40)", "memory"),
        ("if __name__ == '__main__':\n    input()\ndef twice(n):\n    return [2 * x for x in n]", "passed"),
    ],
)
def test_calls(program, expected, sandbox):
    assert kind(program, sandbox, **CALLS) == expected


def test_keyword_arguments(sandbox):
    tests = [{"kwargs": {"a": 1, "b": 2}, "expected": -1}]
    assert kind("def f(b, a):\n    return a - b", sandbox, tests=tests, entry_point="f") == "passed"


@pytest.mark.parametrize(
    ("test", "expected"),
    [
        ("assert candidate(3) == 9", "passed"),
        ("assert abs(candidate(1.5) - 2.25) < 1e-9, 'message'", "passed"),
        ("for i in range(50):\n        assert candidate(i) == i * i", "passed"),
        ("assert [candidate(i) for i in (1, 2)] == [1, 4]\n    assert candidate(2) is not None", "passed"),
        ("assert type(candidate(2)) is int\n    assert isinstance(candidate(2.0), float)", "passed"),
        (
            "try:\n        candidate('x')\n    except TypeError:\n        pass\n    else:\n        assert False",
            "bad_tests",
        ),
        (
            "try:\n        candidate('x')\n        assert candidate(1) == 0\n"
            "    except TypeError:\n        assert candidate(1) == 1",
            "passed",
        ),
        ("assert candidate(3) == 10", "wrong_output"),
        ("assert candidate('x') == 'x'", "runtime_error"),
        ("assert len(candidate(3)) == 1", "wrong_output"),
        ("assert undefined_name == candidate(3)", "bad_tests"),
        ("assert candidate(3) == undefined_name", "bad_tests"),
        ("assert candidate(object()) == 1", "bad_tests"),
        ("assert True", "bad_tests"),
        ("pass", "bad_tests"),
        ("import missing_module\n    assert candidate(3) == 9", "bad_tests"),
        ("raise SystemExit", "bad_tests"),
        ("import os; os._exit(0)", "bad_tests"),
        ("import os; os.closerange(0, 99); assert candidate(1) == 1", "bad_tests"),
    ],
)
def test_asserts(test, expected, sandbox):
    test = f"def check(candidate):\n    {test}\n"
    assert kind("def square(n):\n    return n * n", sandbox, test=test, entry_point="square") == expected


@pytest.mark.parametrize("raised", ["StopIteration", "StopAsyncIteration", "GeneratorExit", "KeyboardInterrupt"])
def test_an_exception_does_not_end_the_tests_early(raised, sandbox):
    """`map` would take a StopIteration for the end of its items, and `all` of none is true."""
    test = "def check(candidate):\n    assert all(map(candidate, [1, 2]))\n    assert all(candidate(i) for i in (1, 2))"
    assert kind(f"def f(n):\n    raise {raised}", sandbox, test=test, entry_point="f") == "runtime_error"


def test_asserts_about_several_functions(sandbox):
    row = {"test_list": ["assert one() == 1", "assert math.isclose(two(one()), 2)"], "test_setup_code": "import math"}
    assert kind("def one():\n    return 1\ndef two(x):\n    return 2.0 * x", sandbox, **row) == "passed"
    verdict = verdicts("def one():\n    return 2\ndef two(x):\n    return 2.0", sandbox, **row)
    assert (verdict.kind, verdict.passed, verdict.total) == ("wrong_output", 0, 2)


def test_a_program_never_sees_the_tests(sandbox):
    """Nothing of an expected value is anywhere in its process, also not of the sample before."""
    spy = (
        "import gc, sys\ndef f(n):\n    seen = str([o for o in gc.get_objects() if type(o) in (list, dict, tuple)])\n"
        "    return bytes([69, 88, 80, 69, 67, 84, 69, 68]).decode() in seen"
    )
    tests = [{"args": [0], "expected": "EXPECTED"}, {"args": [0], "expected": False}]
    columns = {"tests": [tests] * 4, "entry_point": ["f"] * 4}
    found = code_verdicts(["?"] * 4, [fenced(spy)] * 4, first_failure_decides=False, sandbox=sandbox, **columns)
    assert [verdict.passed for verdict in found] == [1] * 4


FOUR = [{"input": str(n), "output": str(2 * n)} for n in (1, 2, 3, 4)]


def test_the_three_rewards(sandbox):
    programs = ["print(2 * int(input()))", "print(min(6, 2 * int(input())))", "print(0)", "print(", ""]
    columns = {"tests": [FOUR] * 5, "sandbox": sandbox}
    completions = [fenced(program) if program else "<think>no end" for program in programs]
    assert code_reward(["?"] * 5, completions, **columns) == [1.0, 0.0, 0.0, 0.0, 0.0]
    assert code_share_reward(["?"] * 5, completions, **columns) == [1.0, 0.75, 0.0, 0.0, 0.0]
    assert code_step_reward(["?"] * 5, completions, **columns) == pytest.approx([1.0, 0.775, 0.1, 0.0, 0.0])


def test_share_goes_on_after_a_run_that_hangs(sandbox):
    program = "n = int(input())\nwhile n == 2:\n    pass\nprint(2 * n)"
    columns = {"tests": [FOUR], "time_limit": [1.0], "sandbox": sandbox}
    assert code_share_reward(["?"], [fenced(program)], **columns) == [0.75]


def test_calls_after_a_crash_count_as_failed(sandbox):
    program = "import os\ndef f(n):\n    if n == 2:\n        os._exit(0)\n    return n"
    tests = [{"args": [n], "expected": n} for n in (0, 1, 2, 3)]
    columns = {"tests": [tests], "entry_point": ["f"], "sandbox": sandbox}
    assert code_share_reward(["?"], [fenced(program)], **columns) == [0.5]


def test_rows_without_usable_tests_are_masked(sandbox):
    columns = {
        "tests": [None, DOUBLE, DOUBLE],
        "generated_checker": [None] * 3,
        "official_tests": [None] * 3,
        "lang": ["python", "rust", "python"],
        "answer": ["4", None, None],
    }
    assert code_reward(["?"] * 3, [fenced(RUNS["passed"])] * 3, **columns, sandbox=sandbox) == [None, None, 1.0]
    found = code_verdicts(["?"] * 3, [fenced(RUNS["passed"])] * 3, **columns, sandbox=sandbox)
    assert found[0] is None
    assert found[1].kind == "bad_tests"
    assert "rust" in found[1].detail


def test_conversations_and_other_arguments(sandbox):
    prompt = [{"role": "user", "content": "Double it."}]
    completion = [{"role": "assistant", "content": fenced(RUNS["passed"])}]
    rewards = code_reward([prompt], [completion], tests=[DOUBLE], trainer_state=object(), step=3, sandbox=sandbox)
    assert rewards == [1.0]


def test_a_column_of_another_length_is_an_error(sandbox):
    with pytest.raises(ValueError, match="2 completions need as many values in 'tests', got 1"):
        code_reward(["?"] * 2, ["a", "b"], tests=[DOUBLE], sandbox=sandbox)


@needs_compiler
@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("#include <iostream>\nint main() { long long n; std::cin >> n; std::cout << 2 * n; }", "passed"),
        ('#include <cstdio>\nint main() { int n; std::scanf("%d", &n); std::printf("%d", n); }', "wrong_output"),
        ("int main() { return 3; }", "runtime_error"),
        ("int main() { return x; }", "compile_error"),
        (
            "#include <vector>\nint main() { std::vector<std::vector<char>> v; for (;;) v.emplace_back(1 << 24); }",
            "memory",
        ),
    ],
)
def test_cpp(program, expected, sandbox):
    assert kind(program, sandbox, language="cpp", tests=DOUBLE) == expected


CPP_FUNCTIONS = {
    "a free function": (
        "long long f(int a, long long b) { return a + b; }",
        [([1, 2], 3), ([-1, 10**15], 10**15 - 1)],
    ),
    "a method": (
        "class Solution {\npublic:\n"
        "    vector<int> f(vector<int>& v) const { sort(v.begin(), v.end()); return v; }\n};",
        [([[3, 1, 2]], [1, 2, 3]), ([[]], [])],
    ),
    "text": (
        'string f(string s, char c) { cout << "noise" << endl; return s + c + "\\n\\""; }',
        [(["a b\tü", "x"], 'a b\tüx\n"'), (["", ","], ',\n"')],
    ),
    "numbers": (
        "double f(double x, bool b) { return b ? x / 3 : x; }",
        [([1, True], 0.3333333333), ([2.5e10, False], 2.5e10), ([4.0, False], 4)],
    ),
    "bool": ("bool f(const vector<string>& v) { return v.size() > 1; }", [([["a"]], False), ([["a", "b"]], True)]),
    "containers": (
        "map<string, vector<pair<int, double>>> f(map<int, string> m, set<int> s) {\n"
        "    map<string, vector<pair<int, double>>> r;\n    for (auto& [k, v] : m) r[v].push_back({k, s.count(k)});\n"
        "    return r;\n}",
        [([{"1": "a", "2": "b"}, [2]], {"a": [[1, 0.0]], "b": [[2, 1.0]]})],
    ),
    "macros": (
        "#define int long long\nint f(int n) { return n * n; }\nsigned main() {}",
        [([10**9], 10**18), ([3], 9)],
    ),
    "nested": (
        "vector<vector<char>> f(vector<vector<char>> g) { return g; }",
        [([[["a", "b"], []]], [["a", "b"], []])],
    ),
}


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("name", CPP_FUNCTIONS)
def test_functions_in_cpp(name, sandbox):
    program, calls = CPP_FUNCTIONS[name]
    tests = [{"args": args, "expected": expected} for args, expected in calls]
    verdict = verdicts(program, sandbox, language="cpp", tests=tests, entry_point="f")
    assert verdict.kind == "passed", verdict
    wrong = [{"args": args, "expected": [expected]} for args, expected in calls]
    assert kind(program, sandbox, language="cpp", tests=wrong, entry_point="f") == "wrong_output"


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("int f(string s) { return 1; }", "runtime_error"),
        ("int g(int n) { return n; }", "compile_error"),
        ("int f(int n) { exit(0); }", "wrong_output"),
        ('int f(int n) { puts("2"); exit(0); }', "passed"),
        ('int f(int n) { puts("{[["); exit(0); }', "wrong_output"),
        ("struct All { template<class T> operator T() const; };\nAll f(int n) { return {}; }", "compile_error"),
    ],
)
def test_functions_in_cpp_that_fail(program, expected, sandbox):
    """One that prints the right result itself has found it: there is nothing else to learn it from."""
    row = {"tests": [{"args": [1], "expected": 2}], "entry_point": "f"}
    assert kind(program, sandbox, language="cpp", **row) == expected


@needs_compiler
@pytest.mark.slow
def test_cpp_that_includes_everything(sandbox):
    program = "#include <bits/stdc++.h>\nusing namespace std;\nint main() { int n; cin >> n; cout << 2 * n << endl; }"
    assert [kind(program, sandbox, language="cpp", tests=DOUBLE) for _ in range(3)] == ["passed"] * 3


NEAR_MISS = """
_right = {name}
def {name}(*arguments):
    value = _right(*arguments)
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, (int, float)):
        return value + 1
    return value + type(value)("x") if isinstance(value, (str, list, tuple)) else None
"""


@pytest.mark.slow
@pytest.mark.skipif(not HUMANEVAL.exists(), reason="needs ../shared/data/HumanEval.jsonl.gz")
def test_humaneval(sandbox):
    rows = [json.loads(line) for line in gzip.decompress(HUMANEVAL.read_bytes()).decode().splitlines()]
    columns = {name: [row[name] for row in rows] for name in ("test", "entry_point")}
    prompts = [row["prompt"] for row in rows]

    def judged(completions):
        found = code_verdicts(prompts, completions, sandbox=sandbox, **columns)
        return Counter(verdict.kind.value for verdict in found)

    canonical = [row["canonical_solution"] for row in rows]
    assert judged(canonical) == {"passed": 164}
    assert judged([fenced(prompt + rest) for prompt, rest in zip(prompts, canonical)]) == {"passed": 164}
    assert "passed" not in judged(["    pass\n"] * 164)
    assert judged(["    import os; os._exit(0)\n"] * 164) == {"runtime_error": 164}
    assert "passed" not in judged(
        [code + NEAR_MISS.format(name=row["entry_point"]) for code, row in zip(canonical, rows)]
    )
