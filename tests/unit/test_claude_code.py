from __future__ import annotations

import gzip
import io
import json
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapes_cli.capture.conversation import Conversation
from tapes_cli.capture.decode import decode_faithfully
from tapes_cli.capture.formats import claude_code, claude_code_index
from tapes_cli.capture.formats.base import Capture, Found
from tapes_cli.capture.formats.claude_code import FORMAT
from tapes_cli.capture.formats.claude_code_lines import known_id
from tapes_cli.capture.lines import Line, LineSplitter
from tapes_cli.capture.reader import Options, read
from tapes_cli.capture.sources import Source, SourceReadError
from tapes_cli.merkle.chain import ChainBuilder
from tapes_cli.model.envelope import Envelope
from tapes_cli.model.reasons import Reason
from tapes_cli.model.records import Accepted, Incomplete, Location, Record, Rejected, Skipped
from tapes_cli.model.turn import Turn, Usage
from tests.support.deep import objects, with_depth
from tests.support.transcripts import START, Transcript, call, dump, output, text, thinking

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
LARGE = 123456789012345678901234567890


def read_bytes(data: bytes, options: Options | None = None, **source: Any) -> list[Record]:
    """Read a transcript as it comes on stdin, where nobody knows whether it is finished."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
        return list(read(Source("in", None, **source), options or Options(format=FORMAT)))


def turns(data: bytes, **source: Any) -> list[Turn]:
    """Return the turns, of which all are to be sound and complete."""
    records = read_bytes(data, **source)
    assert all(isinstance(record, Accepted) for record in records), records
    return [record.turn for record in records if isinstance(record, Accepted)]


def said(turn: Turn) -> list[tuple[str, list[Any]]]:
    """Return the messages of a turn's request, each block by what it says."""
    return [(message.role, [words(block) for block in message.content]) for message in turn.history]


def words(block: Any) -> Any:
    names = ("text", "thinking", "tool_use_id", "tool_output")
    return next(block[name] for name in names if name in block)


def envelope(turn: Turn) -> Envelope:
    assert turn.envelope is not None
    return turn.envelope


def reasons(records: list[Record]) -> list[Reason | None]:
    return [getattr(record, "reason", None) for record in records]


def heads(records: list[Record]) -> list[str]:
    builder = ChainBuilder()
    return [
        builder.build(record.turn).head.hash for record in records if isinstance(record, Accepted)
    ]


class TestRecognition:
    @pytest.mark.parametrize(
        "record",
        [
            {"sessionId": "s", "uuid": "u"},
            {"sessionId": "s", "message": {}},
            {"type": "summary", "summary": "x", "leafUuid": "u"},
            {"type": "file-history-snapshot", "isSnapshotUpdate": False},
            {"type": "queue-operation", "sessionId": "s"},
            {"type": "custom-title", "customTitle": "x", "sessionId": "s"},
            {"type": "last-prompt", "leafUuid": "u", "sessionId": "s"},
            {"type": "last-prompt", "lastPrompt": "x", "sessionId": "s"},
            {"type": "mode", "mode": "normal", "sessionId": "s"},
            {"type": "a-type-of-tomorrow", "leafUuid": "u"},
        ],
    )
    def test_first_lines(self, record: dict[str, Any]) -> None:
        assert FORMAT.recognises(record)

    @pytest.mark.parametrize(
        "record",
        [
            {},
            {"type": "x", "payload": {}},
            {"sessionId": "s"},
            {"uuid": "u", "message": {}},
            {"type": "event", "sessionId": "s"},
            {"type": ["mode"], "sessionId": "s"},
            {"leafUuid": "u"},
        ],
    )
    def test_other_formats(self, record: dict[str, Any]) -> None:
        assert not FORMAT.recognises(record)


