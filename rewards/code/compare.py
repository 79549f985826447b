"""When an output is the expected one.

Text: line by line and token by token, so that spaces, line ends and empty lines do not matter, but lines do. A number
that is expected with a decimal point or an exponent may be off by `tolerance`, relative or absolute, as most judges
have it; everything else must be the same text. Values: the same type and content, see `same_value`.
"""

from __future__ import annotations

import math
import re

TOLERANCE = 1e-6
_REAL = re.compile(r"[+-]?(?:\d+\.\d*|\.\d+|\d+(?=[eE]))(?:[eE][+-]?\d+)?\Z")
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?\Z")
_MAX_NUMBER = 400
"""Characters of a token that is read as a number."""


def same_output(got: str, expected: str, tolerance: float = TOLERANCE) -> bool:
    r"""Whether a program printed what it should. tolerance 0 compares numbers as text too.

    >>> same_output("1  2\n0.3333333\n", "1 2 \n\n0.33333333"), same_output("1\n2", "1 2"), same_output("3.0", "3")
    (True, False, False)
    """
    lines = [_lines(text) for text in (got, expected)]
    return len(lines[0]) == len(lines[1]) and all(
        len(one) == len(other) and all(_same_token(a, b, tolerance) for a, b in zip(one, other))
        for one, other in zip(*lines)
    )


def _lines(text: str) -> list[list[str]]:
    return [tokens for line in text.split("\n") if (tokens := line.split())]


def _same_token(got: str, expected: str, tolerance: float) -> bool:
    if got == expected:
        return True
    if not tolerance or len(got) > _MAX_NUMBER or not (_REAL.match(expected) and _NUMBER.match(got)):
        return False
    numbers = float(got), float(expected)
    return all(map(math.isfinite, numbers)) and math.isclose(*numbers, rel_tol=tolerance, abs_tol=tolerance)


def same_value(got: object, expected: object, tolerance: float = TOLERANCE) -> bool:
    """Whether a function returned what it should, where the expected value comes from JSON.

    JSON has no tuples and only text as keys, so a tuple equals a list, and keys are compared as text. A bool is no
    number; a number equals another of the same value, within `tolerance` where either is a float. Other values must be
    of the same type.

    >>> same_value((1, 2.0), [1, 2]), same_value({1: "a"}, {"1": "a"}), same_value(True, 1), same_value("1", 1)
    (True, True, False, False)
    """
    if isinstance(expected, bool) or isinstance(got, bool):
        return got is expected
    if isinstance(expected, int | float) and isinstance(got, int | float):
        return got == expected or (float in (type(got), type(expected)) and _close(got, expected, tolerance))
    if isinstance(expected, list | tuple) and isinstance(got, list | tuple):
        return len(got) == len(expected) and all(same_value(a, b, tolerance) for a, b in zip(got, expected))
    if isinstance(expected, dict) and isinstance(got, dict):
        by_text = {str(key): value for key, value in got.items()}
        return len(by_text) == len(got) == len(expected) and all(
            str(key) in by_text and same_value(by_text[str(key)], value, tolerance) for key, value in expected.items()
        )
    return type(got) is type(expected) and got == expected


def _close(one: float, other: float, tolerance: float) -> bool:
    try:
        return math.isclose(one, other, rel_tol=tolerance, abs_tol=tolerance)
    except OverflowError:  # an int beyond all floats
        return False
