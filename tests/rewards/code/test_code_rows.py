"""Rows of data sets as tests, programs of completions, and when outputs are the same."""

import base64
import contextlib
import json
import pickle
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.code.compare import same_output, same_value
from rewards.code.programs import complete_program, extract_program, language_of, task_code
from rewards.code.rows import MEMORY_MB, TIME_LIMIT, BadTests, Call, Case, suite_of
from rewards.code.wire import MAX_DEPTH, Unsendable, WireError, decode, encode

RUNS = [{"input": "1\n", "output": "2\n"}, {"input": "3", "output": "4"}]
CASES = (Case("1\n", "2\n"), Case("3", "4"))


@pytest.mark.parametrize(
    "row",
    [
        {"tests": RUNS},
        {"tests": json.dumps(RUNS)},
        {"input_output": json.dumps({"inputs": ["1\n", "3"], "outputs": ["2\n", "4"]})},
        {"input_output": {"inputs": ["1\n", ["3"]], "outputs": ["2\n", ["4"]]}},
        {"verification_info": json.dumps({"language": "python", "test_cases": [{"fn_name": None, **r} for r in RUNS]})},
        {"public_test_cases": json.dumps([{**r, "testtype": "stdin"} for r in RUNS]), "private_test_cases": "[]"},
        {"official_tests": RUNS, "examples": None, "generated_checker": None, "input_mode": "stdio"},
        {"official_tests": RUNS[:1], "examples": RUNS[1:]},
    ],
    ids=lambda row: next(iter(row)),
)
def test_runs_in_every_layout(row):
    assert suite_of(row).cases == CASES


def test_calls_in_every_layout():
    expected = (Call(args=(1, [2]), expected=3), Call(args=(4, []), expected=5))
    apps = {"fn_name": "f", "inputs": [[1, [2]], [4, []]], "outputs": [[3], [5]]}
    codeforces_like = [
        {"fn_name": "f", "input": "[1, [2]]", "output": "3"},
        {"fn_name": "f", "input": "[4, []]", "output": "5"},
    ]
    livecode = [
        {"input": "1\n[2]", "output": "3", "testtype": "functional"},
        {"input": "4\n[]", "output": "5", "testtype": "functional"},
    ]
    for row in (
        {"input_output": json.dumps(apps)},
        {"input_output": json.dumps({**apps, "outputs": [3, 5]})},
        {"verification_info": {"language": "python", "test_cases": codeforces_like}},
        {"private_test_cases": json.dumps(livecode), "metadata": json.dumps({"func_name": "f"})},
        {"tests": [{"args": [1, [2]], "expected": 3}, {"args": [4, []], "expected": 5}], "entry_point": "f"},
    ):
        suite = suite_of(row)
        assert suite.calls == expected, row
        assert suite.names == ("f",)


def packed(value, protocol=pickle.DEFAULT_PROTOCOL):
    return base64.b64encode(zlib.compress(pickle.dumps(value, protocol))).decode()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_packed_tests_are_read(protocol):
    text = json.dumps([{**run, "testtype": "stdin"} for run in RUNS])
    assert suite_of({"private_test_cases": packed(text, protocol)}).cases == CASES


def test_packed_code_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "made"), "w"))

    for bad in (packed(Evil()), packed([1, 2]), packed(("a", "b")), "not base64!", base64.b64encode(b"x").decode()):
        with pytest.raises(BadTests):
            suite_of({"private_test_cases": bad})
    assert list(tmp_path.iterdir()) == []


def test_humaneval():
    prompt = "import math\n\ndef f(x):\n    '''Doc.'''\n"
    suite = suite_of({"test": "def check(candidate):\n    assert candidate(1) == 2\n", "entry_point": "f"}, prompt)
    assert suite.names == ("f",)
    assert suite.preamble == suite.setup == prompt
    assert suite.snippets[0].endswith("check(f)\n")


def test_mbpp():
    row = {
        "test_list": ["assert math.isclose(area(2), 4)", "assert set(twice([1])) == {2}"],
        "test_setup_code": "",
        "test_imports": ["import math"],
    }
    suite = suite_of(row)
    assert suite.names == ("area", "twice")
    assert suite.setup.strip() == "import math"


