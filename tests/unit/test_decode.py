from __future__ import annotations

import json
import math
import sys
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapes_cli.capture.decode import (
    MAX_NESTING,
    InexactNumberError,
    check_nesting,
    decode,
    decode_exact,
    require_exact,
)
from tapes_cli.model.reasons import Reason
from tapes_cli.model.records import RejectError

if TYPE_CHECKING:
    from collections.abc import Callable

both = pytest.mark.parametrize("decoder", [decode, decode_exact])

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(-1e15, 1e15)
    | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=12,
)


def reject(decoder: Callable[[bytes], Any], data: bytes) -> RejectError:
    with pytest.raises(RejectError) as caught:
        decoder(data)
    return caught.value


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


@settings(max_examples=200, deadline=None)
@given(json_values)
def test_both_ways_give_the_same(value: Any) -> None:
    data = json.dumps(value).encode()
    assert decode(data) == decode_exact(data) == value


@both
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"{", Reason.NOT_JSON),
        (b"{} {}", Reason.NOT_JSON),
        (b"{'a':1}", Reason.NOT_JSON),
        (b'"\x01"', Reason.NOT_JSON),
        (b"01", Reason.NOT_JSON),
        (b"\x00", Reason.NOT_JSON),
        (b"\xef\xbb\xbf{}", Reason.NOT_JSON),
        (b'"\xff"', Reason.NOT_UTF8),
        (b'"\xed\xa0\x80"', Reason.NOT_UTF8),
        (b'"\xc0\x80"', Reason.NOT_UTF8),
        (b"[NaN]", Reason.NUMBER_OVERFLOW),
        (b"[Infinity]", Reason.NUMBER_OVERFLOW),
        (b"[-Infinity]", Reason.NUMBER_OVERFLOW),
        (b"[1e400]", Reason.NUMBER_OVERFLOW),
        (b"[-1e400]", Reason.NUMBER_OVERFLOW),
        (b"[" + b"9" * 309 + b"]", Reason.NUMBER_OVERFLOW),
        (b"[" + b"9" * 5000 + b"]", Reason.NUMBER_OVERFLOW),
        (b"[" * 1100 + b"]" * 1100, Reason.NESTING_TOO_DEEP),
        (b"[" * 200_000 + b"]" * 200_000, Reason.NESTING_TOO_DEEP),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, Reason.NESTING_TOO_DEEP),
        (b"[" * 200_000, Reason.NESTING_TOO_DEEP),
    ],
)
def test_reasons(decoder: Callable[[bytes], Any], data: bytes, reason: Reason) -> None:
    assert reject(decoder, data).reason is reason


@both
def test_message_tells_the_place_and_no_content(decoder: Callable[[bytes], Any]) -> None:
    error = reject(decoder, b'{"secret": "word", "a": xyz}')
    assert error.message == "the line is not valid JSON at column 25: Expecting value"
    assert reject(decoder, b'{"s\xff"}').message == "the line is not valid UTF-8 at byte 4"


@both
@pytest.mark.parametrize(
    ("data", "value"),
    [
        (rb'"\ud800"', "\ud800"),
        (rb'"a\udfffb"', "a\udfffb"),
        (rb'"\ud83d\ude00"', "\U0001f600"),
        (rb'"\u0000"', "\0"),
        (b"1e-400", 0.0),
        (b"18446744073709551615", 2**64 - 1),
        (b'{"a":1,"a":2}', {"a": 2}),
        (b" [1]\t", [1]),
    ],
)
def test_what_is_legal(decoder: Callable[[bytes], Any], data: bytes, value: Any) -> None:
    assert decoder(data) == value


def test_brackets_in_strings_do_not_nest() -> None:
    text = '[{"\\' * 2000
    data = json.dumps([text, "\ud800"]).encode()
    assert decode(data) == [text, "\ud800"]


@pytest.mark.parametrize("number", [2**64, -(2**63) - 1, 10**30, 123456789012345678901234567890])
def test_large_integers_are_exact_where_asked(number: int) -> None:
    data = str(number).encode()
    rounded = decode(data)
    assert isinstance(rounded, float)
    with pytest.raises(InexactNumberError):
        require_exact({"a": [1, {"b": rounded}]})
    exact = decode_exact(data)
    assert isinstance(exact, int)
    assert exact == number
    require_exact({"a": [exact, 1.5, "x", None, True]})


@pytest.mark.parametrize(
    "text", ["1e300", "-1E+25", "12345678901234567890.5", "9223372036854775808.0"]
)
def test_large_doubles_come_as_integers_with_the_same_double(text: str) -> None:
    exact = decode_exact(text.encode())
    assert isinstance(exact, int)
    assert float(exact) == float(text)


@settings(max_examples=200, deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_no_double_changes_its_value(number: float) -> None:
    data = repr(number).encode()
    assert float(decode_exact(data)) == float(decode(data)) == number
    require_exact(decode_exact(data))


def test_written_large_double_keeps_its_digits() -> None:
    assert decode_exact(b"1e300") == 10**300


@settings(max_examples=100, deadline=None)
@given(st.integers(-(10**400), 10**400))
def test_any_integer_is_exact_or_too_large(number: int) -> None:
    if abs(number) < sys.float_info.max:
        assert decode_exact(b"%d" % number) == number
    else:
        assert reject(decode_exact, b"%d" % number).reason is Reason.NUMBER_OVERFLOW


def test_nesting_is_checked_on_what_was_let_through() -> None:
    for sound in (nested(10), [2**70, "\ud800"]):
        check_nesting(sound, 0, "/a")
    check_nesting({"a": nested(MAX_NESTING - 2)}, 1, "/a")
    with pytest.raises(RejectError) as caught:
        check_nesting({"a": nested(MAX_NESTING - 1)}, 1, "/a")
    assert (caught.value.reason, caught.value.pointer) == (Reason.NESTING_TOO_DEEP, "/a")


def test_parser_that_gives_up_early_is_a_reject() -> None:
    depth = MAX_NESTING - 10
    data = b"[" * depth + b"NaN" + b"]" * depth

    def dig(levels: int) -> RejectError:
        return dig(levels - 1) if levels else reject(decode_exact, data)

    assert dig(400).reason in {Reason.NESTING_TOO_DEEP, Reason.NUMBER_OVERFLOW}
    assert math.isfinite(decode(b"1.5"))
