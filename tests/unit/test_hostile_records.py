"""Whatever is read gives records, whose messages repeat none of it; and what that costs."""

from __future__ import annotations

import json
import re
import time
import tracemalloc
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.text import Text

from tapes_cli.capture import decode, values
from tapes_cli.capture.lines import Line, LineSplitter
from tapes_cli.cli.console import visible
from tapes_cli.cli.conversation_text import _image
from tapes_cli.cli.session_text import session_table
from tapes_cli.inspection.sessions import ListedSession
from tapes_cli.model.reasons import Reason
from tapes_cli.model.records import Incomplete, Rejected, RejectError
from tapes_cli.store.postgres.queries import SessionRow
from tests.fuzz.captures import CAPTURES
from tests.fuzz.check import faults, read_files

if TYPE_CHECKING:
    from tapes_cli.model.records import Record

# Not like the name of a field, which may be shown.
CANARY = "c4n4ry?"
UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, those of direction, and surrogates: no message of ours has a need of any."""

LINES = [
    (name, file, number)
    for name, files in CAPTURES.items()
    for file, data in files.items()
    for number, line in enumerate(data.splitlines())
    if line.startswith(b"{")
]

texts = st.sampled_from(
    ["", CANARY, f"\x1b[2J{CANARY}\n", f"\u202e{CANARY}\x00", f"\ud800{CANARY}", f"data: {CANARY}"]
) | st.text(max_size=5)
numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
# Field names that mean something, so that what stands below them is looked at.
fields = (
    st.sampled_from(
        sorted(set(re.findall(rb'"(\w+)"\s*:', b"".join(CAPTURES["turn-record"].values()))))
    ).map(bytes.decode)
    | texts
)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(fields, inner, max_size=4),
    max_leaves=12,
)


def assert_harmless(records: list[Record]) -> None:
    assert faults(records) == []
    for found in records:
        if isinstance(found, Rejected):
            assert UNSAFE.search(found.message) is None
            assert CANARY not in found.message + found.pointer


@settings(max_examples=150)
@given(st.binary(max_size=200) | st.text(max_size=100).map(lambda t: t.encode("utf-8", "replace")))
def test_any_bytes(data: bytes) -> None:
    assert_harmless(read_files({"a": data}))


@settings(max_examples=150)
@given(st.lists(st.dictionaries(fields, json_values, max_size=6), min_size=1, max_size=3))
def test_any_objects(objects: list[Any]) -> None:
    data = "".join(json.dumps(value) + "\n" for value in objects)
    assert_harmless(read_files({"a": data.encode()}))


@settings(max_examples=250)
@given(st.sampled_from(LINES), json_values, fields, st.randoms(use_true_random=False))
def test_any_value_in_the_place_of_any(
    line: tuple[str, str, int], value: Any, key: str, chance: Any
) -> None:
    name, file, number = line
    lines = CAPTURES[name][file].splitlines()
    record = json.loads(lines[number])
    holder = record
    while True:
        inner = [v for v in holder.values() if isinstance(v, dict) and v]
        if not inner or chance.random() < 0.3:
            break
        holder = chance.choice(inner)
    holder[key if chance.random() < 0.3 else chance.choice(list(holder))] = value
    lines[number] = json.dumps(record).encode()
    files = {**CAPTURES[name], file: b"\n".join(lines) + b"\n"}
    assert_harmless(read_files(files))


class TestManySmallThings:
    @pytest.mark.parametrize(("count", "parts"), [(5, 5), (6, 0)])
    def test_on_one_line(self, monkeypatch: pytest.MonkeyPatch, count: int, parts: int) -> None:
        monkeypatch.setattr(values, "MOST_GLUED", 5)
        assert len(values.glued(Line(1, 0, b"{} " * count))) == parts

    @pytest.mark.parametrize(("count", "lines"), [(5, 1), (6, 6)])
    def test_on_many_lines(self, monkeypatch: pytest.MonkeyPatch, count: int, lines: int) -> None:
        monkeypatch.setattr(values, "MOST_DOCUMENT_LINES", 5)
        data = b'{"a": [\n' + b"1,\n" * (count - 3) + b"1\n]}\n"
        split = list(LineSplitter().split([data]))
        assert len(split) == count
        found = list(values.join_documents(iter(split), 1000))
        assert len(found) == lines
        assert b"".join(line.data for line in found).replace(b"\n", b"") == data.replace(b"\n", b"")
        assert lines == 1 or found == split

    @pytest.mark.parametrize("data", [b'{"' + b'"' * (1 << 22), b'["a"' + b',"a"' * (1 << 20)])
    def test_on_a_line_that_is_no_json(self, data: bytes) -> None:
        tracemalloc.start()
        assert not decode._is_too_deep(data)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 2 * len(data)
        with pytest.raises(RejectError) as caught:
            decode.decode(data)
        assert caught.value.reason is Reason.NOT_JSON


@given(json_values, st.sampled_from([1, 2, 3, 7, 1 << 16]), st.integers(0, 5))
def test_nesting_is_counted_outside_of_strings(value: Any, window: int, most: int) -> None:
    data = json.dumps(value).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decode, "_WINDOW_BYTES", window)
        patch.setattr(decode, "MAX_NESTING", most)
        assert decode._is_too_deep(data) == (depth_of(value) > most)


def depth_of(value: Any) -> int:
    if not isinstance(value, dict | list):
        return 0
    return 1 + max(map(depth_of, value.values() if isinstance(value, dict) else value), default=0)


def test_what_is_cut_short_after_a_brace_is_incomplete() -> None:
    (found,) = read_files({"a": b'{"provider": "'})
    assert isinstance(found, Incomplete)


def test_an_address_without_a_comma_takes_no_time() -> None:
    started = time.monotonic()
    assert _image({"image_url": "data:" + "a" * 100_000}).startswith("[image data:aaa")
    assert time.monotonic() - started < 5
    assert _image({"image_url": "data:image/png;base64,AAAA"}) == "[image image/png, 3 bytes]"
    assert _image({"image_url": "data:,AAAA"}) == "[image 3 bytes]"


def test_a_title_is_cut_before_it_is_laid_out() -> None:
    """Laying out three million characters takes four seconds."""
    row = SessionRow(
        org_id=UUID(int=0),
        id=UUID(int=1),
        harness_id="h",
        harness_session_id="s",
        name=None,
        cwd=None,
        harness_version=None,
        parent_session_id=None,
        started_at=datetime.min.replace(tzinfo=UTC),
        last_seen_at=datetime.min.replace(tzinfo=UTC),
        turn_count=1,
        total_input_tokens=0,
        total_output_tokens=0,
        placeholder=False,
    )
    table = session_table([ListedSession(row, "\u6f22" * 3_000_000)], 80)
    (title,) = table.columns[-1].cells
    assert isinstance(title, Text)
    assert len(title) == 1000


def test_directions_and_invisible_characters_are_shown() -> None:
    hidden = "\u061c\xad\u180e\u206a\ufff9\U000e0041\x9b"
    assert visible(hidden) == r"\u061c\xad\u180e\u206a\ufff9\U000e0041\x9b"
