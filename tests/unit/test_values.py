from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapes_cli.capture.lines import Line, LineSplitter
from tapes_cli.capture.values import glued, join_documents

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST = 1 << 20

json_objects = st.dictionaries(
    st.text(max_size=5),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
        max_leaves=8,
    ),
    max_size=4,
)


def lines_of(data: bytes) -> Iterator[Line]:
    return LineSplitter(MOST).split([data])


def joined(data: bytes, most: int = MOST) -> list[Line]:
    return list(join_documents(lines_of(data), most))


class TestGlued:
    @given(st.lists(json_objects, min_size=1, max_size=4), st.sampled_from(["", " ", "\t"]))
    def test_every_object_comes_back(self, values: list[Any], gap: str) -> None:
        text = gap.join(json.dumps(value, ensure_ascii=False) for value in values)
        parts = glued(Line(7, 100, text.encode()))
        assert [json.loads(part.data) for part in parts] == values
        assert {part.number for part in parts} == {7}
        for part in parts:
            start = part.byte_offset - 100
            assert text.encode()[start : start + len(part.data)] == part.data

    def test_behind_two_objects_anything_may_be_left_over(self) -> None:
        assert [part.data for part in glued(Line(1, 0, b"{} {}}"))] == [b"{}", b"{}", b"}"]

    def test_what_is_left_over_comes_last(self) -> None:
        first, rest = glued(Line(1, 0, b'{"a":1} {"b":', terminated=False))
        assert (first.data, first.terminated) == (b'{"a":1}', True)
        assert (rest.data, rest.byte_offset, rest.terminated) == (b'{"b":', 8, False)

    @pytest.mark.parametrize(
        "data",
        [b"", b"nonsense", b"{}}", b'{"a":1} nonsense', b"[1]{}", b'"a"', b'{"a":', b"{" * 5000],
    )
    def test_nothing_whole_at_the_beginning(self, data: bytes) -> None:
        assert glued(Line(1, 0, data)) == []


class TestDocument:
    @given(json_objects.filter(bool), st.sampled_from([1, 2, "\t"]), json_objects)
    def test_a_document_over_several_lines_is_one_line(
        self, value: Any, indent: Any, other: Any
    ) -> None:
        document = json.dumps(value, indent=indent).encode()
        data = (document + b"\n") * 2 + json.dumps(other).encode() + b"\n"
        found = joined(data)
        assert [json.loads(line.data) for line in found] == [value, value, other]
        assert (found[0].number, found[0].byte_offset) == (1, 0)

    @given(st.lists(json_objects, max_size=4), st.sampled_from([b"", b"{\n", b'{"a": [\n', b"[\n"]))
    def test_lines_are_not_swallowed(self, values: list[Any], before: bytes) -> None:
        """Lines behind a damaged first one are read as they are."""
        records = [b"{" + json.dumps(v).encode()[1:] for v in values]
        data = before + b"".join(record + b"\n" for record in records)
        assert joined(data) == list(lines_of(data))

    def test_a_document_that_is_too_long_is_left_as_it_is(self) -> None:
        data = json.dumps({"a": "x" * 100, "b": 1}, indent=1).encode()
        assert joined(data, 50) == list(lines_of(data))

    def test_a_document_that_is_no_json_is_left_as_it_is(self) -> None:
        data = b'{\n"a": nonsense\n}\n{"b": 1}\n'
        assert joined(data) == list(lines_of(data))

    def test_brackets_in_strings_are_no_brackets(self) -> None:
        value = {"a": '}]"\\', "b": ["{", "["]}
        (line,) = joined(json.dumps(value, indent=2).encode())
        assert json.loads(line.data) == value

    def test_a_line_too_long_ends_it(self) -> None:
        data = b'{\n"a": "' + b"x" * (MOST + 1) + b'"\n}\n'
        assert joined(data) == list(lines_of(data))

    def test_nothing(self) -> None:
        assert joined(b"") == []