class TestMessages:
    def test_blocks_of_one_message_are_one_turn(self) -> None:
        t = Transcript()
        t.prompt("go")
        t.answer("m1", thinking("hm"), text("Well"), call("c1", cmd="ls"), stop="tool_use")
        t.result("c1", "a\nb")
        t.answer("m2", text("Two files."), stop="end_turn")
        t.end()
        first, second = turns(t.data())
        assert said(first) == [("user", ["go"])]
        assert [words(block) for block in first.response.content] == ["hm", "Well", "c1"]
        assert first.stop_reason == "tool_use"
        assert said(second) == [
            ("user", ["go"]),
            ("assistant", ["hm", "Well", "c1"]),
            ("user", ["a\nb"]),
        ]

    def test_what_a_turn_says_of_itself(self) -> None:
        t = Transcript()
        t.prompt("go")
        t.answer("m1", text("ok"), stop="end_turn")
        t.end()
        (record,) = read_bytes(t.data())
        assert isinstance(record, Accepted)
        turn = record.turn
        assert (turn.provider, turn.request_model, turn.response_model) == (
            "anthropic",
            "claude-test",
            "claude-test",
        )
        assert turn.usage == Usage(3210, 7, 3217, 200, 3000)
        assert turn.captured.at == START.replace(second=1)
        assert turn.lossy
        assert turn.envelope == Envelope(
            harness_id="claude",
            harness_session_id="s1",
            harness_version="2.1.209",
            cwd="/home/me/work",
            harness_metadata={"source": "claude-code-transcript", "lossy": True},
        )
        assert json.loads(record.raw())["meta"]["request_id"] == "req-m1"
        assert record.location.format == "claude-code-transcript"
        assert record.size == len(t.data()) - len(dump([t.lines[-1]])) - 2

    def test_record_says_the_same_when_it_is_imported_itself(self) -> None:
        t = Transcript()
        t.prompt("go")
        t.answer("m1", text("a"), call("c1", n=LARGE))
        t.result("c1", "\ud800")
        t.answer("m2", thinking("b"), text("c"))
        t.end()
        records = read_bytes(t.data())
        again = [
            read_bytes(record.raw() + b"\n", Options())[0]
            for record in records
            if isinstance(record, Accepted)
        ]
        assert heads(again) == heads(records)
        assert len(heads(again)) == 2

    def test_lines_that_are_not_adjacent(self) -> None:
        t = Transcript()
        t.prompt("go")
        t.answer("m1", call("c1"), tokens=1)
        t.result("c1", "one")
        t.write("progress", data={"type": "bash_progress"})
        t.answer("m1", call("c2"), tokens=9)
        t.result("c2", "two")
        t.answer("m2", text("fine"))
        t.end()
        first, second = turns(t.data())
        assert [words(block) for block in first.response.content] == ["c1", "c2"]
        assert first.usage.completion_tokens == 9
        assert said(second)[1:] == [("assistant", ["c1", "c2"]), ("user", ["one", "two"])]

    def test_place_is_the_first_line_and_time_the_last(self) -> None:
        t = Transcript()
        t.prompt("go")
        t.answer("m1", text("a"), text("b"))
        t.end()
        (record,) = read_bytes(t.data())
        assert isinstance(record, Accepted)
        assert (record.location.line, record.location.byte_offset) == (2, len(dump(t.lines[:1])))
        assert record.turn.captured.at == START.replace(second=2)

    def test_parallel_calls_keep_all_results(self) -> None:
        t = Transcript()
        t.prompt("go")
        t.answer("m1", call("c1"), call("c2"), call("c3"))
        parents = [line["uuid"] for line in t.lines[1:]]
        for call_id, parent in (("c2", parents[1]), ("c3", parents[2]), ("c1", parents[0])):
            t.result(call_id, f"of {call_id}", parentUuid=parent)
        t.answer("m2", text("ok"))
        t.end()
        assert said(turns(t.data())[1])[2] == ("user", ["of c2", "of c3", "of c1"])

    def test_what_is_said_in_a_row_is_one_message(self) -> None:
        t = Transcript()
        t.prompt("caveat", isMeta=True)
        t.prompt("go")
        t.prompt([text("and")])
        t.answer("m1", call("c1"))
        t.prompt("wait")
        t.result("c1", "late")
        t.answer("m2", text("ok"))
        t.end()
        first, second = turns(t.data())
        assert said(first) == [("user", ["caveat", "go", "and"])]
        assert said(second)[2] == ("user", ["late", "wait"])

    def test_text_alone_stays_text(self) -> None:
        t = Transcript()
        t.prompt("go")
        t.answer("m1", text("ok"))
        t.end()
        (record,) = read_bytes(t.data())
        assert isinstance(record, Accepted)
        assert json.loads(record.raw())["request"]["messages"] == [
            {"role": "user", "content": "go"}
        ]

    def test_what_was_not_sent_is_no_message(self) -> None:
        t = Transcript()
        t.prompt("go")
        t.write("attachment", attachment={"type": "skill_listing"})
        t.write("system", subtype="informational", content="note")
        t.prompt("shown only", isVisibleInTranscriptOnly=True)
        copy = {"type": "agent_progress", "message": {"type": "user", "message": {"content": "x"}}}
        t.write("progress", data=copy)
        t.aside("queue-operation", operation="enqueue", content="later", sessionId="s1")
        t.aside("file-history-snapshot", messageId="u1", snapshot={}, isSnapshotUpdate=False)
        t.aside("a-type-of-tomorrow", sessionId="s1", message={"content": "x"})
        t.answer("m1", text("ok"))
        t.end()
        (turn,) = turns(t.data())
        assert said(turn) == [("user", ["go"])]

    def test_empty_content_is_no_message(self) -> None:
        t = Transcript()
        t.prompt([])
        t.answer("m1", text("hello"))
        t.end()
        (turn,) = turns(t.data())
        assert said(turn) == []

    def test_message_without_blocks_is_skipped(self) -> None:
        t = Transcript()
        t.prompt("go")
        t.answer("m1", text("x"))
        t.lines[-1]["message"]["content"] = []
        (record,) = read_bytes(t.data())
        assert isinstance(record, Incomplete)
        t.answer("m2", text("ok"))
        t.end()
        skipped, turn = read_bytes(t.data())
        assert reasons([skipped]) == [Reason.EMPTY_RESPONSE]
        assert isinstance(turn, Accepted)
        assert said(turn.turn) == [("user", ["go"])]

    def test_line_that_is_written_twice_counts_once(self) -> None:
        t = Transcript()
        t.prompt("go")
        t.answer("m1", text("a"), text("b"))
        once = t.data()
        # As on a resume by another version.
        t.lines.append({**t.lines[-1], "version": "2.1.12"})
        t.lines.insert(1, t.lines[0])
        t.end()
        (turn,) = turns(t.data())
        assert identity(turn) == identity(turns(once, mtime=LONG_AGO)[0])
        assert len(turn.response.content) == 2

    def test_long_ids_take_little_memory(self) -> None:
        assert known_id("u1") == "u1"
        assert len(known_id("u" * 10_000)) < 100

    def test_ids_however_long_tell_lines_apart(self) -> None:
        t = Transcript(prefix="u" * 1000)
        t.prompt("go")
        t.answer("m" * 1000, text("a"), text("b"))
        t.answer("m" * 1000 + "x", text("c"))
        t.end()
        assert [len(turn.response.content) for turn in turns(t.data())] == [2, 1]

    def test_every_turn_goes_on_from_the_one_before(self) -> None:
        t = Transcript()
        for number in range(5):
            t.prompt(f"question {number}")
            t.answer(f"m{number}", thinking("t"), text("w"), call(f"c{number}", flag=False, x=""))
            t.result(f"c{number}", "r")
        t.answer("last", {"type": "server_tool_use", "id": "s", "name": "web", "input": {"q": 1}})
        t.end()
        builder = ChainBuilder()
        chains = [builder.build(turn).hashes for turn in turns(t.data())]
        assert len(chains) == 6
        for earlier, later in pairwise(chains):
            assert later[: len(earlier)] == earlier


class TestNumbers:
    def test_integers_beyond_64_bits_are_exact(self) -> None:
        t = Transcript()
        t.prompt("go")
        t.answer("m1", call("c1", n=LARGE))
        t.result("c1")
        t.answer("m2", text("ok"))
        t.end()
        first, second = turns(t.data())
        assert first.response.content[0]["tool_input"] == {"n": LARGE}
        assert second.history[1].content[0]["tool_input"] == {"n": LARGE}


class TestVersions:
    @pytest.mark.parametrize(
        ("version", "known"),
        [
            ("1.0.98", True),
            ("2.1.11", True),
            ("2.1.12", False),
            ("2.1.49", False),
            ("2.1.30-beta.1", False),
            ("2.1.50", True),
            ("2.1.209", True),
            ("2.10.12", True),
            ("next", True),
            (None, True),
        ],
    )
    def test_counts_that_are_not_to_be_believed(self, version: str | None, known: bool) -> None:  # noqa: FBT001  # an expectation
        t = Transcript()
        t.prompt("go")
        t.answer("m1", text("ok"), stop="end_turn", version=version)
        t.end()
        (turn,) = turns(t.data())
        assert turn.stop_reason == ("end_turn" if known else "")
        assert turn.usage == (Usage(3210, 7, 3217, 200, 3000) if known else Usage())

    def test_usage_is_left_out_where_there_is_none(self) -> None:
        t = Transcript()
        t.prompt("go")
        t.answer("m1", text("ok"))
        del t.lines[-1]["message"]["usage"]
        t.end()
        assert turns(t.data())[0].usage == Usage()


