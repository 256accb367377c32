"""Ways to break a capture: bytes, lines, and values inside lines."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

_JUNK: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1.5, 2**63, 2**70, -(2**64), 1e308, 1e-320),
    *("", " ", "\0", "x" * 5000, "\ud800", "\u2028", "1e5", "null", "2026-13-45T99:00:00Z"),
    *([], {}, [[]], [None], {"": None}, {"type": "text"}, [{"type": "tool_use", "input": 5}]),
)
_SPLINTERS = (
    *(b"", b"\n", b"{", b"}", b"[", b"]", b'"', b",", b":", b"\\", b"\\u0000", b"\\ud800", b"\0"),
    *(b"\xff", b"\xe2\x80\xa8", b"\xef\xbb\xbf", b"NaN", b"1e999", b"-", b"{}", b"[" * 1200),
    *(b'{"a":' * 1000, b"data: ", b"\r", b"\r\n\r\n", b"9" * 400),
)


def mutated(data: bytes, others: list[bytes], chance: Random) -> bytes:
    """Return the capture with one to six things broken; others lend what is put in between."""
    for _ in range(chance.choice((1, 1, 1, 2, 3, 6))):
        data = chance.choice(_WAYS)(data, others, chance)
    if chance.random() < 0.05:
        data = gzip.compress(data, 1)
        if chance.random() < 0.7:
            data = _cut(data, others, chance)
    return data


def _value(data: bytes, _others: list[bytes], chance: Random) -> bytes:
    """Put something else in the place of a value, in one line."""
    lines = data.split(b"\n")
    place = chance.randrange(len(lines))
    try:
        value = json.loads(lines[place])
    except (ValueError, RecursionError):
        return data
    holders = _holders(value)
    if holders:
        holder, key = chance.choice(holders)
        if chance.random() < 0.2:
            del holder[key]
        elif chance.random() < 0.3:
            other, name = chance.choice(holders)
            holder[key] = json.loads(json.dumps(other[name]))
        else:
            holder[key] = chance.choice(_JUNK)
    lines[place] = json.dumps(value, ensure_ascii=chance.random() < 0.5).encode(
        errors="surrogatepass"
    )
    return b"\n".join(lines)


def _holders(value: Any) -> list[tuple[Any, Any]]:
    """Return where each value inside a value stands."""
    found: list[tuple[Any, Any]] = []
    pending = [value]
    while pending:
        holder = pending.pop()
        if isinstance(holder, dict | list):
            keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
            found += [(holder, key) for key in keys]
            pending += [holder[key] for key in keys]
    return found


def _lines(data: bytes, _others: list[bytes], chance: Random) -> bytes:
    """Drop, repeat, move or glue lines."""
    lines = data.split(b"\n")
    one, two = chance.randrange(len(lines)), chance.randrange(len(lines))
    way = chance.randrange(4)
    if way == 0:
        del lines[one]
    elif way == 1:
        lines.insert(two, lines[one])
    elif way == 2:
        lines[one], lines[two] = lines[two], lines[one]
    else:
        lines[one : one + 2] = [b"".join(lines[one : one + 2])]
    return b"\n".join(lines)


def _cut(data: bytes, _others: list[bytes], chance: Random) -> bytes:
    return data[: chance.randrange(len(data) + 1)]


def _bytes(data: bytes, _others: list[bytes], chance: Random) -> bytes:
    """Put a splinter in the place of some bytes."""
    start = chance.randrange(len(data) + 1)
    end = min(len(data), start + chance.choice((0, 1, 1, 2, 50)))
    splinter = chance.choice(_SPLINTERS) if chance.random() < 0.8 else chance.randbytes(3)
    return data[:start] + splinter + data[end:]


def _spliced(data: bytes, others: list[bytes], chance: Random) -> bytes:
    """Put a line of another capture in between."""
    lines = data.split(b"\n")
    line = chance.choice(chance.choice(others).split(b"\n"))
    lines.insert(chance.randrange(len(lines) + 1), line)
    return b"\n".join(lines)


_WAYS: tuple[Callable[[bytes, list[bytes], Random], bytes], ...] = (
    *(_value, _value, _value, _value),
    *(_lines, _lines, _cut, _bytes, _bytes, _spliced),
)
