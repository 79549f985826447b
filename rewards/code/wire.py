"""What travels between the processes of the sandbox: frames of JSON, and Python values as plain data.

A frame is four bytes of length and JSON text. A value keeps its exact built-in type, which JSON alone does not (tuple,
set, bytes, int keys), and nothing else survives: an object that equals everything, a subclass with its own `__eq__`, a
class, a function do not reach the side that compares. Whoever reads checks sizes first; nothing here runs code.
"""

from __future__ import annotations

import json
import math
import os
import select
import time
from collections.abc import Callable
from typing import Any

MAX_FRAME = 4 << 20
"""Bytes. Reading JSON of this size takes at most some 100 MB."""
MAX_ORDER = 256 << 20
"""Bytes of an order to a jailed process: a program or hidden tests, both from our own side."""
MAX_DEPTH = 60
"""Nested containers in a value."""
_PLAIN_INT = 1 << 63


class WireError(Exception):
    """The other side sent what is no frame or no value, or too much of it."""


class Unsendable(TypeError):  # noqa: N818 - it says what the value is
    """A value that is not made of built-in types, or is too large or nested too deeply."""


def send_frame(fd: int, message: object) -> None:
    """Write one frame. Raises OSError when the other side is gone."""
    send_text(fd, json.dumps(message))


def send_text(fd: int, text: str) -> None:
    """Write one frame that is JSON text already."""
    data = text.encode()
    view = memoryview(len(data).to_bytes(4, "big") + data)
    while view:
        view = view[os.write(fd, view) :]


def receive_frame(fd: int, limit: int = MAX_FRAME, deadline: float | None = None) -> dict:
    """Read one frame, an object. deadline: by time.monotonic().

    Raises EOFError when the other side is gone, TimeoutError, and WireError for anything that is no frame.
    """
    length = int.from_bytes(_read(fd, 4, deadline), "big")
    if length > limit:
        raise WireError(f"a frame of {length:,} bytes; the limit is {limit:,}")
    data = _read(fd, length, deadline)
    try:
        message = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise WireError(f"a frame that is not JSON: {error}") from error
    if not isinstance(message, dict):
        raise WireError("a frame that is not an object")
    return message


def _read(fd: int, size: int, deadline: float | None) -> bytes:
    chunks = bytearray()
    while len(chunks) < size:
        if deadline is not None:
            _wait_readable(fd, deadline)
        try:
            chunk = os.read(fd, size - len(chunks))
        except ConnectionResetError:
            chunk = b""
        if not chunk:
            raise EOFError("the other side is gone")
        chunks += chunk
    return bytes(chunks)


def _wait_readable(fd: int, deadline: float) -> None:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
        raise TimeoutError("nothing came in time")


def encode(value: object, depth: int = MAX_DEPTH) -> object:
    """A value as JSON data. A subclass of a built-in type (Counter, namedtuple, IntEnum) becomes that type.

    Raises Unsendable.

    >>> encode((1, {"a": {2.5}}))
    {'tuple': [1, {'dict': [['a', {'set': [2.5]}]]}]}
    """
    if value is None or value is True or value is False:
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        plain = int.__index__(value)
        return plain if -_PLAIN_INT < plain < _PLAIN_INT else {"int": hex(plain)}
    if isinstance(value, float):
        number = float.__float__(value)
        return number if math.isfinite(number) else {"float": repr(number)}
    if isinstance(value, complex):
        return {"complex": [encode(complex.__complex__(value).real), encode(complex.__complex__(value).imag)]}
    if isinstance(value, bytes | bytearray):
        return {"bytes" if isinstance(value, bytes) else "bytearray": bytes(value).hex()}
    if not depth:
        raise Unsendable(f"a value with more than {MAX_DEPTH} containers inside each other")
    if isinstance(value, list):
        return [encode(item, depth - 1) for item in list.__iter__(value)]
    if isinstance(value, dict):
        return {"dict": [[encode(k, depth - 1), encode(v, depth - 1)] for k, v in dict.items(value)]}
    for name, kind in _CONTAINERS.items():
        if isinstance(value, kind):
            return {name: [encode(item, depth - 1) for item in kind.__iter__(value)]}
    raise Unsendable(f"a {type(value).__name__}, which is no plain data")


def decode(data: object) -> object:
    """The value that `encode` turned into JSON data. Raises WireError for anything else.

    >>> decode(encode([(1, 2), {3: b"x"}, 1 << 70]))
    [(1, 2), {3: b'x'}, 1180591620717411303424]
    """
    try:
        return _decode(data, MAX_DEPTH)
    except (TypeError, ValueError, RecursionError) as error:  # such as a list in a set
        raise WireError(f"no value: {error}") from error


def _decode(data: object, depth: int) -> object:
    if data is None or isinstance(data, bool | int | float | str):
        return data
    if depth < 0:
        raise WireError("a value that is nested too deeply")
    if isinstance(data, list):
        return [_decode(item, depth - 1) for item in data]
    if not isinstance(data, dict) or len(data) != 1:
        raise WireError("an object that is no value")
    ((kind, content),) = data.items()
    if kind in ("int", "float", "bytes", "bytearray") and isinstance(content, str):
        return _FROM_TEXT[kind](content)
    if not isinstance(content, list):
        raise WireError(f"a {kind!r:.40} without items")
    items: list[Any] = [_decode(item, depth - 1) for item in content]
    if kind == "complex":
        return complex(*items)
    if kind == "dict":
        return dict(items)
    if kind in _CONTAINERS:
        return _CONTAINERS[kind](items)
    raise WireError(f"a value of unknown type {kind!r:.40}")


_FROM_TEXT: dict[str, Callable[[str], object]] = {
    "int": lambda text: int(text, 16),
    "float": float,
    "bytes": bytes.fromhex,
    "bytearray": bytearray.fromhex,
}
_CONTAINERS: dict[str, Any] = {"tuple": tuple, "set": set, "frozenset": frozenset}