def test_rows_without_tests_have_none():
    for row in (
        {},
        {"answer": "4"},
        {"tests": None},
        {"tests": []},
        {"test_list": None, "test": "", "input_output": ""},
    ):
        assert suite_of(row) is None


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"official_tests": RUNS, "generated_checker": "import sys"}, "generated_checker decides"),
        ({"official_tests": RUNS, "interaction_format": "print"}, "interactive"),
        ({"official_tests": RUNS, "input_mode": "file"}, "files"),
        ({"tests": RUNS, "lang": "rust"}, "'rust' are not judged"),
        ({"tests": RUNS, "time_limit": -1}, "time_limit is a positive number"),
        ({"tests": RUNS, "time_limit": "soon"}, "time_limit is a positive number"),
        ({"tests": RUNS, "memory_limit": float("nan")}, "memory_limit is a positive number"),
        ({"tests": "{"}, "not laid out"),
        ({"tests": [{"input": 5, "output": "x"}]}, "text, or a list of lines"),
        ({"tests": [{"args": [1], "expected": 2}]}, "need its name"),
        ({"input_output": json.dumps({"inputs": ["1"], "outputs": []})}, "1 inputs need as many outputs"),
        ({"test": "def check(", "entry_point": "f"}, "not Python"),
        ({"test": "def check(c): pass"}, "entry_point"),
        ({"test": "import unittest", "entry_point": "f"}, "unittest"),
        ({"test_list": ["assert 1 == 1"]}, "need its name"),
        ({"test_list": ["assert f(1) == 1"], "lang": "cpp"}, "asserts are Python"),
        ({"public_test_cases": [{"input": "1", "output": "1", "testtype": "functional"}]}, "func_name"),
        ({"public_test_cases": [{"input": "1", "output": "1", "testtype": "magic"}]}, "stdin or functional"),
    ],
)
def test_rows_that_cannot_be_used_say_why(row, why):
    with pytest.raises(BadTests, match=why):
        suite_of(row)


def test_limits():
    suite = suite_of({"tests": RUNS})
    assert (suite.time_limit, suite.memory_mb) == (TIME_LIMIT, MEMORY_MB)
    suite = suite_of({"tests": RUNS, "time_limit": 1.5, "memory_limit": 256.0})
    assert (suite.time_limit, suite.memory_mb) == (1.5, 256)


# Programs

FENCED = "```python\nfirst\n```\n"


@pytest.mark.parametrize(
    ("completion", "program"),
    [
        ("```python\na = 1\n```", "a = 1\n"),
        (FENCED + "Better:\n```py\nsecond\n```\nDone.", "second\n"),
        (FENCED + "It prints\n```\noutput\n```", "first\n"),
        (FENCED + "```text\noutput\n```", "first\n"),
        ("```\nplain\n```", "plain\n"),
        ("    return x + 1\n", "    return x + 1\n"),
        ("<think>" + FENCED + "</think>\n```python\nlast\n```", "last\n"),
        ("<think>" + FENCED, None),
        ("<think>" + FENCED + "</think>", None),
        ("<think>.</think><answer>```python\ninside\n```</answer>", "inside\n"),
        (FENCED + "<answer>\nbare = 1\n</answer>", "\nbare = 1\n"),
        ("```python\ncut off", "cut off"),
        ("````python\ns = '''\n```\n'''\n````", "s = '''\n```\n'''\n"),
        ("~~~python\na\n~~~", "a\n"),
        ("```java\nclass A {}\n```", None),
        ("", None),
        (" \n ", None),
        ("x" * 300_000, None),
    ],
)
def test_extraction(completion, program):
    got = extract_program(completion)
    assert got == program or (program == "inside\n" and got.startswith("inside\n"))


def test_extraction_by_language():
    text = "```python\np\n```\n```c++\nc\n```"
    assert extract_program(text, "cpp") == "c\n"
    assert extract_program(text, "python") == "p\n"


@given(st.text(alphabet="`~\n pythn<>/answer", max_size=200))
def test_extraction_never_raises(text):
    extract_program(text)


def test_languages():
    assert [language_of(name) for name in ("Python3", "cpp", "C++20", "", None, "go")] == [
        "python",
        "cpp",
        "cpp",
        "python",
        "python",
        None,
    ]