class TestThreads:
    def test_agent_has_a_session_of_its_own(self) -> None:
        t = Transcript(agent="a1")
        t.prompt("look")
        t.answer("m1", text("seen"))
        (turn,) = turns(t.data(), mtime=LONG_AGO)
        assert envelope(turn).harness_session_id == "s1/agent-a1"
        assert envelope(turn).parent == ("claude", "s1")

    def test_side_chains_in_the_file(self) -> None:
        main = Transcript()
        main.prompt("go")
        main.answer("m1", call("c1"), call("c2"))
        sides = []
        for name in ("x", "y"):
            side = Transcript(prefix=name)
            side.prompt(f"look {name}", isSidechain=True)
            side.answer(f"m{name}", call(f"c{name}"), isSidechain=True)
            side.result(f"c{name}", isSidechain=True)
            side.answer(f"m{name}2", text(f"seen {name}"), isSidechain=True)
            sides.append(side.lines)
        together = [*main.lines, *(line for both in zip(*sides, strict=True) for line in both)]
        main.result("c2")
        main.result("c1")
        main.answer("m2", text("all"))
        records = read_bytes(dump([*together, *main.lines[3:]]), mtime=LONG_AGO)
        assert [record.location.line for record in records] == [2, 6, 7, 10, 11, 14]
        found = [record.turn for record in records if isinstance(record, Accepted)]
        sessions = [envelope(turn).harness_session_id for turn in found]
        assert sessions == ["s1", "s1/x0", "s1/y0", "s1/x0", "s1/y0", "s1"]
        assert said(found[4]) == [
            ("user", ["look y"]),
            ("assistant", ["cy"]),
            ("user", ["done"]),
        ]
        assert said(found[5]) == [
            ("user", ["go"]),
            ("assistant", ["c1", "c2"]),
            ("user", ["done", "done"]),
        ]

    def test_side_chain_that_a_line_of_the_session_starts(self) -> None:
        t = Transcript()
        t.prompt("go")
        t.answer("m1", call("c1"))
        start = t.parent
        for name in ("x", "y"):
            side = Transcript(prefix=name, parent=start)
            side.prompt(name, isSidechain=True)
            side.answer(f"m{name}", text("seen"), isSidechain=True)
            t.lines += side.lines
        # A line of the session that follows one of a sub-agent begins nothing anew.
        t.result("c1", uuid="r", parentUuid="y1")
        t.answer("m2", text("ok"))
        t.end()
        found = [record.turn for record in read_bytes(t.data(), mtime=LONG_AGO)]  # type: ignore[union-attr]  # all are turns
        assert [envelope(turn).harness_session_id for turn in found] == [
            "s1",
            "s1/x0",
            "s1/y0",
            "s1",
        ]
        assert [len(said(turn)) for turn in found] == [1, 1, 1, 3]

    def test_same_message_id_in_two_threads(self) -> None:
        t = Transcript()
        t.prompt("go")
        side = Transcript(agent="a1", prefix="x")
        side.prompt("look")
        side.answer("m1", text("side"))
        t.answer("m1", text("main"))
        records = read_bytes(dump([*t.lines, *side.lines]), mtime=LONG_AGO)
        assert [type(record) for record in records] == [Accepted, Accepted]

    def test_session_is_that_of_the_message(self) -> None:
        t = Transcript(session="old")
        t.prompt("go")
        t.session = "new"
        t.answer("m1", text("a"))
        t.end()
        (turn,) = turns(t.data())
        assert envelope(turn).harness_session_id == "new"
        assert said(turn) == [("user", ["go"])]

    def test_new_root_forgets(self) -> None:
        t = Transcript()
        t.prompt("go")
        t.answer("m1", text("a"))
        t.end()
        t.write("progress", parentUuid=None, data={"hookEvent": "SessionStart"})
        t.prompt("afresh")
        t.answer("m2", text("b"))
        t.end()
        assert said(turns(t.data())[1]) == [("user", ["afresh"])]

    def test_two_sessions_in_a_row(self) -> None:
        first, second = Transcript(), Transcript(session="s2", prefix="v")
        for t in (first, second):
            t.prompt(f"go {t.session}")
            t.answer("m" + t.session, text("a"))
            t.end()
        one, two = turns(first.data() + second.data())
        assert envelope(two).harness_session_id == "s2"
        assert [said(one), said(two)] == [[("user", ["go s1"])], [("user", ["go s2"])]]


class TestCompaction:
    def test_summary_takes_the_place_of_what_was_said(self) -> None:
        t = Transcript()
        t.prompt("go")
        t.answer("m1", text("a"))
        t.compact("in short")
        t.prompt("more")
        t.answer("m2", text("b"))
        t.end()
        first, second = turns(t.data())
        assert said(first) == [("user", ["go"])]
        assert said(second) == [("user", ["in short", "more"])]

    def test_boundary_forgets_whatever_follows(self) -> None:
        t = Transcript()
        t.prompt("go")
        t.answer("m1", text("a"))
        t.write("system", subtype="compact_boundary")
        t.prompt("in short")
        t.answer("m2", text("b"))
        t.end()
        assert said(turns(t.data())[1]) == [("user", ["in short"])]

    def test_small_compaction_forgets_nothing(self) -> None:
        t = Transcript()
        t.prompt("go")
        t.answer("m1", text("a"))
        t.write("system", subtype="microcompact_boundary")
        t.prompt("more")
        t.answer("m2", text("b"))
        t.end()
        assert len(said(turns(t.data())[1])) == 3

    def test_only_the_thread_that_it_stands_in_forgets(self) -> None:
        t, side = Transcript(), Transcript(agent="a1", prefix="x")
        t.prompt("go")
        t.answer("m1", text("a"))
        side.prompt("look")
        side.compact("in short")
        t.lines += side.lines
        t.prompt("more")
        t.answer("m2", text("b"))
        t.end()
        assert len(said(turns(t.data())[1])) == 3


