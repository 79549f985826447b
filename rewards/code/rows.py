"""Rows of code data sets as hidden tests, whatever the data set calls them.

    columns                                      as in
    verification_info                            Open-R1 verifiable-coding-problems (JSON: language, test_cases)
    input_output                                 APPS, TACO (JSON: inputs, outputs, perhaps fn_name)
    public_test_cases, private_test_cases        LiveCodeBench (JSON lists: input, output, testtype)
    official_tests, examples                     Open-R1 Codeforces (lists of input, output; time_limit, memory_limit)
    test, entry_point                            HumanEval (a function `check(candidate)`)
    test_list, test_setup_code or test_imports   MBPP (asserts)
    tests, perhaps entry_point                   our own: a list of {input, output}, or of {args, expected}, or asserts

Columns may hold JSON text where a list or a mapping is meant. The language stands in `programming_language` or `lang`.
A row that has tests which cannot be used raises BadTests: a wrong judgement would teach more than none.
"""

from __future__ import annotations

import ast
import base64
import binascii
import builtins
import json
import math
import pickletools
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rewards.code.programs import language_of, task_code
from rewards.texts import message_text

TIME_LIMIT = 2.0
"""Seconds of processor time for a test where the row names none."""
MEMORY_MB = 512
MAX_TIME_LIMIT, MAX_MEMORY_MB = 30.0, 4096
MAX_UNPACKED = 256 << 20
"""Bytes of LiveCodeBench's packed tests."""


class BadTests(ValueError):  # noqa: N818 - it says what came
    """The row's tests cannot be used; the message says why."""


@dataclass(frozen=True)
class Case:
    """A run of the program: what it reads, and what it must print."""

    input: str
    output: str


@dataclass(frozen=True, kw_only=True)
class Call:
    """A call of a function, and what it must return, as JSON gives it."""

    args: tuple
    expected: object
    kwargs: Mapping[str, object] | None = None


@dataclass(frozen=True, kw_only=True)
class Suite:
    """The hidden tests of one problem, of one kind: `cases`, or `calls`, or `snippets` of Python with asserts."""

    language: str = "python"
    cases: tuple[Case, ...] = ()
    calls: tuple[Call, ...] = ()
    snippets: tuple[str, ...] = ()
    setup: str = ""
    """Trusted code that the snippets need."""
    names: tuple[str, ...] = ()
    """The functions that the tests call; the first is the entry point."""
    preamble: str = ""
    """Code that the task gives: before the program, or with the program as its continuation."""
    time_limit: float = TIME_LIMIT
    memory_mb: int = MEMORY_MB

    def __post_init__(self) -> None:
        if sum(map(bool, (self.cases, self.calls, self.snippets))) != 1:
            raise BadTests("a row needs tests of one kind: runs, calls or asserts")
        if (self.calls or self.snippets) and not self.names:
            raise BadTests("tests of a function need its name: entry_point, fn_name or func_name")
        if self.language != "python" and any(call.kwargs for call in self.calls):
            raise BadTests("C++ has no keyword arguments")
        if self.snippets and self.language != "python":
            raise BadTests(f"asserts are Python, the program's language is {self.language}")


def suite_of(row: Mapping[str, Any], prompt: object = "") -> Suite | None:
    """The hidden tests of a row; None where it has none. Raises BadTests.

    >>> suite_of({"tests": [{"input": "1 2", "output": "3"}]}).cases
    (Case(input='1 2', output='3'),)
    """
    for columns, read in READERS:
        if any(_given(row.get(column)) for column in columns):
            return _with_limits(_read(read, row, prompt), row)
    return None


def _read(read: Callable[[Mapping[str, Any], str], dict], row: Mapping[str, Any], prompt: object) -> Suite:
    text = message_text(prompt) if prompt else ""  # type: ignore[arg-type]
    try:
        parts = read(row, text)
        named = parts.pop("language", None) or row.get("programming_language") or row.get("lang")
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        if isinstance(error, BadTests):
            raise
        raise BadTests(f"the tests are not laid out as expected: {type(error).__name__}: {error}") from error
    language = language_of(named)
    if language is None:
        raise BadTests(f"programs in {named!r} are not judged; Python and C++ are")
    return Suite(language=language, **parts)