def test_programs_are_completed():
    head = "import math\n\ndef f(x):\n    '''Doc.'''\n"
    assert complete_program("    return x\n", head, "f") == head + "    return x\n"
    whole = complete_program("def f(x):\n    return x\n", head, "f")
    assert whole.startswith(head)
    assert whole.endswith("def f(x):\n    return x\n")
    assert complete_program("x", "", "f") == "x"
    assert task_code(f"Complete this.\n```python\n{head}```", "f") == head
    assert task_code("def f(", "f") == ""
    assert task_code("What is 2 + 2?", "f") == ""


# Comparison


@pytest.mark.parametrize(
    ("got", "expected", "same"),
    [
        ("4", "4\n", True),
        ("1 2\n3\n", "1  2 \n\n3", True),
        ("1\r\n2\r\n", "1\n2", True),
        ("1\n2", "1 2", False),
        ("YES", "Yes", False),
        ("0.33333333", "0.333333333333", True),
        ("0.333", "0.333333333333", False),
        ("1", "1.0", True),
        ("1e0", "1.0", True),
        ("1.0", "1", False),
        ("123456789", "123456788", False),
        ("nan", "nan", True),
        ("nan", "1.0", False),
        ("inf", "1.0", False),
        ("1_0", "10.0", False),
        ("", "", True),
        ("x", "", False),
        ("9" * 1000, "1.0", False),
        ("1.0e999", "1.0e998", False),
    ],
)
def test_outputs(got, expected, same):
    assert same_output(got, expected) is same


def test_tolerance_can_be_switched_off():
    assert not same_output("1.00", "1.0", tolerance=0)


@pytest.mark.parametrize(
    ("got", "expected", "same"),
    [
        (3, 3, True),
        (3.0, 3, True),
        (0.1 + 0.2, 0.3, True),
        (True, 1, False),
        (1, True, False),
        (None, None, True),
        (None, 0, False),
        ("3", 3, False),
        ((1, 2), [1, 2], True),
        ({1, 2}, [1, 2], False),
        ({1: 2}, {"1": 2}, True),
        ({1: 2, "1": 2}, {"1": 2}, False),
        ([1, [2, 3.0000000001]], [1, [2, 3]], True),
        (10**400, 1.5, False),
        (float("nan"), float("nan"), False),
        (b"a", "a", False),
    ],
)
def test_values(got, expected, same):
    assert same_value(got, expected) is same


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.complex_numbers(allow_nan=False),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.integers() | st.text(), inner),
    max_leaves=10,
)


@given(plain)
def test_values_survive_the_wire(value):
    there = decode(json.loads(json.dumps(encode(value))))
    assert there == value
    assert repr(there) == repr(value)


def test_sets_and_big_numbers_survive_too():
    for value in ({1, (2, "x")}, frozenset("ab"), -(1 << 200), float("inf"), bytearray(b"x"), "\ud800"):
        there = decode(json.loads(json.dumps(encode(value))))
        assert there == value
        assert type(there) is type(value)


def test_nothing_else_crosses_the_wire():
    deep = []
    for _ in range(MAX_DEPTH + 1):
        deep = [deep]
    for value in (object(), lambda: 0, int, deep, range(3), iter([])):
        with pytest.raises(Unsendable):
            encode(value)


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"set": [[1]]},
        {"set": 1},
        {"dict": [[1]]},
        {"dict": [1]},
        {"int": "x"},
        {"int": 5},
        {"float": []},
        {"bytes": "g"},
        {"object": []},
        {"complex": ["a", "b"]},
        {"tuple": {}},
        {"a": 1, "b": 2},
        {"frozenset": [{"dict": []}]},
    ],
)
def test_what_is_no_value_is_refused(data):
    with pytest.raises(WireError):
        decode(data)


@given(
    st.recursive(
        st.none() | st.integers() | st.text(),
        lambda x: (
            st.lists(x)
            | st.dictionaries(st.sampled_from(["int", "set", "dict", "tuple", "float", "complex", "x"]), x, max_size=2)
        ),
    )
)
def test_decoding_raises_only_wire_errors(data):
    with contextlib.suppress(WireError):
        decode(data)