class TestPieces:
    def transcript(self) -> Transcript:
        t = Transcript()
        t.write("progress", data={"hookEvent": "SessionStart"})
        t.prompt("go")
        t.answer("m1", text("a"))
        t.end()
        t.prompt("more")
        t.answer("m2", text("b"), call("c1"))
        t.result("c1")
        t.answer("m3", text("c"))
        t.compact("in short")
        t.answer("m4", text("d"))
        t.write("progress", data={"hookEvent": "Stop"})
        return t

    def test_turns_without_their_past_are_skipped(self) -> None:
        t = self.transcript()
        whole = heads(read_bytes(t.data()))
        assert len(whole) == 4
        for start in range(1, len(t.lines)):
            records = read_bytes(dump(t.lines[start:]))
            skipped = [record for record in records if isinstance(record, Skipped)]
            assert {record.reason for record in skipped} <= {Reason.HISTORY_MISSING}
            assert heads(records) == whole[len(whole) - len(heads(records)) :]
            assert len(heads(records)) == (start <= 10), start
            assert len(records) == sum(
                any(line.get("message", {}).get("id") == name for line in t.lines[start:])
                for name in ("m1", "m2", "m3", "m4")
            )

    def test_chain_goes_through_lines_of_all_types(self) -> None:
        t = Transcript(parent="before")
        t.end()
        t.prompt("go")
        t.answer("m1", text("a"))
        t.end()
        assert reasons(read_bytes(t.data())) == [Reason.HISTORY_MISSING]
        t.lines[0]["parentUuid"] = None
        assert len(turns(t.data())) == 1

    def test_side_chain_without_its_beginning(self) -> None:
        t = Transcript(parent="before")
        t.prompt("go", isSidechain=True)
        t.answer("m1", text("a"), isSidechain=True)
        assert reasons(read_bytes(t.data())) == [Reason.HISTORY_MISSING]

    @pytest.mark.parametrize(
        "begin",
        [
            lambda t: t.prompt("afresh", parentUuid=None),
            lambda t: t.compact("afresh"),
            lambda t: t.write("system", subtype="compact_boundary") and t.prompt("afresh"),
            lambda t: t.prompt("afresh", isCompactSummary=True),
        ],
    )
    @pytest.mark.parametrize(
        "hole",
        [
            lambda t: t.prompt("more", parentUuid="lost"),
            lambda t: t.answer("m2", text("b"), parentUuid="lost"),
            lambda t: t.write("progress", parentUuid="lost") and t.prompt("more"),
        ],
    )
    def test_hole_further_on(
        self, hole: Callable[[Transcript], object], begin: Callable[[Transcript], object]
    ) -> None:
        t = Transcript()
        t.prompt("go")
        t.answer("m1", text("a"))
        t.end()
        hole(t)
        t.answer("m3", text("c"))
        # A line that goes on from before the hole does not fill it.
        t.prompt("late", parentUuid="u1")
        t.answer("m4", text("d"), parentUuid="u1")
        begin(t)
        t.answer("m5", text("e"))
        t.end()
        first, *skipped, last = read_bytes(t.data())
        assert isinstance(first, Accepted)
        assert len(skipped) >= 2
        assert set(reasons(skipped)) == {Reason.HISTORY_MISSING}
        assert isinstance(last, Accepted)
        assert said(last.turn) == [("user", ["afresh"])]

    def test_hole_by_a_line_that_cannot_be_read(self) -> None:
        t = Transcript()
        t.prompt("go")
        t.answer("m1", text("a"))
        t.end()
        t.prompt("more")
        t.answer("m2", text("b"))
        t.end()
        lines = t.data().splitlines(keepends=True)
        lines[3] = lines[3][:-20] + b"\n"
        assert reasons(read_bytes(b"".join(lines))) == [
            None,
            Reason.NOT_JSON,
            Reason.HISTORY_MISSING,
        ]

    def test_hole_in_a_message(self) -> None:
        t = Transcript()
        t.prompt("go")
        t.answer("m1", text("a"), call("c1"), call("c2"))
        t.result("c1", parentUuid="u2")
        t.answer("m2", text("b"))
        t.end()
        assert len(turns(t.data())) == 2
        for lost in (2, 3):
            lines = [*t.lines[:lost], *t.lines[lost + 1 :]]
            # The second call stands alone: no line follows it.
            expected = [Reason.HISTORY_MISSING] * 2 if lost == 2 else [None] * 2
            assert reasons(read_bytes(dump(lines))) == expected

    def test_hole_is_that_of_its_thread(self) -> None:
        t, side = Transcript(), Transcript(agent="a1", prefix="x")
        t.prompt("go")
        t.answer("m1", text("a"))
        side.prompt("look")
        side.answer("x1", text("seen"))
        side.end()
        side.prompt("again", parentUuid="lost")
        side.answer("x2", text("seen"))
        t.lines += side.lines
        t.prompt("more")
        t.answer("m2", text("b"))
        t.end()
        found = read_bytes(t.data(), mtime=LONG_AGO)
        assert reasons(found) == [None, None, Reason.HISTORY_MISSING, None]

    def test_a_line_that_follows_one_without_an_id_has_a_hole_before_it(self) -> None:
        t = Transcript()
        t.prompt("go", uuid=[])
        t.parent = "u0"
        t.answer("m1", text("a"))
        t.end()
        assert reasons(read_bytes(t.data())) == [Reason.LINE_INVALID, Reason.HISTORY_MISSING]

    def test_copies_add_nothing(self) -> None:
        t = self.transcript()
        data = t.data()
        assert heads(read_bytes(data + data)) == heads(read_bytes(data))
        assert heads(read_bytes(dump(t.lines[:6]) + data)) == heads(read_bytes(data))

    def test_new_root_is_no_piece(self) -> None:
        t = Transcript(parent="before")
        t.prompt("go")
        t.answer("m1", text("a"))
        t.prompt("afresh", parentUuid=None)
        t.answer("m2", text("b"))
        t.end()
        skipped, turn = read_bytes(t.data())
        assert reasons([skipped]) == [Reason.HISTORY_MISSING]
        assert isinstance(turn, Accepted)
        assert said(turn.turn) == [("user", ["afresh"])]


class TestSynthetic:
    @pytest.mark.parametrize("flag", ["model", "error"])
    def test_message_of_the_harness_is_no_turn(self, flag: str) -> None:
        t = Transcript()
        t.prompt("go")
        t.answer("m1", text("No response requested."))
        if flag == "model":
            t.lines[-1]["message"]["model"] = "<synthetic>"
        else:
            t.lines[-1]["isApiErrorMessage"] = True
        t.prompt("again")
        t.answer("m2", text("ok"))
        t.end()
        skipped, turn = read_bytes(t.data())
        assert isinstance(skipped, Skipped)
        assert (skipped.reason, skipped.location.line) == (Reason.SYNTHETIC_MESSAGE, 2)
        assert isinstance(turn, Accepted)
        assert said(turn.turn) == [("user", ["go", "again"])]


