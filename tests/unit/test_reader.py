from __future__ import annotations

import bz2
import gzip
import io
import json
import tracemalloc
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapes_cli.capture.reader import Options, Reader, read
from tapes_cli.capture.sources import Source, SourceProblem
from tapes_cli.model.reasons import Reason
from tapes_cli.model.records import Accepted, Incomplete, Location, Record, Rejected
from tapes_cli.model.turn import CaptureTime, TimeSource

if TYPE_CHECKING:
    from pathlib import Path

ORG = UUID(int=7)
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
LARGE = 123456789012345678901234567890


def turn(*texts: str, **changes: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": text} for text in texts or ("hi",)]
    return {
        "provider": "anthropic",
        "request": {"model": "m", "messages": messages},
        "response": {"message": {"role": "assistant", "content": [{"type": "text", "text": "ok"}]}},
    } | changes


def calling(number: Any, **changes: Any) -> dict[str, Any]:
    """A turn whose history has a tool call with a number."""
    block = {"type": "tool_use", "id": "i", "name": "n", "input": {"a": number}}
    messages = [{"role": "assistant", "content": [block]}]
    return turn(request={"messages": messages}, **changes)


def dump(value: Any) -> bytes:
    return json.dumps(value).encode()


def read_bytes(data: bytes, options: Options | None = None) -> list[Record]:
    """Read `data` as it comes on stdin."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
        return list(read(Source("in", None), options))


def accepted(records: list[Record]) -> list[Accepted]:
    assert all(isinstance(record, Accepted) for record in records), records
    return [record for record in records if isinstance(record, Accepted)]


def raw_of(record: Record) -> bytes:
    assert isinstance(record, Accepted | Rejected)
    return record.raw() if isinstance(record, Accepted) else record.raw


def rejected(record: Record) -> Rejected:
    assert isinstance(record, Rejected)
    return record


def input_of(record: Record) -> Any:
    assert isinstance(record, Accepted)
    return record.turn.history[0].content[0]["tool_input"]["a"]


class TestLines:
    def test_every_line_is_a_record_with_its_place(self) -> None:
        data = dump(turn()) + b"\r\n\nnonsense\n[]\n{}\n" + dump(turn())
        records = read_bytes(data)
        first, syntax, array, empty, last = records
        assert isinstance(first, Accepted)
        assert first.location == Location("in", 1, 0, format="turn-record")
        assert first.raw() == dump(turn())
        start = len(dump(turn())) + 3
        assert syntax == Rejected(
            Location("in", 3, start),
            Reason.NOT_JSON,
            "the line is not valid JSON at column 1: Expecting value",
            "",
            b"nonsense",
        )
        assert [rejected(array).reason, rejected(empty).reason] == [
            Reason.NOT_OBJECT,
            Reason.UNRECOGNISED,
        ]
        assert isinstance(last, Accepted)
        assert last.location == Location("in", 6, start + 15, format="turn-record")

    def test_reject_leads_to_the_field(self) -> None:
        (record,) = read_bytes(dump(turn(session={"org_id": "s3cret"})) + b"\n")
        found = rejected(record)
        assert (found.reason, found.pointer) == (Reason.ORG_ID_INVALID, "/session/org_id")
        assert found.message == "org_id is not a UUID"

    @pytest.mark.parametrize("tail", [b'{"provider": "anth', b'{"provider": "\xe2\x82', b"hello"])
    def test_last_line_that_is_being_written(self, tail: bytes) -> None:
        first, last = read_bytes(dump(turn()) + b"\n" + tail)
        assert isinstance(first, Accepted)
        assert isinstance(last, Incomplete)
        assert last.location == Location("in", 2, len(dump(turn())) + 1)
        assert isinstance(read_bytes(tail + b"\n")[0], Rejected)

    @pytest.mark.parametrize("tail", [b"{}", b'{"a": NaN}', b"[]"])
    def test_last_line_that_parses_is_no_exception(self, tail: bytes) -> None:
        assert isinstance(read_bytes(tail)[0], Rejected)

    def test_every_prefix_of_a_capture_reads_without_a_reject(self) -> None:
        data = dump(turn("é")) + b"\n" + json.dumps(turn("ü"), ensure_ascii=False).encode()
        for length in range(len(data)):
            kinds = [type(record) for record in read_bytes(data[:length])]
            assert kinds in ([], [Incomplete], [Accepted], [Accepted, Incomplete])

    def test_long_line_does_not_stop_the_next(self) -> None:
        data = dump(turn("x" * 1000)) + b"\n" + dump(turn())
        long, short = read_bytes(data, Options(max_line_bytes=999))
        assert long == Rejected(
            Location("in", 1, 0),
            Reason.LINE_TOO_LONG,
            "the line is longer than 999 bytes",
            "",
            b"",
        )
        assert isinstance(short, Accepted)

    def test_byte_order_mark(self) -> None:
        bom = b"\xef\xbb\xbf"
        data = bom + dump(turn()) + b"\n" + bom + dump(turn()) + b"\n"
        first, second = read_bytes(data)
        assert isinstance(first, Accepted)
        assert first.location.byte_offset == 3
        assert rejected(second).reason is Reason.NOT_JSON

    def test_line_separators_inside_strings(self) -> None:
        line = json.dumps(turn("a\u2028b\u0085c"), ensure_ascii=False).encode() + b"\n"
        (record,) = accepted(read_bytes(line))
        assert record.turn.history[0].content == [{"type": "text", "text": "a\u2028b\u0085c"}]

    def test_lone_surrogates_are_kept(self) -> None:
        (record,) = accepted(read_bytes(dump(turn("\ud800")) + b"\n"))
        assert record.turn.history[0].content == [{"type": "text", "text": "\ud800"}]


class TestBatches:
    def test_items_are_records_of_their_own(self) -> None:
        batch = {"turns": [turn("a"), turn(provider="x"), 5, turn("b")]}
        records = read_bytes(b"\n" + dump(batch) + b"\n")
        assert [record.location for record in records] == [
            Location("in", 2, 1, index, format="batch") for index in range(4)
        ]
        assert [getattr(record, "reason", None) for record in records] == [
            None,
            Reason.PROVIDER_UNSUPPORTED,
            Reason.NOT_OBJECT,
            None,
        ]
        assert rejected(records[1]).pointer == "/provider"

    def test_item_can_be_read_again(self) -> None:
        batch = {"turns": [turn("é\ud800"), turn("\u2028", agent_name="x"), turn(provider="x")]}
        for data in (dump(batch), dump({"turns": batch["turns"][1:]})):
            records = read_bytes(data)
            for record in records:
                (again,) = read_bytes(raw_of(record) + b"\n")
                assert type(again) is type(record)
            assert [json.loads(raw_of(r)) for r in records] == json.loads(data)["turns"]

    @pytest.mark.parametrize(
        ("value", "reason"), [([], Reason.BATCH_EMPTY), ({}, Reason.BATCH_INVALID)]
    )
    def test_batch_without_items(self, value: Any, reason: Reason) -> None:
        (record,) = read_bytes(dump({"turns": value}))
        found = rejected(record)
        assert (found.reason, found.location.index) == (reason, None)
        assert found.raw == dump({"turns": value})


class TestRejectsFiles:
    def test_record_inside_is_what_is_read(self) -> None:
        bad = calling(LARGE, provider="x")
        wrapper = {"type": "reject", "code": "x", "record": bad}
        (record,) = read_bytes(dump(wrapper) + b"\n")
        found = rejected(record)
        assert found.reason is Reason.PROVIDER_UNSUPPORTED
        assert json.loads(found.raw) == bad
        (record,) = accepted(read_bytes(dump(wrapper | {"record": calling(LARGE)})))
        assert input_of(record) == LARGE


class TestNumbers:
    def test_integers_beyond_64_bits_are_exact(self) -> None:
        records = read_bytes(dump(calling(LARGE)) + b"\n" + dump(calling(LARGE + 1)) + b"\n")
        assert [input_of(record) for record in records] == [LARGE, LARGE + 1]

    def test_in_a_batch_too(self) -> None:
        batch = {"turns": [calling(1), calling(LARGE), calling(LARGE, provider="x")]}
        one, two, bad = read_bytes(dump(batch))
        assert [input_of(one), input_of(two)] == [1, LARGE]
        assert json.loads(rejected(bad).raw) == batch["turns"][2]

    def test_in_a_batch_with_something_deep_too(self) -> None:
        deep: Any = []
        for _ in range(300):
            deep = [deep]
        turns = [calling(LARGE, extra=deep), calling(LARGE, extra=deep, provider="x")]
        good, bad = read_bytes(dump({"turns": turns}))
        assert input_of(good) == LARGE
        assert isinstance(good, Accepted)
        assert [json.loads(raw) for raw in (good.raw(), rejected(bad).raw)] == turns

    def test_in_metadata_too(self) -> None:
        session = {"harness_metadata": {"a": LARGE}}
        (record,) = accepted(read_bytes(dump(turn(session=session))))
        assert record.turn.envelope is not None
        assert record.turn.envelope.harness_metadata == {"a": LARGE}

    def test_large_doubles_are_no_endless_loop(self) -> None:
        (record,) = read_bytes(json.dumps(calling(0)).replace('"a": 0', '"a": 1e300').encode())
        assert float(input_of(record)) == 1e300

    def test_likeness_is_not_equality(self) -> None:
        lines = [dump(calling(value)) for value in (1, True, 1.0, 1)]
        found = [input_of(record) for record in read_bytes(b"\n".join(lines))]
        assert [type(value) for value in found] == [int, bool, float, int]


class TestOptions:
    def test_org_and_project(self) -> None:
        data = b"\n".join(
            map(dump, (turn(), turn(session={}), turn(session={"org_id": str(UUID(int=9))})))
        )
        records = accepted(read_bytes(data, Options(default_org=ORG, project="p")))
        assert [r.turn.envelope and r.turn.envelope.org_id for r in records] == [
            None,
            ORG,
            UUID(int=9),
        ]
        assert {record.turn.project for record in records} == {"p"}

    def test_clock_is_asked_last(self, tmp_path: Path) -> None:
        options = Options(now=lambda: NOON)
        (record,) = accepted(read_bytes(dump(turn()), options))
        assert record.turn.captured == CaptureTime(NOON, TimeSource.CLOCK)
        file = tmp_path / "a"
        file.write_bytes(dump(turn()))
        mtime = datetime(2020, 2, 2, tzinfo=UTC)
        (record,) = accepted(list(read(Source("a", file, mtime), options)))
        assert record.turn.captured == CaptureTime(mtime, TimeSource.FILE)


class TestDamage:
    def test_problem_is_a_record(self) -> None:
        (record,) = read(SourceProblem("gone", "no such file or directory"))
        assert record == Rejected(
            Location("gone", 0, 0),
            Reason.SOURCE_UNREADABLE,
            "no such file or directory",
            "",
            b"",
        )

    def test_records_before_the_damage_are_read(self, tmp_path: Path) -> None:
        file = tmp_path / "a"
        line = dump(turn()) + b"\n"
        file.write_bytes(bz2.compress(line * 3) + bz2.compress(line)[:50])
        *records, last = read(Source("a", file))
        assert len(accepted(records)) == 3
        assert last == Rejected(
            Location("a", 4, 3 * len(line)),
            Reason.SOURCE_UNREADABLE,
            "the bz2 archive is cut short after line 3",
            "",
            b"",
        )

    def test_vanished_file(self, tmp_path: Path) -> None:
        (record,) = read(Source("a", tmp_path / "a"))
        assert rejected(record).message == "no such file or directory"

    @pytest.mark.parametrize("depth", [300, 600, 890, 950, 1020, 100_000])
    @pytest.mark.parametrize("place", ["tool", "session", "response", "extra"])
    def test_deep_nesting_is_no_crash(self, depth: int, place: str) -> None:
        deep = b"[" * depth + b"]" * depth
        hole = "@"
        block = {"type": "tool_use", "tool_name": "n", "tool_input": {"a": hole}}
        response = {"message": {"role": "assistant", "content": [block]}}
        value = {
            "tool": calling(hole),
            "session": turn(session={"harness_metadata": {"a": hole}}),
            "response": turn(response=response),
            "extra": turn(extra=hole),
        }[place]
        line = dump(value).replace(b'"@"', deep)
        first, second = read_bytes(line + b"\n" + dump(turn()))
        if isinstance(first, Rejected):
            assert first.reason is Reason.NESTING_TOO_DEEP
            assert depth > 300
        else:
            assert depth < 950 or place == "extra"
        assert isinstance(second, Accepted)

    def test_parser_that_recurses_too_far_is_a_reject(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def recurse(*_: Any) -> Any:
            raise RecursionError

        monkeypatch.setattr("tapes_cli.capture.formats.turn_records.TurnParser.parse", recurse)
        (record,) = read_bytes(dump(turn()))
        assert rejected(record).reason is Reason.NESTING_TOO_DEEP

    @settings(max_examples=300, deadline=None)
    @given(st.data())
    def test_no_damage_is_a_crash(self, data: st.DataObject) -> None:
        line = dump(turn("a", session={"harness_id": "h"}, meta={"elapsed_seconds": 1}))
        at = data.draw(st.integers(0, len(line)))
        cut = data.draw(st.integers(0, 20))
        junk = data.draw(st.binary(max_size=8))
        records = read_bytes(b"\n" + line[:at] + junk + line[at + cut :] + b"\n" + line)
        assert isinstance(records[-1], Accepted)
        for record in records:
            if isinstance(record, Rejected):
                assert record.message


class TestMemory:
    def test_history_is_recognised_across_sources(self, tmp_path: Path) -> None:
        reader = Reader()
        found = []
        opening = "a" * 100
        for number, texts in enumerate(([opening], [opening, "b"])):
            file = tmp_path / str(number)
            file.write_bytes(dump(turn(*texts)))
            found += accepted(list(reader.read(Source(file.name, file))))
        first, second = (record.turn.history for record in found)
        assert (first.shared, second.shared) == (0, 1)
        assert second.known is first.mark
        assert [message.content[0]["text"] for message in second] == [opening, "b"]

    def test_memory_is_bounded(self, tmp_path: Path) -> None:
        file = tmp_path / "a.gz"
        with gzip.open(file, "wb", compresslevel=1) as stream:
            for number in range(400):
                session = {"harness_id": "h", "harness_session_id": str(number)}
                stream.write(dump(turn(f"{number} " + "word " * 100_000, session=session)) + b"\n")
        assert file.stat().st_size < 4 << 20
        tracemalloc.start()
        try:
            count = sum(isinstance(record, Accepted) for record in read(Source("a", file)))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert count == 400
        # 200 MB went through; what is remembered of histories is 48 MiB.
        assert peak < 70 << 20