def _with_limits(suite: Suite, row: Mapping[str, Any]) -> Suite:
    """With the row's limits, where it has some: seconds, and megabytes."""
    seconds = _positive(row, "time_limit", "seconds") or suite.time_limit
    memory = _positive(row, "memory_limit", "MB") or suite.memory_mb
    return replace(suite, time_limit=min(seconds, MAX_TIME_LIMIT), memory_mb=int(min(memory, MAX_MEMORY_MB)))


def _positive(row: Mapping[str, Any], column: str, unit: str) -> float | None:
    value = row.get(column)
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not number > 0:
        raise BadTests(f"{column} is a positive number of {unit}, got {value!r:.40}")
    return number


def _given(value: object) -> bool:
    return value is not None and (not isinstance(value, str | Sequence | Mapping) or len(value) > 0)


def _json(value: Any) -> Any:
    """JSON text as what it means; anything else as it is."""
    return json.loads(value) if isinstance(value, str) else value


def _text(value: object) -> str:
    """An input or output: text, or its lines."""
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple) and all(isinstance(line, str) for line in value):
        return "\n".join(value)
    raise BadTests(f"an input or output is text, or a list of lines, got {value!r:.60}")


def _verification_info(row: Mapping[str, Any], prompt: str) -> dict:
    info = _json(row["verification_info"])
    tests = _json(info["test_cases"])
    names = {test.get("fn_name") for test in tests} - {None, ""}
    if not names:
        parts: dict = {"cases": tuple(Case(_text(test["input"]), _text(test["output"])) for test in tests)}
    else:
        outputs = _unwrapped([_json(test["output"]) for test in tests])
        parts = _calls(list(zip((_json(test["input"]) for test in tests), outputs)), names)
    return {**parts, "language": info.get("language")}


def _input_output(row: Mapping[str, Any], prompt: str) -> dict:
    tests = _json(row["input_output"])
    inputs, outputs = tests["inputs"], tests["outputs"]
    if len(inputs) != len(outputs):
        raise BadTests(f"{len(inputs)} inputs need as many outputs, got {len(outputs)}")
    if tests.get("fn_name"):
        return _calls(list(zip(inputs, _unwrapped(outputs))), {tests["fn_name"]})
    return {"cases": tuple(Case(_text(given), _text(wanted)) for given, wanted in zip(inputs, outputs))}


def _unwrapped(outputs: list) -> list:
    """APPS puts what a function returns into a list of one, in most of its rows."""
    wrapped = all(isinstance(wanted, list) and len(wanted) == 1 for wanted in outputs)
    return [wanted[0] for wanted in outputs] if wrapped else outputs


def _calls(pairs: list[tuple[list, object]], names: set[str]) -> dict:
    if len(names) != 1:
        raise BadTests(f"the tests call several functions: {', '.join(sorted(names))}")
    return {"calls": tuple(Call(args=tuple(given), expected=wanted) for given, wanted in pairs), "names": tuple(names)}


def _livecodebench(row: Mapping[str, Any], prompt: str) -> dict:
    tests = [
        test
        for column in ("public_test_cases", "private_test_cases")
        if _given(row.get(column))
        for test in _test_cases(row[column])
    ]
    kinds = {test.get("testtype", "stdin") for test in tests}
    if kinds == {"stdin"}:
        return {"cases": tuple(Case(_text(test["input"]), _text(test["output"])) for test in tests)}
    if kinds != {"functional"}:
        raise BadTests(f"tests are of type stdin or functional, got {', '.join(sorted(map(str, kinds)))}")
    name = _json(row.get("metadata") or {}).get("func_name") or row.get("entry_point")
    if not name:
        raise BadTests("functional tests need the function's name: func_name in the column metadata, or entry_point")
    pairs = [
        ([json.loads(line) for line in test["input"].split("\n") if line.strip()], json.loads(test["output"]))
        for test in tests
    ]
    return _calls(pairs, {name})


def _test_cases(value: Any) -> list[dict]:
    if isinstance(value, str) and not value.lstrip().startswith("["):
        value = _unpacked(value)
    return _json(value)


