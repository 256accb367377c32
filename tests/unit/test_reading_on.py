"""Reading that begins where another one ended says what one reading says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tapes_cli.capture.reader import Options, Reader
from tapes_cli.capture.sources import Source
from tapes_cli.model.checkpoint import BEGINNING, Position
from tapes_cli.model.records import Accepted, Incomplete, Rejected
from tests.support.captures import line, record
from tests.support.transcripts import Transcript, text

if TYPE_CHECKING:
    from pathlib import Path

    from tapes_cli.model.records import Record

_LINES = st.sampled_from(
    [
        line(record("a")),
        line(record("b")),
        line({"turns": [record("c"), record("d")]}),
        line(record("e"))[:-1] + line(record("f")),  # glued
        "not json\n",
        "\n",
        " \r\n",
        line({"type": "unknown"}),
    ]
)


def _read(file: Path, begin: Position = BEGINNING) -> tuple[list[Record], Position | None]:
    reader = Reader(Options(max_line_bytes=5000))
    found = list(reader.read(Source("a", file, begin=begin)))
    return found, reader.position


def _places(records: list[Record]) -> list[tuple[str, int, int, int | None]]:
    return [
        (type(r).__name__, r.location.line, r.location.byte_offset, r.location.index)
        for r in records
    ]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    first=st.lists(_LINES, max_size=5), more=st.lists(_LINES, max_size=4), cut=st.integers(0, 80)
)
def test_two_readings_find_what_one_finds(
    tmp_path: Path, first: list[str], more: list[str], cut: int
) -> None:
    file = tmp_path / "a"
    whole = (line(record("0")) + "".join(first + more)).encode()
    seen = len(line(record("0")) + "".join(first)) + min(cut, len("".join(more)))
    file.write_bytes(whole[:seen])
    before, position = _read(file)
    assert position is not None
    file.write_bytes(whole)
    after, _ = _read(file, position)
    expected, end = _read(file)
    settled: list[Record] = [r for r in before if not isinstance(r, Incomplete)]
    assert _places(settled + after) == _places(expected)
    assert end == Position(whole.count(b"\n"), len(whole))


def test_a_last_line_without_a_newline_is_done_if_it_is_whole(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_text(line(record("a")) + line(record("b"))[:-1])
    found, position = _read(file)
    assert [type(r) for r in found] == [Accepted, Accepted]
    assert position == Position(1, file.stat().st_size)
    with file.open("a") as stream:
        stream.write("\nbad\n")
    (after,), _ = _read(file, position)
    assert isinstance(after, Rejected)
    assert after.location.line == 3


def test_a_line_that_is_too_long_and_has_no_end_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "a"
    first = line(record("a"))
    file.write_text(first + '{"x": "' + "y" * 9000)
    _, position = _read(file)
    assert position == Position(1, len(first))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n\n",
        b"garbage\n",
        b'{\n "provider": 1\n}\n',
    ],
    ids=["empty", "blank", "nothing recognised", "a document"],
)
def test_what_can_only_be_read_from_its_beginning_has_no_position(
    tmp_path: Path, content: bytes
) -> None:
    file = tmp_path / "a"
    file.write_bytes(content)
    reader = Reader()
    list(reader.read(Source("a", file)))
    assert reader.position is None


def test_a_session_file_has_no_position(tmp_path: Path) -> None:
    transcript = Transcript()
    transcript.prompt("hello")
    transcript.answer("m", text("hi"))
    transcript.end()
    (tmp_path / "a").write_bytes(transcript.data())
    assert _read(tmp_path / "a")[1] is None