class TestProof:
    def open_transcript(self) -> Transcript:
        t = Transcript()
        t.prompt("go")
        t.answer("m1", call("c1"), stop="tool_use")
        return t

    @pytest.mark.parametrize(
        "write",
        [
            lambda t: t.answer("m2", text("b")),
            lambda t: t.prompt("stop!"),
            lambda t: t.compact("in short"),
            lambda t: t.end(),
            lambda t: t.write("system", subtype="stop_hook_summary"),
            lambda t: t.write("progress", data={"hookEvent": "Stop"}),
        ],
    )
    def test_lines_that_prove_that_a_message_is_over(
        self, write: Callable[[Transcript], None]
    ) -> None:
        t = self.open_transcript()
        write(t)
        assert isinstance(read_bytes(t.data())[0], Accepted)

    @pytest.mark.parametrize(
        "write",
        [
            lambda t: t.aside("mode", sessionId="s1"),
            lambda t: t.result("c1"),
            lambda t: t.prompt([output("c1"), text("and")]),
            lambda t: t.prompt("skill", isMeta=True),
            lambda t: t.prompt("shown", isVisibleInTranscriptOnly=True),
            lambda t: t.write("progress", data={"hookEvent": "PostToolUse"}),
            lambda t: t.write("progress", data=None),
            lambda t: t.write("system", subtype="api_error"),
            lambda t: t.write("attachment", attachment={}),
            lambda t: t.aside("last-prompt", sessionId="s1", leafUuid="u1"),
            lambda t: t.write("system", subtype="turn_duration", isSidechain=True, agentId="a"),
            lambda t: t.prompt("look", isSidechain=True, agentId="a"),
        ],
    )
    def test_lines_that_prove_nothing(self, write: Callable[[Transcript], None]) -> None:
        t = self.open_transcript()
        write(t)
        (record,) = read_bytes(t.data())
        assert isinstance(record, Incomplete)
        assert record.location.line == 2
        raw = json.loads(record.raw)
        assert raw["request"]["messages"] == [{"role": "user", "content": "go"}]
        assert raw["response"]["message"]["content"][0]["tool_use_id"] == "c1"
        assert isinstance(read_bytes(t.data(), mtime=LONG_AGO)[0], Accepted)

    @pytest.mark.parametrize(
        ("blocks", "stop", "version", "complete"),
        [
            ([text("a")], None, "2.1.20", True),
            ([thinking("hm"), text("a")], None, "2.1.209", True),
            ([text("a"), thinking("hm")], None, "2.1.209", False),
            ([thinking("hm")], "max_tokens", "2.1.209", True),
            ([thinking("hm")], "max_tokens", "2.1.20", False),
            ([thinking("hm")], "tool_use", "2.1.209", False),
            ([text("a")], "tool_use", "2.1.209", False),
            ([call("c9")], "tool_use", "2.1.209", True),
            ([call("c9")], "tool_use", "2.1.20", False),
            ([call("c1")], None, "2.1.20", True),
            ([call("c1"), call("c2")], None, "2.1.20", True),
            ([call("c9"), call("c1")], None, "2.1.20", False),
            ([call("c1"), thinking("hm")], None, "2.1.20", False),
            ([{"type": "tool_use"}], None, "2.1.20", False),
            ([{"type": "server_tool_use", "id": "c1"}], None, "2.1.209", False),
        ],
    )
    def test_a_file_that_is_finished(
        self,
        blocks: list[Any],
        stop: str | None,
        version: str,
        complete: bool,  # noqa: FBT001  # an expectation
    ) -> None:
        t = Transcript(version=version)
        t.prompt("go")
        t.answer("m1", *blocks, stop=stop)
        t.result("c1")
        t.result("c2")
        assert isinstance(read_bytes(t.data())[0], Incomplete)
        (record,) = read_bytes(t.data(), mtime=LONG_AGO)
        assert isinstance(record, Accepted if complete else Incomplete)

    def test_the_last_line_has_the_stop_reason(self) -> None:
        t = Transcript()
        t.prompt("go")
        t.answer("m1", thinking("hm"), stop="end_turn")
        t.answer("m1", thinking("hm"))
        assert isinstance(read_bytes(t.data(), mtime=LONG_AGO)[0], Incomplete)

    @pytest.mark.parametrize("end", [b'{"type":', b'{"type":\n', b'"\xff', b"x" * 9000])
    def test_what_cannot_be_read_may_be_of_the_last_message(self, end: bytes) -> None:
        t = Transcript()
        t.prompt("go")
        t.answer("m1", text("a"))
        assert len(turns(t.data(), mtime=LONG_AGO)) == 1
        options = Options(format=FORMAT, max_line_bytes=8000)
        record, last = read_bytes(t.data() + end, options, mtime=LONG_AGO)
        assert isinstance(record, Incomplete)
        assert isinstance(last, Incomplete | Rejected)
        done, _ = read_bytes(end.strip() + b"\n" + t.data(), options, mtime=LONG_AGO)[::-1]
        assert isinstance(done, Accepted)

    def test_stop_reason_proves_nothing(self) -> None:
        # Later versions write it on every line of the message.
        t = Transcript()
        t.prompt("go")
        t.answer("m1", thinking("hm"), text("a"), stop="end_turn")
        assert isinstance(read_bytes(dump(t.lines[:2]))[0], Incomplete)

    def test_line_of_a_message_that_is_over(self) -> None:
        t = self.open_transcript()
        t.answer("m2", text("b"))
        t.answer("m1", text("late"))
        t.end()
        first, second, late = read_bytes(t.data())
        assert isinstance(first, Accepted)
        assert isinstance(second, Accepted)
        assert isinstance(late, Rejected)
        assert (late.reason, late.pointer) == (Reason.LINE_INVALID, "/message/id")
        assert json.loads(late.raw) == t.lines[3]
        assert [words(block) for block in first.turn.response.content] == ["c1"]


