"""Type hints of a dataclass against values read from YAML or JSON. Nothing heavy is imported here."""

from __future__ import annotations

import enum
import types
import typing
from typing import Any


def fits(value: Any, hint: Any) -> bool:
    """Whether a value read from YAML or JSON may stand for a field of this type."""
    origin = typing.get_origin(hint)
    if hint is Any:
        return True
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, option) for option in typing.get_args(hint))
    if origin is typing.Literal:
        return value in typing.get_args(hint)
    if hint is None or hint is type(None):
        return value is None
    if hint is bool:
        return isinstance(value, bool)
    if hint in (int, float):
        return not isinstance(value, bool) and isinstance(value, (int, float) if hint is float else int)
    if origin in (list, tuple):
        return isinstance(value, list) and all(fits(item, typing.get_args(hint)[0]) for item in value)
    if origin is dict:
        _, value_hint = typing.get_args(hint)
        return isinstance(value, dict) and all(fits(item, value_hint) for item in value.values())
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return value in [member.value for member in hint]
    if isinstance(hint, type) and hint in (str, dict, list):
        return isinstance(value, hint)
    return True


def readable(hint: Any) -> str:
    """A type as a person writes it: `float | None`, not `typing.Optional[float]`."""
    if isinstance(hint, type) and typing.get_origin(hint) is None:
        return "nothing" if hint is type(None) else hint.__name__
    return str(hint).replace("typing.", "").replace("NoneType", "nothing").replace("None", "nothing")
