"""Canonical JSON (RFC 8785): the one way to write a value, byte for byte, on any machine.

Two departures, both fixed by the content address: an integer that a double cannot hold is
written as its nearest double, and a lone surrogate is written as U+FFFD.
"""

from __future__ import annotations

import re
from json.encoder import encode_basestring
from typing import TYPE_CHECKING

import orjson

if TYPE_CHECKING:
    from tapes_cli.model.json import JSON, JSONObject

EXACT_INTEGER = 2**53
"""Up to here, on either side of zero, every integer is a double."""

_MAX_PLAIN_EXPONENT = 21
_MIN_PLAIN_EXPONENT = -6
_LAST_OF_THE_BASIC_PLANE = "\uffff"
_SURROGATE = re.compile("[\ud800-\udfff]")


class CanonicalError(ValueError):
    """The value has no canonical form: it holds a number that no double can hold."""


def canonical(value: JSON) -> bytes:
    """Return the value in canonical form, as UTF-8.

    Raises:
        CanonicalError: the value holds a number beyond the range of a double, NaN or Infinity.
    """
    return canonical_plain(value) if is_plain(value) else canonical_exact(value)


def canonical_plain(value: JSON) -> bytes:
    """Return a value in canonical form of which `is_plain` is known to be true."""
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError:
        # Lone surrogates, or nested beyond what orjson writes.
        return canonical_exact(value)


def is_plain(value: JSON) -> bool:
    """Whether orjson writes the value canonically, if it writes it at all.

    It does where there are no fractions (it prints some in another way), no integer that is not
    also a double, and no key that sorts differently by code point than by UTF-16 code unit.
    """
    stack = [value]
    while stack:
        item = stack.pop()
        kind = type(item)
        if kind is str or kind is bool or item is None:
            continue
        if kind is dict:
            for key in item:
                if not key.isascii() and max(key) > _LAST_OF_THE_BASIC_PLANE:
                    return False
            stack.extend(item.values())
        elif kind is list:
            stack.extend(item)
        elif kind is not int or not -EXACT_INTEGER <= item <= EXACT_INTEGER:
            return False
    return True


def canonical_exact(value: JSON) -> bytes:
    """Return the value in canonical form, by the letter of RFC 8785. Slower than `canonical`.

    Raises:
        CanonicalError: as `canonical`.
    """
    parts: list[str] = []
    # Text that is ready to be written, and values that are not; a stack, since records may be
    # nested more deeply than Python calls itself.
    stack: list[tuple[bool, JSON]] = [(False, value)]
    while stack:
        ready, item = stack.pop()
        if ready:
            parts.append(item)
        elif isinstance(item, dict):
            _push_object(stack, item)
        elif isinstance(item, list):
            _push_array(stack, item)
        else:
            parts.append(_scalar(item))
    return "".join(parts).encode()


def _push_object(stack: list[tuple[bool, JSON]], members: JSONObject) -> None:
    # Keys that become equal with U+FFFD are one key; the last value counts, as for any other key.
    clean = {well_formed(key): value for key, value in members.items()}
    stack.append((True, "}"))
    first = len(stack)
    for key in sorted(clean, key=_utf16, reverse=True):
        stack.append((False, clean[key]))
        stack.append((True, f",{encode_basestring(key)}:"))
    if len(stack) > first:
        stack[-1] = (True, stack[-1][1][1:])
    stack.append((True, "{"))


def _push_array(stack: list[tuple[bool, JSON]], items: list[JSON]) -> None:
    stack.append((True, "]"))
    for index in range(len(items) - 1, -1, -1):
        stack.append((False, items[index]))
        if index:
            stack.append((True, ","))
    stack.append((True, "["))


def _scalar(value: JSON) -> str:
    if isinstance(value, str):
        return encode_basestring(well_formed(value))
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return format_number(value)
    raise TypeError(f"{type(value).__name__} is not a JSON type")


def well_formed(text: str) -> str:
    """Return the text with every lone surrogate replaced by U+FFFD."""
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


def _utf16(key: str) -> bytes:
    return key.encode("utf-16-be")


def format_number(value: float) -> str:
    """Return the number as ECMAScript prints it (ECMA-262, Number::toString, radix 10).

    Raises:
        CanonicalError: the number is beyond the range of a double, NaN or infinite.
    """
    if isinstance(value, int) and -EXACT_INTEGER <= value <= EXACT_INTEGER:
        return str(value)
    try:
        double = float(value)
    except OverflowError:
        raise CanonicalError("a number is beyond the range of a double") from None
    if double - double != 0:
        raise CanonicalError("NaN and Infinity are no JSON")
    if double == 0:
        return "0"
    sign, digits, point = _decimal(double)
    length = len(digits)
    if length <= point <= _MAX_PLAIN_EXPONENT:
        return sign + digits.ljust(point, "0")
    if 0 < point <= _MAX_PLAIN_EXPONENT:
        return f"{sign}{digits[:point]}.{digits[point:]}"
    if _MIN_PLAIN_EXPONENT < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    fraction = f".{digits[1:]}" if length > 1 else ""
    return f"{sign}{digits[0]}{fraction}e{point - 1:+d}"


def _decimal(double: float) -> tuple[str, str, int]:
    """Return sign, shortest digits, and where the point stands: 0.digits x 10**point."""
    # repr gives the shortest digits that read back as the same double, as ECMAScript asks.
    text = repr(abs(double))
    mantissa, _, exponent = text.partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    point = len(whole) + int(exponent or 0) - (len(whole + fraction) - len(digits))
    return "-" if double < 0 else "", digits.rstrip("0"), point