def _unpacked(text: str) -> str:
    """LiveCodeBench's private tests: base64 of zlib of a pickle of one text. The pickle is read, not executed."""
    try:
        inflater = zlib.decompressobj()
        data = inflater.decompress(base64.b64decode(text, validate=True), MAX_UNPACKED)
        operations = [(operation.name, argument) for operation, argument, _ in pickletools.genops(data)]
    except (binascii.Error, zlib.error, ValueError) as error:
        raise BadTests(f"the tests are neither JSON nor LiveCodeBench's packed form: {error}") from error
    texts = [argument for name, argument in operations if name in ("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8")]
    others = {name for name, _ in operations} - {"PROTO", "FRAME", "MEMOIZE", "BINPUT", "STOP"}
    if len(texts) != 1 or len(others) != 1:
        raise BadTests(
            "the packed tests are a pickle of more than a text, which is not opened; "
            "unpack the data set yourself and store the tests as JSON"
        )
    return str(texts[0])


def _codeforces(row: Mapping[str, Any], prompt: str) -> dict:
    for column in ("generated_checker", "checker"):
        if _given(row.get(column)):
            raise BadTests(f"several outputs are right here and a {column} decides, which is not run")
    if _given(row.get("interaction_format")):
        raise BadTests("interactive problems are not judged")
    if row.get("input_mode") == "file":
        raise BadTests("the program is to read and write files, it can only use standard input and output")
    tests = [test for column in ("official_tests", "examples") for test in _json(row.get(column)) or []]
    return {"cases": tuple(Case(_text(test["input"]), _text(test["output"])) for test in tests)}


def _humaneval(row: Mapping[str, Any], prompt: str) -> dict:
    test, name = row["test"], row.get("entry_point")
    if not name:
        raise BadTests("a column test needs a column entry_point, the name of the function")
    if "unittest" in test:
        raise BadTests("tests for unittest are not run; asserts in a function check(candidate) are")
    defines_check = any(isinstance(node, ast.FunctionDef) and node.name == "check" for node in _parsed(test).body)
    preamble = task_code(row.get("code_prompt") or prompt, name)
    call = f"\ncheck({name.rpartition('.')[2]})\n" if defines_check else ""
    names = (name,) if name.isidentifier() else (name.rpartition(".")[2],)
    return {"snippets": (test + call,), "setup": preamble, "preamble": preamble, "names": names}


def _mbpp(row: Mapping[str, Any], prompt: str) -> dict:
    snippets = tuple(_json(row["test_list"]))
    imports = row.get("test_imports") or ()
    setup = "\n".join([row.get("test_setup_code") or "", *(_json(imports) if imports else ())])
    return _asserts(snippets, setup, row.get("entry_point"))


def _own(row: Mapping[str, Any], prompt: str) -> dict:
    tests = _json(row["tests"])
    if all(isinstance(test, str) for test in tests):
        return _asserts(tuple(tests), row.get("setup") or "", row.get("entry_point"))
    if all("input" in test for test in tests):
        return {"cases": tuple(Case(_text(test["input"]), _text(test["output"])) for test in tests)}
    calls = tuple(
        Call(args=tuple(test.get("args", ())), kwargs=test.get("kwargs"), expected=test["expected"]) for test in tests
    )
    return {"calls": calls, "names": (row["entry_point"],) if row.get("entry_point") else ()}


def _asserts(snippets: tuple[str, ...], setup: str, name: str | None) -> dict:
    """Asserts about functions that they name: what they call and neither Python nor the set-up defines."""
    known = {*dir(builtins), *_bound(_parsed(setup))}
    trees = [_parsed(snippet) for snippet in snippets]
    known = known.union(*map(_bound, trees))
    called = [
        node.func.id
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id not in known
    ]
    names = dict.fromkeys([name, *called] if name else called)
    return {"snippets": snippets, "setup": setup, "names": tuple(names)}


def _parsed(source: str) -> ast.Module:
    try:
        return ast.parse(source)
    except SyntaxError as error:
        raise BadTests(f"the tests are not Python: {error}") from error


def _bound(tree: ast.Module) -> set[str]:
    """Names that code defines, imports or assigns."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names


READERS: tuple[tuple[tuple[str, ...], Callable[[Mapping[str, Any], str], dict]], ...] = (
    (("verification_info",), _verification_info),
    (("input_output",), _input_output),
    (("public_test_cases", "private_test_cases"), _livecodebench),
    (("official_tests", "examples"), _codeforces),
    (("test",), _humaneval),
    (("test_list",), _mbpp),
    (("tests",), _own),
)
"""Columns that give a layout away, and who reads it. The first that a row has counts."""
