"""One line's bytes to a JSON value: fast where possible, exact where needed."""

from __future__ import annotations

import json
import math
import re
from decimal import Decimal
from itertools import accumulate
from typing import TYPE_CHECKING, NoReturn

import orjson

from tapes_cli.model.reasons import Reason
from tapes_cli.model.records import RejectError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tapes_cli.model.json import JSON

MAX_NESTING = 900
"""Levels of objects and lists in a record. Python's parsers recurse, and stop at about 1,000."""

INEXACT_FROM = 2.0**63
"""From here on, the fast parser may have rounded an integer to a double."""

_MAX_INTEGER_DIGITS = 310
_ENDS = json.JSONDecoder(parse_int=str, parse_float=str)
# Digits or an exponent that a double may not be able to hold; also what only looks like it.
_MAY_BE_ROUNDED = re.compile(rb"[0-9]{19}|[0-9][eE]\+?[0-9]")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
# What a bracket adds to the depth, as a signed byte.
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
_WINDOW_BYTES = 1 << 16


class InexactNumberError(Exception):
    """A value holds a number that the fast parser may have rounded.

    Raised by whoever keeps such a number; the reader then decodes the line with `decode_exact`.
    There no such number is a float, so the second pass cannot raise again.
    """


def decode(data: bytes) -> JSON:
    """Return the value of a line.

    Integers that need more than 64 bits come as the nearest double: see `InexactNumberError`.
    Lone surrogates stay in strings as they are.

    Raises:
        RejectError: the line is no JSON (a byte order mark is none either), not UTF-8, too
            deeply nested, or holds a number that no double can hold.
    """
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        # Also what orjson alone refuses: lone surrogates.
        return decode_exact(data)


def decode_exact(data: bytes) -> JSON:
    """Return the value of a line with every integer exact. Slower than `decode`.

    Numbers of 2**63 and above are all integers: a double of that size has no fraction, and the
    integer's nearest double is that same double, so content addresses do not change.

    Raises:
        RejectError: as `decode`.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RejectError(
            Reason.NOT_UTF8, f"the line is not valid UTF-8 at byte {error.start + 1}"
        ) from None
    if _is_too_deep(data):
        raise too_deep()
    try:
        return json.loads(
            text, parse_int=_parse_int, parse_float=_parse_float, parse_constant=_parse_constant
        )
    except json.JSONDecodeError as error:
        raise RejectError(Reason.NOT_JSON, _not_json(text, error)) from None
    except RecursionError:
        raise too_deep() from None


def decode_faithfully(data: bytes) -> JSON:
    """Return the value of a line, decoded exactly only if a number in it may be rounded.

    Raises:
        RejectError: as `decode`.
    """
    value = decode(data)
    if _MAY_BE_ROUNDED.search(data):
        try:
            require_exact(value)
        except InexactNumberError:
            return decode_exact(data)
    return value


def dump(value: JSON) -> bytes:
    """Return the bytes of a decoded value, on one line. What is a rounded number stays one."""
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError:
        # With integers beyond 64 bits, lone surrogates, or nested deeply.
        return json.dumps(value, separators=(",", ":")).encode()


def require_exact(value: JSON) -> None:
    """Raise if the value holds a number that may have been rounded.

    Raises:
        InexactNumberError: the line has to be decoded exactly.
    """
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, float):
            if abs(item) >= INEXACT_FROM:
                raise InexactNumberError
        elif isinstance(item, dict):
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)


def check_nesting(value: JSON, levels_above: int, pointer: str) -> None:
    """Check a part of a record that `decode` let through: it allows a few levels more.

    Args:
        value: the part.
        levels_above: objects and lists of the record that the part lies in.
        pointer: where the part stands.

    Raises:
        RejectError: the record is nested more deeply than `MAX_NESTING`.
    """
    try:
        orjson.dumps(value)
    except orjson.JSONEncodeError:
        # Nested deeply, or with integers beyond 64 bits or lone surrogates.
        if _nesting(value) + levels_above > MAX_NESTING:
            raise too_deep(pointer) from None


def _nesting(value: JSON) -> int:
    depth = 0
    level = [value]
    while level := [item for item in level if isinstance(item, dict | list)]:
        depth += 1
        level = [
            inner for item in level for inner in (item.values() if isinstance(item, dict) else item)
        ]
    return depth


def end_of_value(text: str, position: int) -> int:
    """Return where the JSON value ends that begins there. What its numbers are is not asked.

    Raises:
        ValueError: there is none.
        RecursionError: it is nested too deeply.
    """
    return _ENDS.raw_decode(text, position)[1]


def may_hold_surrogates(data: bytes) -> bool:
    """Whether there are escapes of surrogates, of which some may be lone ones."""
    return _SURROGATE.search(data) is not None


def too_deep(pointer: str = "") -> RejectError:
    """Return the reject of a record that is nested more deeply than `MAX_NESTING`."""
    return RejectError(
        Reason.NESTING_TOO_DEEP, f"the record is nested more than {MAX_NESTING} levels", pointer
    )


def outside_strings(data: bytes) -> Iterator[bytes]:
    """Yield what stands outside of a line's strings; meaningful for valid JSON, safe for any.

    A little of the line at a time: it may consist of nothing but quotation marks.
    """
    unescaped = data.replace(rb"\\", b"").replace(rb"\"", b"")
    inside = False
    for start in range(0, len(unescaped), _WINDOW_BYTES):
        pieces = unescaped[start : start + _WINDOW_BYTES].split(b'"')
        yield b"".join(pieces[inside::2])
        inside ^= len(pieces) % 2 == 0


def _is_too_deep(data: bytes) -> bool:
    """Whether the line is nested too deeply; meaningful for valid JSON, safe for any."""
    depth = 0
    for outside in outside_strings(data):
        steps = outside.translate(_STEPS, delete=_NOT_BRACKETS)
        opened = steps.count(_STEPS[ord("[")])
        if depth + opened > MAX_NESTING:
            depths = accumulate(memoryview(steps).cast("b"), initial=depth)
            if max(depths) > MAX_NESTING:
                return True
        depth += 2 * opened - len(steps)
    return False


def _overflow() -> RejectError:
    return RejectError(Reason.NUMBER_OVERFLOW, "the line holds a number that no double can hold")


def _parse_int(text: str) -> int:
    if len(text) > _MAX_INTEGER_DIGITS:
        raise _overflow()
    value = int(text)
    try:
        float(value)
    except OverflowError:
        raise _overflow() from None
    return value


def _parse_float(text: str) -> int | float:
    value = float(text)
    if math.isinf(value):
        raise _overflow()
    if abs(value) < INEXACT_FROM:
        return value
    exact = Decimal(text)
    whole = exact.to_integral_value()
    return int(whole) if whole == exact else int(value)


def _parse_constant(name: str) -> NoReturn:
    raise RejectError(Reason.NUMBER_OVERFLOW, f"the line holds {name}, which JSON has not")


def _not_json(text: str, error: json.JSONDecodeError) -> str:
    if text.strip() in {"{", "["}:
        return (
            "the object goes on over more lines, which is read only at the beginning of a file and "
            "if it is whole; write it on one line (jq -c . FILE)"
        )
    return f"the line is not valid JSON at column {error.colno}: {error.msg}"