class TestTitles:
    def names(self, t: Transcript) -> list[str]:
        return [envelope(turn).name for turn in turns(t.data())]

    def test_title_holds_from_where_it_stands(self) -> None:
        t = Transcript()
        t.prompt("go")
        t.answer("m1", text("a"))
        t.aside("ai-title", aiTitle="guess", sessionId="s1")
        t.answer("m2", text("b"))
        t.aside("custom-title", customTitle="mine", sessionId="s1")
        t.aside("ai-title", aiTitle="another guess", sessionId="s1")
        t.aside("custom-title", customTitle="other", sessionId="s2")
        t.answer("m3", text("c"))
        t.end()
        assert self.names(t) == ["", "guess", "mine"]

    def test_summary_names_the_session_of_its_leaf(self) -> None:
        t = Transcript()
        t.aside("summary", summary="of another session", leafUuid="elsewhere")
        t.prompt("go")
        t.answer("m1", text("a"))
        t.aside("summary", summary="this one", leafUuid=t.parent)
        t.answer("m2", text("b"))
        t.end()
        assert self.names(t) == ["", "this one"]

    def test_summary_before_its_leaf(self) -> None:
        t = Transcript()
        t.aside("summary", summary="named", leafUuid="u3")
        t.prompt("go")
        t.answer("m1", text("a"))
        t.prompt("more")
        t.answer("m2", text("b"))
        t.end()
        assert self.names(t) == ["", "named"]

    def test_agents_have_no_title(self) -> None:
        t = Transcript(agent="a1")
        t.aside("custom-title", customTitle="mine", sessionId="s1")
        t.prompt("go")
        t.answer("m1", text("a"))
        t.end()
        assert self.names(t) == [""]

    @pytest.mark.parametrize("title", ["x" * 1001, "", 5, None])
    def test_no_titles(self, title: Any) -> None:
        t = Transcript()
        t.prompt("go")
        t.aside("custom-title", customTitle=title, sessionId="s1")
        t.answer("m1", text("a"))
        t.end()
        assert self.names(t) == [""]


def _set(*path: str | int) -> Callable[[Any, Any], None]:
    def change(line: Any, value: Any) -> None:
        for name in path[:-1]:
            line = line[name]
        line[path[-1]] = value

    return change


