from __future__ import annotations

import json
import math
import struct
from typing import Any

import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from tapes_cli.merkle.canonical import (
    CanonicalError,
    canonical,
    canonical_exact,
    canonical_plain,
    format_number,
    is_plain,
    well_formed,
)

# Keys and text from all the planes, lone surrogates included.
ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=6)
SOUND_TEXT = st.text(st.characters(codec="utf-8"), max_size=6)


def values(
    text: st.SearchStrategy[str], integers: st.SearchStrategy[int]
) -> st.SearchStrategy[Any]:
    leaves = (
        st.none()
        | st.booleans()
        | integers
        | st.floats(allow_nan=False, allow_infinity=False)
        | text
    )
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
        max_leaves=12,
    )


SAFE_INTEGERS = st.integers(-(2**53) + 1, 2**53 - 1)
ALL_INTEGERS = st.integers(-(2**80), 2**80) | st.sampled_from([2**53, 2**53 + 1, -(2**53) - 1])


@given(values(SOUND_TEXT, SAFE_INTEGERS))
def test_agrees_with_another_implementation(value: Any) -> None:
    assert canonical_exact(value) == rfc8785.dumps(value)


@given(values(ANY_TEXT, ALL_INTEGERS))
def test_the_fast_way_writes_what_the_exact_way_writes(value: Any) -> None:
    exact = canonical_exact(value)
    assert canonical(value) == exact
    if is_plain(value):
        assert canonical_plain(value) == exact


@given(values(SOUND_TEXT, SAFE_INTEGERS))
def test_what_was_written_is_read_as_what_was_meant(value: Any) -> None:
    written = canonical(value)
    assert json.loads(written, parse_int=float) == value
    assert canonical(json.loads(written)) == written


@given(st.integers(0, 2**64 - 1))
@settings(max_examples=500)
def test_every_double_is_printed_as_the_oracle_prints_it(bits: int) -> None:
    [double] = struct.unpack("<d", bits.to_bytes(8, "little"))
    if math.isfinite(double):
        assert format_number(double).encode() == rfc8785.dumps(double)
        assert float(format_number(double)) == double


@pytest.mark.parametrize(
    ("value", "printed"),
    [
        (0, "0"),
        (-0.0, "0"),
        (1.0, "1"),
        (-1.5, "-1.5"),
        (100.0, "100"),
        (0.001, "0.001"),
        (1e-6, "0.000001"),
        (1e-7, "1e-7"),
        (1.5e-7, "1.5e-7"),
        (1e20, "100000000000000000000"),
        (1e21, "1e+21"),
        (123456789012345678901, "123456789012345680000"),
        (2**53, "9007199254740992"),
        (2**53 + 1, "9007199254740992"),
        (10**100, "1e+100"),
        (5e-324, "5e-324"),
        (1.7976931348623157e308, "1.7976931348623157e+308"),
        (333333333.33333329, "333333333.3333333"),
    ],
)
def test_numbers(value: float, printed: str) -> None:
    assert format_number(value) == printed
    assert canonical([value]) == f"[{printed}]".encode()


@pytest.mark.parametrize("value", [10**309, -(10**309), math.inf, -math.inf, math.nan])
def test_numbers_that_no_double_can_hold(value: float) -> None:
    with pytest.raises(CanonicalError):
        canonical({"k": value})


def test_keys_are_sorted_by_utf16_code_units() -> None:
    keys = {"\U0001f600": 1, "\uffff": 2, "\ue000": 3, "\ud7ff": 4, "a": 5, "": 6}
    assert [*json.loads(canonical(keys))] == ["", "a", "\ud7ff", "\U0001f600", "\ue000", "\uffff"]


def test_lone_surrogates_become_the_replacement_character() -> None:
    assert canonical({"k\ud800": "v\udc00"}) == '{"k\ufffd":"v\ufffd"}'.encode()
    # Two keys that become one are one: the last value counts.
    assert canonical(dict(zip("\ud800\udc00", (1, 2), strict=True))) == '{"\ufffd":2}'.encode()
    assert well_formed("a\ud800\ud801") == "a\ufffd\ufffd"


def test_escapes_are_minimal() -> None:
    assert (
        canonical('"\\/\b\f\n\r\t\x01\x7f\u2028é')
        == '"\\"\\\\/\\b\\f\\n\\r\\t\\u0001\x7f\u2028é"'.encode()
    )


def test_depth_is_no_limit() -> None:
    value: Any = []
    for _ in range(5000):
        value = {"k": [value]}
    assert canonical(value) == b'{"k":[' * 5000 + b"[]" + b"]}" * 5000


def test_a_value_that_is_no_json_is_a_mistake() -> None:
    with pytest.raises(TypeError, match="set is not a JSON type"):
        canonical_exact({1})