class TestBadLines:
    @pytest.mark.parametrize(
        ("path", "value", "message"),
        [
            (("sessionId",), None, "sessionId is missing"),
            (("sessionId",), "", "sessionId is missing"),
            (("sessionId",), 5, "sessionId is not text"),
            (("parentUuid",), 1, "parentUuid is not text"),
            (("version",), 2.1, "version is not text"),
            (("cwd",), {}, "cwd is not text"),
            (("timestamp",), 5, "timestamp is not text"),
            (("requestId",), 5, "requestId is not text"),
            (("message",), None, "message is missing"),
            (("message",), "s3cret", "message is not an object"),
            (("message", "id"), None, "message.id is missing"),
            (("message", "id"), 5, "message.id is not text"),
            (("message", "model"), 5, "message.model is not text"),
            (("message", "stop_reason"), {}, "message.stop_reason is not text"),
            (("message", "usage"), 5, "message.usage is not an object"),
            (("message", "content"), None, "message.content is missing"),
            (("message", "content"), "s3cret", "message.content is not a list"),
            (("message", "content", 0), "s3cret", "message.content[0] is not an object"),
        ],
    )
    def test_answers(self, path: tuple[str | int, ...], value: Any, message: str) -> None:
        t = Transcript()
        t.prompt("go")
        t.answer("m1", text("bad"))
        _set(*path)(t.lines[1], value)
        t.answer("m2", text("good"))
        t.end()
        bad, good = read_bytes(t.data())
        assert isinstance(bad, Rejected)
        pointer = "/" + "/".join(map(str, path))
        assert (bad.reason, bad.message, bad.pointer) == (Reason.LINE_INVALID, message, pointer)
        assert (bad.location.line, json.loads(bad.raw)) == (2, t.lines[1])
        assert isinstance(good, Accepted)
        assert said(good.turn) == [("user", ["go"])]

    @pytest.mark.parametrize(
        ("path", "value", "message"),
        [
            (("message",), [], "message is not an object"),
            (("message", "content"), None, "message.content is missing"),
            (("message", "content"), 5, "message.content is not text or a list"),
            (("message", "content"), [None], "message.content[0] is not an object"),
        ],
    )
    def test_prompts(self, path: tuple[str, ...], value: Any, message: str) -> None:
        t = Transcript()
        t.prompt("bad")
        _set(*path)(t.lines[0], value)
        t.answer("m1", text("good"))
        t.end()
        bad, good = read_bytes(t.data())
        assert isinstance(bad, Rejected)
        assert (bad.reason, bad.message) == (Reason.LINE_INVALID, message)
        assert isinstance(good, Accepted)

    def test_line_that_is_repaired_further_on_counts(self) -> None:
        t = Transcript()
        t.prompt("go")
        good = dict(t.lines[0])
        t.lines[0]["message"] = None
        t.lines += [good, good]
        t.answer("m1", text("a"))
        t.end()
        bad, turn = read_bytes(t.data())
        assert isinstance(bad, Rejected)
        assert isinstance(turn, Accepted)
        assert said(turn.turn) == [("user", ["go"])]

    def test_repair_forgets_nothing(self) -> None:
        t = Transcript()
        t.prompt("go")
        good = dict(t.lines[0])
        t.lines[0]["message"] = None
        t.answer("m1", text("a"))
        t.lines.append(good)
        t.answer("m2", text("b"))
        t.end()
        turn = read_bytes(t.data())[-1]
        assert isinstance(turn, Accepted)
        assert said(turn.turn) == [("assistant", ["a"]), ("user", ["go"])]

    def test_line_of_an_agent_that_nothing_names(self) -> None:
        t = Transcript()
        t.prompt("go", isSidechain=True, uuid=None)
        (record,) = read_bytes(t.data())
        assert reasons([record]) == [Reason.LINE_INVALID]

    @pytest.mark.parametrize(
        ("line", "reason"),
        [
            (b"nonsense", Reason.NOT_JSON),
            (b'{"a": "\xff"}', Reason.NOT_UTF8),
            (b"[]", Reason.NOT_OBJECT),
            (b'{"provider": "anthropic", "request": {}}', Reason.UNRECOGNISED),
            (b'{"type": "response_item", "payload": {}}', Reason.UNRECOGNISED),
            (b'{"sessionId": 1e999}', Reason.NUMBER_OVERFLOW),
            (b'{"sessionId":' + b"[" * 1100 + b"]" * 1100 + b"}", Reason.NESTING_TOO_DEEP),
            (b'{"sessionId": "' + b"x" * 100_000 + b'"}', Reason.LINE_TOO_LONG),
        ],
    )
    def test_foreign_lines(self, line: bytes, reason: Reason) -> None:
        t = Transcript()
        t.prompt("go")
        begun = t.data()
        t.answer("m1", text("a"))
        t.end()
        data = begun + line + b"\n" + t.data()[len(begun) :]
        bad, good = read_bytes(data, Options(format=FORMAT, max_line_bytes=10_000))
        assert isinstance(bad, Rejected)
        assert (bad.reason, bad.location.line) == (reason, 2)
        assert bad.location.byte_offset == len(begun)
        assert bad.raw == (b"" if reason is Reason.LINE_TOO_LONG else line)
        assert isinstance(good, Accepted)

    @pytest.mark.parametrize("depth", [800, 893, 894, 897])
    def test_content_that_is_nested_deeply(self, depth: int) -> None:
        deep = objects(depth + 1)
        t = Transcript()
        t.prompt("go")
        t.answer("m1", call("c1", a=deep))
        t.result("c1", deep)
        t.prompt([{"type": "odd", "a": deep}])
        t.answer("m2", text("b"))
        t.end()
        records = read_bytes(with_depth(t.data()))
        if depth < 890:
            assert [type(record) for record in records] == [Accepted, Accepted]
        else:
            assert set(reasons(records[:-1])) == {Reason.NESTING_TOO_DEEP}
            assert isinstance(records[-1], Accepted)

    def test_recursion_ends_early_where_the_caller_is_deep(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def too_much(value: Any) -> bytes:
            if "deep" in json.dumps(value):
                raise RecursionError
            return json.dumps(value).encode()

        t = Transcript()
        t.prompt("go")
        t.answer("m1", text("deep"))
        t.answer("m2", text("b"))
        t.compact("in short")
        t.answer("m3", text("c"))
        t.end()
        for module, expected in (
            (claude_code_index, [Reason.NESTING_TOO_DEEP, None, None]),
            (claude_code, [Reason.NESTING_TOO_DEEP, Reason.HISTORY_MISSING, None]),
        ):
            with monkeypatch.context() as patch:
                patch.setattr(module, "dump", too_much)
                assert reasons(read_bytes(t.data())) == expected

    def test_usage_that_is_nested_deeply(self) -> None:
        t = Transcript()
        t.prompt("go")
        t.answer("m1", text("a"))
        t.lines[1]["message"]["usage"] = objects(950)
        (record,) = read_bytes(with_depth(t.data()))
        assert reasons([record]) == [Reason.NESTING_TOO_DEEP]

    def test_two_objects_on_one_line(self) -> None:
        t = Transcript()
        t.prompt("go")
        t.answer("m1", text("a"))
        t.answer("m2", text("b"))
        t.end()
        lines = t.data().split(b"\n")
        glued = b"\n".join([lines[0] + lines[1], lines[2] + b" " + lines[3] + b" rest", b""])
        first, second, rest = read_bytes(glued)
        assert heads([first, second]) == heads(read_bytes(t.data()))
        assert (first.location.line, first.location.byte_offset) == (1, len(lines[0]))
        assert isinstance(rest, Rejected)
        assert (rest.reason, rest.raw) == (Reason.NOT_JSON, b"rest")
        assert isinstance(read_bytes(glued[:-1])[2], Incomplete)

    @pytest.mark.parametrize("cut", [1, 60, 200, -1])
    def test_last_line_that_is_being_written(self, cut: int) -> None:
        t = Transcript()
        t.prompt("go")
        t.answer("m1", text("a"))
        t.end()
        whole = t.data()
        t.prompt("é" * 100)
        piece = t.data()[len(whole) : -1][:cut]
        turn, last = read_bytes(whole + piece)
        assert isinstance(turn, Accepted)
        assert isinstance(last, Incomplete)
        assert (last.location.line, last.raw) == (4, piece)

    def test_history_that_is_too_large(self, monkeypatch: pytest.MonkeyPatch) -> None:
        t = Transcript()
        t.prompt("go")
        t.answer("m1", text("a" * 500))
        t.answer("m2", text("b"))
        t.compact("in short")
        t.answer("m3", text("c"))
        t.end()
        monkeypatch.setattr(claude_code, "Conversation", partial(Conversation, max_bytes=300))
        records = read_bytes(t.data())
        assert reasons(records) == [None, Reason.HISTORY_TOO_LARGE, None]
        assert isinstance(records[1], Rejected)
        assert records[1].raw == b""

    @pytest.mark.parametrize("said", ["prompts", "answers"])
    def test_what_is_too_large_is_not_decoded(
        self, said: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def decode(data: bytes) -> Any:
            decoded.append(data)
            return decode_faithfully(data)

        t = Transcript()
        for _ in range(50):
            if said == "prompts":
                t.prompt("p" * 100)
            else:
                t.answer("m0", text("a" * 100))
        t.answer("m1", text("b"))
        t.prompt("more")
        t.answer("m2", text("c"))
        t.compact("in short")
        t.answer("m3", text("d"))
        t.end()
        decoded: list[bytes] = []
        monkeypatch.setattr(claude_code, "decode_faithfully", decode)
        monkeypatch.setattr(claude_code, "MAX_HISTORY_BYTES", 5000)
        monkeypatch.setattr(claude_code, "Conversation", partial(Conversation, max_bytes=5000))
        *refused, last = read_bytes(t.data())
        assert set(reasons(refused)) == {Reason.HISTORY_TOO_LARGE}
        assert isinstance(last, Accepted)
        assert len(decoded) == 2

    def test_turns_before_the_damage_are_read(self, tmp_path: Path) -> None:
        t = Transcript()
        for number in range(200):
            t.prompt(f"question {number * 7919}")
            t.answer(f"m{number}", text(f"answer {number * 104729}"))
        whole = heads(read_bytes(t.data(), mtime=LONG_AGO))
        file = tmp_path / "a.gz"
        packed = gzip.compress(t.data())
        file.write_bytes(packed[: len(packed) // 2])
        records = list(read(Source("a", file, LONG_AGO), Options(format=FORMAT)))
        assert reasons(records[-1:]) == [Reason.SOURCE_UNREADABLE]
        assert len(heads(records)) > 20
        assert heads(records) == whole[: len(heads(records))]

    def test_nobody_knows_how_a_damaged_source_ends(self) -> None:
        t = Transcript()
        t.prompt("go")
        t.answer("m1", text("a"))

        def lines() -> Iterator[Line]:
            yield from LineSplitter().split([t.data()])
            raise SourceReadError("damaged", LineSplitter())

        found: list[Found] = []
        with pytest.raises(SourceReadError):
            found.extend(FORMAT.read(Capture(Location("in", 0, 0), lines(), finished=True)))
        assert [type(record) for record in found] == [Incomplete]


def identity(turn: Turn) -> object:
    """Return what a turn is in the database."""
    chain = ChainBuilder().build(turn)
    session = envelope(turn)
    return (
        session.session_key(chain.root_hash),
        session.name,
        chain.head.hash,
        turn.stop_reason,
        turn.usage,
        turn.captured,
    )


def identities(data: bytes) -> set[object]:
    return {identity(record.turn) for record in read_bytes(data) if isinstance(record, Accepted)}


THREADS: tuple[dict[str, Any], ...] = (
    {},
    {"isSidechain": True, "agentId": "a"},
    {"isSidechain": True},
)


STEPS = [
    *("prompt", "answer", "answer", "answer", "result", "end", "note"),
    *("compact", "root", "title", "again", "bad", "glue"),
]


class Scribe:
    """Writes whatever hypothesis makes up, sensible or not."""

    def __init__(self, data: st.DataObject) -> None:
        self._draw = data.draw
        self._transcripts = [Transcript(prefix=name) for name in "uvw"]
        self.lines: list[bytes] = []

    def step(self) -> None:
        thread = self._draw(st.sampled_from([0, 0, 0, 1, 2]))
        transcript = self._transcripts[thread]
        kind = self._draw(st.sampled_from(STEPS))
        done = len(transcript.lines)
        getattr(self, f"_{kind}")(transcript, THREADS[thread])
        self.lines += [json.dumps(line).encode() for line in transcript.lines[done:]]

    def _prompt(self, t: Transcript, fields: dict[str, Any]) -> None:
        flag = self._draw(st.sampled_from(["isMeta", "isVisibleInTranscriptOnly", "x", "x"]))
        t.prompt(f"p{len(t.lines)}", **fields, **{flag: True})

    def _answer(self, t: Transcript, fields: dict[str, Any]) -> None:
        number = self._draw(st.integers(0, 9))
        block = self._draw(st.sampled_from([text("a"), thinking("b"), call(f"c{number}")]))
        t.version = self._draw(st.sampled_from(["2.1.7", "2.1.20", "2.1.209"]))
        model = self._draw(st.sampled_from(["m", "m", "m", "<synthetic>"]))
        stop = self._draw(st.sampled_from([None, "tool_use", "end_turn"]))
        t.answer(f"m{number}", block, tokens=len(t.lines), stop=stop, **fields)
        t.lines[-1]["message"]["model"] = model

    def _result(self, t: Transcript, fields: dict[str, Any]) -> None:
        t.result(f"c{self._draw(st.integers(0, 3))}", f"r{len(t.lines)}", **fields)

    def _end(self, t: Transcript, fields: dict[str, Any]) -> None:
        t.write("system", subtype="stop_hook_summary", **fields)

    def _note(self, t: Transcript, fields: dict[str, Any]) -> None:
        t.write("progress", data={"hookEvent": "PreToolUse"}, **fields)

    def _compact(self, t: Transcript, fields: dict[str, Any]) -> None:
        t.compact("in short", **fields)
        t.lines[-2] |= fields

    def _root(self, t: Transcript, fields: dict[str, Any]) -> None:
        parent = self._draw(st.sampled_from([None, None, "lost", "u0", "v1", "w9"]))
        t.prompt("root", parentUuid=parent, **fields)

    def _title(self, t: Transcript, _fields: dict[str, Any]) -> None:
        leaf = self._draw(st.sampled_from(["u1", "u9", "lost"]))
        t.aside("summary", summary=f"title {len(t.lines)}", leafUuid=leaf)

    def _again(self, _t: Transcript, _fields: dict[str, Any]) -> None:
        if self.lines:
            self.lines.append(self._draw(st.sampled_from(self.lines)))

    def _bad(self, t: Transcript, fields: dict[str, Any]) -> None:
        t.write("assistant", message=None, **fields)

    def _glue(self, _t: Transcript, _fields: dict[str, Any]) -> None:
        if len(self.lines) > 1:
            last = self.lines.pop()
            self.lines[-1] += last


class TestGrowth:
    @settings(max_examples=120)
    @given(st.data())
    def test_session_that_has_grown_gives_the_same_turns_and_more(
        self, data: st.DataObject
    ) -> None:
        scribe = Scribe(data)
        for _ in range(data.draw(st.integers(2, 25))):
            scribe.step()
        lines = [line + b"\n" for line in scribe.lines]
        whole = identities(b"".join(lines))
        for cut in range(len(lines)):
            assert identities(b"".join(lines[:cut])) <= whole

    @settings(max_examples=60)
    @given(st.data())
    def test_records_are_in_the_order_of_places(self, data: st.DataObject) -> None:
        scribe = Scribe(data)
        for _ in range(data.draw(st.integers(2, 25))):
            scribe.step()
        records = read_bytes(b"\n".join([*scribe.lines, b""]), mtime=LONG_AGO)
        offsets = [record.location.byte_offset for record in records]
        assert offsets == sorted(offsets)

    def test_cut_in_the_middle_of_a_line_too(self) -> None:
        t = Transcript()
        t.prompt("gö")
        t.answer("m1", text("a"), call("c1"))
        t.result("c1")
        t.answer("m2", text("b"))
        t.end()
        data = t.data()
        whole = identities(data)
        for cut in range(0, len(data), 7):
            records = read_bytes(data[:cut])
            assert not any(isinstance(record, Rejected) for record in records)
            assert identities(data[:cut]) <= whole


class TestFuzz:
    @settings(max_examples=150)
    @given(st.data())
    def test_anything_gives_records(self, data: st.DataObject) -> None:
        scribe = Scribe(data)
        for _ in range(data.draw(st.integers(1, 12))):
            scribe.step()
        lines = data.draw(st.permutations(scribe.lines))
        raw = bytearray(b"\n".join(lines))
        for _ in range(data.draw(st.integers(0, 4))):
            at = data.draw(st.integers(0, max(len(raw) - 1, 0)))
            raw[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
        for mtime in (None, LONG_AGO):
            for record in read_bytes(bytes(raw), mtime=mtime):
                assert isinstance(record, Record)

    @settings(max_examples=150)
    @given(st.data())
    def test_any_value_in_any_field(self, data: st.DataObject) -> None:
        t = Transcript()
        t.prompt("go")
        t.answer("m1", text("a"), call("c1"))
        t.result("c1")
        t.compact("in short")
        t.answer("m2", text("b"))
        t.end()
        values: st.SearchStrategy[Any] = st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner),
            max_leaves=4,
        )
        for line in t.lines:
            if data.draw(st.booleans()):
                target = line
                inner = line.get("message")
                if isinstance(inner, dict) and data.draw(st.booleans()):
                    target = inner
                target[data.draw(st.sampled_from(sorted(target)))] = data.draw(values)
        for record in read_bytes(t.data(), mtime=LONG_AGO):
            assert isinstance(record, Record)
            if isinstance(record, Rejected):
                assert record.message
                assert record.raw
