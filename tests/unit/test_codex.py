from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapes_cli.capture.formats import codex, codex_turns
from tapes_cli.capture.formats.base import Capture
from tapes_cli.capture.formats.codex import FORMAT
from tapes_cli.capture.formats.turn_records import TurnParser
from tapes_cli.capture.history import OpenedRecord
from tapes_cli.capture.lines import LineSplitter
from tapes_cli.capture.providers import PROVIDERS
from tapes_cli.capture.providers.response import parse_response
from tapes_cli.capture.sources import SourceReadError
from tapes_cli.capture.times import Fallback
from tapes_cli.model.reasons import Reason
from tapes_cli.model.records import Accepted, Incomplete, Location, Rejected, Skipped
from tapes_cli.model.turn import Usage
from tests.support.deep import lists, objects, with_depth
from tests.support.rollouts import (
    LONG_AGO,
    SESSION,
    Rollout,
    accepted,
    begun,
    chains,
    identities,
    records,
    turns,
    words,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tapes_cli.capture.formats.base import Found
    from tapes_cli.capture.lines import Line
    from tapes_cli.model.envelope import Envelope
    from tapes_cli.model.records import Record
    from tapes_cli.model.turn import Turn

ASKED = "user: What is here?"
COST = Usage(prompt_tokens=100, completion_tokens=7, total_tokens=107, cache_read_input_tokens=60)


def one(data: bytes) -> Turn:
    (turn,) = turns(data)
    return turn


def rejects(data: bytes) -> list[tuple[int, Reason, str]]:
    found = [r for r in records(data) if isinstance(r, Rejected)]
    return [(r.location.line, r.reason, r.pointer) for r in found]


def reasons(data: bytes) -> list[Reason]:
    return [r.reason for r in records(data) if isinstance(r, Rejected | Skipped)]


class TestDetection:
    def test_by_type_and_payload(self) -> None:
        assert FORMAT.recognises({"timestamp": "", "type": "session_meta", "payload": {}})
        assert FORMAT.lossy

    @pytest.mark.parametrize(
        "record",
        [
            {"id": "x", "timestamp": "t", "instructions": None, "git": {}},
            {"type": "message", "role": "user"},
            {"type": 5, "payload": {}},
        ],
    )
    def test_nothing_else(self, record: dict[str, Any]) -> None:
        assert not FORMAT.recognises(record)


class TestSession:
    def envelope(self, rollout: Rollout) -> Envelope:
        found = one(rollout.ask("q").answer("a").data).envelope
        assert found is not None
        return found

    def test_from_the_first_meta(self) -> None:
        found = self.envelope(Rollout().meta())
        assert (found.harness_id, found.harness_session_id) == ("codex", SESSION)
        assert (found.harness_version, found.cwd) == ("0.142.4", "/home/me")
        assert found.parent is None
        assert found.harness_metadata == {"source": "codex-rollout", "lossy": True}

    def test_later_ones_are_copies(self) -> None:
        found = self.envelope(Rollout().meta(forked_from_id="p").meta("p", cwd="/other"))
        assert (found.harness_session_id, found.cwd) == (SESSION, "/home/me")
        assert found.parent == ("codex", "p")

    @pytest.mark.parametrize(
        "fields",
        [
            {"forked_from_id": "p", "parent_thread_id": "q"},
            {"parent_thread_id": "p"},
            {"source": {"subagent": {"thread_spawn": {"parent_thread_id": "p", "depth": 1}}}},
            {"source": {"subagent": {"other": {"x": {"parent_thread_id": "p"}}}}},
            {"forked_from_id": SESSION, "source": {"parent_thread_id": "p"}},
        ],
    )
    def test_parent(self, fields: dict[str, Any]) -> None:
        assert self.envelope(Rollout().meta(**fields)).parent == ("codex", "p")

    @pytest.mark.parametrize(
        "fields",
        [
            {"forked_from_id": None},
            {"forked_from_id": ""},
            {"forked_from_id": SESSION},
            {"source": {"subagent": "review"}},
            {"source": {"subagent": {"thread_spawn": {"parent_thread_id": 5}}}},
        ],
    )
    def test_no_parent(self, fields: dict[str, Any]) -> None:
        assert self.envelope(Rollout().meta(**fields)).parent is None

    @pytest.mark.parametrize(
        ("fields", "pointer"),
        [
            ({"id": None}, "/payload/id"),
            ({"id": ""}, "/payload/id"),
            ({"id": 5}, "/payload/id"),
            ({"cwd": []}, "/payload/cwd"),
            ({"cli_version": 1}, "/payload/cli_version"),
            ({"forked_from_id": {}}, "/payload/forked_from_id"),
        ],
    )
    def test_a_bad_one_is_not_replaced_by_a_copy(
        self, fields: dict[str, Any], pointer: str
    ) -> None:
        rollout = Rollout().meta(**fields).meta("other").ask("q").answer("a")
        assert rejects(rollout.data) == [(1, Reason.LINE_INVALID, pointer)]
        assert reasons(rollout.data) == [Reason.LINE_INVALID, Reason.HISTORY_MISSING]
        rollout.add("compacted", {"replacement_history": [SUMMARY]}).ask("r").answer("b")
        assert not accepted(records(rollout.data))

    def test_a_bad_one_that_is_repeated(self) -> None:
        rollout = Rollout().meta(cwd=5).meta("other").meta(cwd=6).meta(forked_from_id="p")
        (turn,) = accepted(records(rollout.ask("q").answer("a").data))
        assert turn.envelope is not None
        assert (turn.envelope.harness_session_id, turn.envelope.cwd) == (SESSION, "/home/me")
        assert words(turn) == ["user: q", "assistant: a"]

    def test_turns_before_the_repetition_are_skipped(self) -> None:
        rollout = Rollout().meta(cwd=5).ask("q").answer("a").meta().ask("r").answer("b")
        assert reasons(rollout.data) == [Reason.LINE_INVALID, Reason.HISTORY_MISSING]
        (turn,) = accepted(records(rollout.data))
        assert words(turn) == ["user: q", "assistant: a", "user: r", "assistant: b"]


class TestTurns:
    def test_one_call_of_the_api(self) -> None:
        rollout = begun().item("reasoning", summary=[], encrypted_content="e").say("Looking.")
        turn = one(rollout.call("c1").count().data)
        assert words(turn) == [ASKED, "assistant: thinking Looking. c1"]
        assert turn.usage == COST
        assert (turn.provider, turn.stop_reason, turn.lossy) == ("openai", "stop", True)
        assert (turn.request_model, turn.response_model) == ("gpt-5.5", "gpt-5.5")

    def test_the_time_is_that_of_the_last_item_said(self) -> None:
        rollout = begun().say("a").call("c").output("c").count()
        assert one(rollout.data).captured.at == rollout.time(6)

    def test_without_a_time_of_its_own_it_is_that_of_the_line_before(self) -> None:
        rollout = begun().raw(
            b'{"type":"response_item","payload":{"type":"message","role":"assistant",'
            b'"content":[{"type":"output_text","text":"a"}]},"timestamp":"yesterday"}'
        )
        assert one(rollout.count().data).captured.at == rollout.time(4)

    def test_a_turn_stands_at_its_first_item(self) -> None:
        data = begun().call("c").output("c").count().answer("b").data
        assert [record.location.line for record in records(data)] == [5, 8]

    def test_outputs_between_the_calls_follow_the_whole_response(self) -> None:
        rollout = begun().call("c1").output("c1").call("c2").output("c2").count()
        first, second = turns(rollout.answer("done").data)
        assert words(first) == [ASKED, "assistant: c1 c2"]
        assert words(second) == [*words(first), "tool: c1", "tool: c2", "assistant: done"]

    def test_events_are_duplicates(self) -> None:
        rollout = begun().event("agent_message", message="a").say("a")
        rollout.event("agent_reasoning", text="hm").event("something_new").count()
        assert words(one(rollout.data)) == [ASKED, "assistant: a"]

    def test_what_a_developer_says_meanwhile_is_no_end(self) -> None:
        rollout = begun().call("c1").told("note", "developer").call("c2").count().answer("b")
        first, second = turns(rollout.data)
        assert words(first) == [ASKED, "assistant: c1 c2"]
        assert words(second)[2:] == ["developer: note", "assistant: b"]

    def test_model_of_the_latest_context(self) -> None:
        rollout = begun().answer("a").context("gpt-6").ask("q").answer("b")
        rollout.context(None).ask("r").answer("c")
        assert [turn.request_model for turn in turns(rollout.data)] == ["gpt-5.5", "gpt-6", "gpt-6"]

    def test_without_any_model(self) -> None:
        assert one(Rollout().meta().ask("q").answer("a").data).request_model == ""

    def test_states_of_the_files_are_not_sent(self) -> None:
        rollout = begun().item("ghost_snapshot", ghost_commit={}).answer("a")
        assert words(one(rollout.data)) == [ASKED, "assistant: a"]

    def test_unknown_lines_are_passed_over(self) -> None:
        rollout = begun().add("token_usage_record", [1]).add("world_state", None).answer("a")
        assert words(one(rollout.data)) == [ASKED, "assistant: a"]

    def test_integers_beyond_64_bits_stay_exact(self) -> None:
        huge = 2**70 + 1
        arguments = {"query": huge}
        rollout = begun().item("tool_search_call", call_id="c", arguments=arguments).count()
        (block,) = one(rollout.data).response.content
        assert block["content"]["arguments"] == arguments

    def test_the_bytes_of_a_turn_say_the_same(self) -> None:
        rollout = begun().call("c1").output("c1").count().ask("go on").answer("b")
        found = records(rollout.data)
        parser = TurnParser()
        again = [
            parser.parse(OpenedRecord(json.loads(record.raw())), Fallback(None))
            for record in found
            if isinstance(record, Accepted)
        ]
        for turn in again:
            turn.lossy = True
        assert identities(again) == identities(accepted(found))

    def test_a_message_without_content_is_no_turn_but_goes_on(self) -> None:
        rollout = begun().item("message", role="assistant", content=[]).count().answer("b")
        assert rejects(rollout.data) == [(5, Reason.CONTENT_MISSING, "/response/message/content")]
        (turn,) = accepted(records(rollout.data))
        assert words(turn) == [ASKED, "assistant: ", "assistant: b"]


ITEMS: dict[str, dict[str, Any]] = {
    "text": {"type": "message", "role": "assistant", "content": [
        {"type": "output_text", "text": "a\r\n\n b"}]},
    "empty text": {"type": "message", "role": "assistant", "content": [
        {"type": "output_text", "text": ""}]},
    "several parts": {"type": "message", "role": "assistant", "content": [
        {"type": "output_text", "text": "a", "annotations": [1], "logprobs": None},
        {"type": "refusal", "refusal": "no"}, {"type": "new_part", "x": 1.0}]},
    "reasoning": {"type": "reasoning", "id": "r", "summary": [
        {"type": "summary_text", "text": "hm"}], "encrypted_content": "e"},
    "hidden reasoning": {"type": "reasoning", "summary": [], "encrypted_content": "e"},
    "bare reasoning": {"type": "reasoning", "summary": []},
    "open reasoning": {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "x"}]},
    "function call": {"type": "function_call", "id": "f", "call_id": "c", "name": "exec",
        "arguments": '{"cmd":"ls","flag":false,"n":0,"big":18446744073709551617}'},
    "call without input": {"type": "function_call", "call_id": "c", "name": "x", "arguments": "{}"},
    "call with text": {"type": "function_call", "call_id": "c", "name": "x", "arguments": "not {"},
    "call with a list": {"type": "function_call", "call_id": "c", "name": "x", "arguments": "[1]"},
    "custom call": {"type": "custom_tool_call", "id": "i", "status": "completed", "call_id": "c",
        "name": "apply_patch", "input": "*** Begin Patch\n"},
    "shell call": {"type": "local_shell_call", "call_id": "c", "status": "completed",
        "action": {"type": "exec", "command": ["ls"], "timeout_ms": None}},
    "web search": {"type": "web_search_call", "status": "completed",
        "action": {"type": "open_page", "url": "https://example.org"}},
    "tool search": {"type": "tool_search_call", "call_id": "c", "status": "completed",
        "execution": "client", "arguments": {"query": "q", "limit": 8}},
    "picture": {"type": "image_generation_call", "id": "ig", "status": "completed",
        "result": "aGk="},
}  # fmt: skip


class TestEcho:
    """What the model said is found again, hash for hash, in the requests that follow."""

    @pytest.mark.parametrize("name", ITEMS)
    def test_of_every_item(self, name: str) -> None:
        rollout = (
            begun().add("response_item", ITEMS[name]).say("and").count().output("c").answer("b")
        )
        first, second = chains(turns(rollout.data))
        assert second.hashes[:2] == first.hashes

    @given(st.lists(st.sampled_from(sorted(ITEMS)), min_size=1, max_size=6))
    @settings(max_examples=50)
    def test_the_response_is_in_the_form_that_is_reduced(self, names: list[str]) -> None:
        provider = PROVIDERS["openai"]
        content = provider.parse_message(tuple(ITEMS[name] for name in names), "").content
        message = {"role": "assistant", "content": [*content]}
        assert parse_response({"message": message}).message.content == content


class TestProof:
    def test_a_count_that_repeats_or_says_nothing_proves_nothing(self) -> None:
        rollout = begun().answer("a").say("b").count(0, 0, 0)
        rollout.event("token_count", info=None, rate_limits={}).event("token_count")
        done, still = records(rollout.data)
        assert isinstance(done, Accepted)
        assert isinstance(still, Incomplete)
        assert still.location.line == 7

    def test_repeats_do_not_count_again(self) -> None:
        rollout = begun().answer("a").count(0, 0, 0).ask("q").count(0, 0, 0).answer("b")
        assert [turn.usage for turn in turns(rollout.data)] == [COST, COST]

    def test_an_incomplete_turn_is_there_as_a_record(self) -> None:
        (found,) = records(begun().call("c").output("c").data)
        assert isinstance(found, Incomplete)
        record = json.loads(found.raw)
        assert record["request"]["input"][0]["role"] == "user"
        assert record["response"]["message"]["content"][0]["tool_use_id"] == "c"
        assert record["response"]["done"] is False

    @pytest.mark.parametrize(
        ("end", "stop_reason"),
        [("task_complete", "stop"), ("turn_complete", "stop"), ("turn_aborted", "aborted")],
    )
    def test_the_count_may_come_after_the_end(self, end: str, stop_reason: str) -> None:
        rollout = begun().say("a").event(end)
        (waiting,) = records(rollout.data)
        assert isinstance(waiting, Incomplete)
        turn = one(rollout.count().data)
        assert (turn.usage, turn.stop_reason) == (COST, stop_reason)

    def test_the_count_may_come_after_the_next_question(self) -> None:
        rollout = begun().say("a").ask("q")
        assert isinstance(records(rollout.data)[0], Incomplete)
        rollout.count().answer("b")
        assert [turn.usage for turn in turns(rollout.data)] == [COST, COST]

    @pytest.mark.parametrize(
        "begin",
        [
            lambda r: r.event("task_started"),
            lambda r: r.event("turn_started"),
            lambda r: r.context(),
            lambda r: r.event("thread_rolled_back", num_turns=0),
            lambda r: r.add("compacted", {"message": "m"}),
        ],
    )
    def test_where_something_else_begins_the_turn_is_over(
        self, begin: Callable[[Rollout], Rollout]
    ) -> None:
        turn = one(begin(begun().say("a")).count().data)
        assert (turn.usage, turn.stop_reason) == (Usage(), "")

    def test_without_counts_the_questions_part_the_turns(self) -> None:
        rollout = begun().say("a").ask("q").say("b").event("task_complete").ask("r").say("c")
        found = turns(rollout.data, LONG_AGO)
        assert [words(turn)[-1] for turn in found] == [f"assistant: {x}" for x in "abc"]
        assert [turn.stop_reason for turn in found] == ["", "stop", ""]

    def test_what_codex_says_as_the_user_parts_no_turns(self) -> None:
        rollout = begun().call("c1").told("<user_shell_command>ls").call("c2").count()
        assert words(one(rollout.data)) == [ASKED, "assistant: c1 c2"]

    def test_an_interruption_is_noticed_by_its_message(self) -> None:
        rollout = begun().say("a").told("<turn_aborted>\nThe user").event("turn_aborted")
        first, second = turns(rollout.event("task_started").ask("q").answer("b").data)
        assert (first.stop_reason, first.usage) == ("aborted", Usage())
        assert words(second)[2] == "user: <turn_aborted>\nThe user"

    def test_the_message_is_enough(self) -> None:
        rollout = begun().say("a").told("<turn_aborted>", "developer").say("b").count()
        first, second = turns(rollout.data)
        assert (first.stop_reason, second.stop_reason) == ("aborted", "stop")

    def test_an_interruption_after_the_count_is_not_the_answers(self) -> None:
        rollout = begun().call("c").count().event("turn_aborted")
        assert one(rollout.data).stop_reason == "stop"

    def test_a_file_that_is_finished_proves_its_last_turn(self) -> None:
        data = begun().say("a").event("token_count", info=None).ask("q").say("b").data
        assert len(accepted(records(data))) == 1
        first, second = turns(data, LONG_AGO)
        assert (first.usage, second.usage) == (Usage(), Usage())

    @pytest.mark.parametrize(
        "end",
        [
            lambda r: r.say("b"),
            lambda r: r.say("b").event("task_complete"),
            lambda r: r.count(9).say("b"),
        ],
    )
    def test_but_not_where_a_complete_call_has_its_count(
        self, end: Callable[[Rollout], Rollout]
    ) -> None:
        done, still = records(end(begun().answer("a")).data, LONG_AGO)
        assert isinstance(done, Accepted)
        assert isinstance(still, Incomplete)
        assert still.reason is Reason.INCOMPLETE_TURN

    @pytest.mark.parametrize("end", [b'{"type":"resp', b'{"type":"\xc3', b"x" * 9000])
    def test_a_file_that_ends_in_half_a_line_is_not_finished(self, end: bytes) -> None:
        data = begun().say("a").data
        assert len(turns(data, LONG_AGO)) == 1
        turn, line = records(data + end, LONG_AGO, max_line_bytes=8000)
        assert isinstance(turn, Incomplete)
        assert isinstance(line, Incomplete | Rejected)

    def test_nor_is_one_that_is_damaged(self) -> None:
        data = begun().say("a").raw(b"{bad").told("note", "developer").data

        def lines() -> Iterator[Line]:
            yield from LineSplitter().split([data])
            raise SourceReadError("damaged", LineSplitter())

        found: list[Found] = []
        with pytest.raises(SourceReadError):
            found.extend(FORMAT.read(Capture(Location("in", 0, 0), lines(), finished=True)))
        assert [(type(f).__name__, f.location.line) for f in found] == [
            ("Incomplete", 5),
            ("Rejected", 6),
        ]

    def test_early_versions_count_before_the_items(self) -> None:
        rollout = Rollout().meta().ask("q").context()
        rollout.count(1, 0, 1).call("c1").output("c1")
        rollout.count(2, 0, 2).call("c2").output("c2").context()
        rollout.count(3, 0, 3).say("done").event("task_complete")
        found = turns(rollout.data)
        assert [turn.usage.prompt_tokens for turn in found] == [1, 2, 3]
        assert {turn.stop_reason for turn in found} == {"stop"}

    @pytest.mark.parametrize(
        "begin",
        [
            lambda r: r.add("compacted", {"replacement_history": []}),
            lambda r: r.context(),
            lambda r: r.event("task_started"),
            lambda r: r.event("task_complete"),
            lambda r: r.told("the next question"),
        ],
    )
    def test_the_count_of_a_compaction_is_nobodys(
        self, begin: Callable[[Rollout], Rollout]
    ) -> None:
        rollout = begin(begun().answer("a").count(5000)).answer("b")
        assert [turn.usage for turn in turns(rollout.data)] == [COST, COST]

    def test_writes_to_the_cache(self) -> None:
        last = {"input_tokens": 5, "cache_write_input_tokens": 3}
        info = {"total_token_usage": {"total_tokens": 9}, "last_token_usage": last}
        usage = one(begun().say("a").event("token_count", info=info).data).usage
        assert (usage.prompt_tokens, usage.cache_creation_input_tokens) == (5, 3)

    def test_a_total_alone_proves_but_costs_nothing(self) -> None:
        info = {"total_token_usage": {"total_tokens": 9}}
        turn = one(begun().say("a").event("token_count", info=info).data)
        assert (turn.usage, turn.stop_reason) == (Usage(), "stop")


SUMMARY = {
    "type": "message",
    "role": "user",
    "content": [{"type": "input_text", "text": "summary"}],
}
SAID = {
    "type": "message",
    "role": "assistant",
    "content": [{"type": "output_text", "text": "said"}],
}


class TestContext:
    def test_compaction_replaces_it(self) -> None:
        history = [SUMMARY, {"type": "ghost_snapshot"}, SAID, SAID, SUMMARY]
        rollout = begun().answer("a").add("compacted", {"replacement_history": history})
        turn = turns(rollout.ask("q").answer("b").data)[1]
        between = ["user: summary", "assistant: said said", "user: summary"]
        assert words(turn) == [*between, "user: q", "assistant: b"]

    def test_compaction_with_nothing_but_a_message(self) -> None:
        rollout = begun().answer("a").add("compacted", {"message": "in short"})
        turn = turns(rollout.ask("q").answer("b").data)[1]
        assert words(turn) == ["user: in short", "user: q", "assistant: b"]

    @pytest.mark.parametrize(("number", "kept"), [(0, 5), (1, 3), (2, 1), (9, 1)])
    def test_rollback(self, number: int, kept: int) -> None:
        rollout = Rollout().meta().context().told("# AGENTS.md instructions for me")
        rollout.ask("q").answer("a").ask("r").answer("b")
        rollout.event("thread_rolled_back", num_turns=number).ask("s").answer("c")
        found = turns(rollout.data)
        assert len(found) == 3
        assert words(found[2]) == [*words(found[1])[:kept], "user: s", "assistant: c"]

    def test_rollback_counts_what_the_user_wrote(self) -> None:
        rollout = begun().answer("a").ask("q").told("<environment_context>")
        rollout.told("note", "developer").answer("b").event("thread_rolled_back", num_turns=1)
        assert words(turns(rollout.ask("r").answer("c").data)[2])[2:] == ["user: r", "assistant: c"]

    def test_rollback_without_a_question(self) -> None:
        rollout = Rollout().meta().told("note", "developer").answer("a")
        rollout.event("thread_rolled_back", num_turns=1).ask("q").answer("b")
        assert words(turns(rollout.data)[1])[0] == "developer: note"

    def test_rollback_after_rollback(self) -> None:
        rollout = begun().answer("a").ask("q").answer("b").ask("r").answer("c")
        for _ in range(2):
            rollout.event("thread_rolled_back", num_turns=1)
        assert words(turns(rollout.ask("s").answer("d").data)[3])[2:] == ["user: s", "assistant: d"]

    def test_rollback_after_compaction(self) -> None:
        rollout = begun().answer("a").add("compacted", {"replacement_history": [SUMMARY]})
        rollout.ask("q").answer("b").event("thread_rolled_back", num_turns=1).ask("r").answer("c")
        found = turns(rollout.data)
        assert words(found[2]) == ["user: summary", "user: r", "assistant: c"]


class TestPieces:
    def test_turns_without_a_past_are_skipped(self) -> None:
        rollout = Rollout().context().ask("q").answer("a").answer("b")
        found = records(rollout.data)
        assert [(type(r), r.location.line) for r in found] == [(Skipped, 4), (Skipped, 6)]
        assert isinstance(found[0], Skipped)
        assert found[0].reason is Reason.HISTORY_MISSING

    def test_until_a_context_is_given(self) -> None:
        rollout = Rollout().context().meta().ask("q").answer("a")
        rollout.add("compacted", {"message": "m"})
        rollout.answer("b").add("compacted", {"replacement_history": [SUMMARY]}).answer("c")
        skipped, other, last = records(rollout.data)
        assert isinstance(skipped, Skipped)
        assert isinstance(other, Skipped)
        assert isinstance(last, Accepted)
        assert words(last.turn) == ["user: summary", "assistant: c"]

    def test_without_a_session_there_is_no_turn(self) -> None:
        rollout = Rollout().context().add("compacted", {"replacement_history": [SUMMARY]})
        rollout.answer("a").meta().answer("b")
        skipped, last = records(rollout.data)
        assert isinstance(skipped, Skipped)
        assert isinstance(last, Accepted)
        assert last.turn.envelope is not None

    def test_a_session_that_comes_later_gives_no_past(self) -> None:
        found = records(Rollout().context().meta().ask("q").answer("a").data)
        assert [type(record) for record in found] == [Skipped]

    def test_a_reference_to_another_rollout_gives_no_past(self) -> None:
        rollout = Rollout().meta().add("rollout_reference", {"path": "p"}).ask("q").answer("a")
        assert [type(record) for record in records(rollout.data)] == [Skipped]

    def test_a_turn_without_proof_stays_incomplete(self) -> None:
        (found,) = records(Rollout().context().say("a").data)
        assert isinstance(found, Incomplete)
        assert json.loads(found.raw)["provider"] == "openai"


class TestAgents:
    def child(self, start: object = 6) -> Rollout:
        agent = {"subagent": {"thread_spawn": {"parent_thread_id": "parent"}}}
        rollout = Rollout().meta(source=agent, subagent_history_start_ordinal=start)
        said = {"type": "message", "role": "assistant", "content": SAID["content"]}
        rollout.add("session_meta", {"id": "parent"}, ordinal=1)
        rollout.add("response_item", SUMMARY, ordinal=2)
        rollout.add("response_item", said, ordinal=3)
        info = {"total_token_usage": {"total_tokens": 900}, "last_token_usage": {}}
        rollout.add("event_msg", {"type": "token_count", "info": info}, ordinal=4)
        return rollout.add("response_item", said, ordinal=5)

    def test_what_they_inherit_is_context(self) -> None:
        rollout = self.child().add("response_item", SAID, ordinal=6).count()
        turn = one(rollout.data)
        said = "assistant: said"
        assert words(turn) == ["user: summary", said, said, said]
        assert (turn.usage, turn.captured.at) == (COST, rollout.time(7))
        assert turn.envelope is not None
        assert turn.envelope.parent == ("codex", "parent")

    def test_what_they_inherit_is_no_turn(self) -> None:
        assert records(self.child().data) == []
        assert records(self.child().data, LONG_AGO) == []

    @pytest.mark.parametrize("start", [None, "6", True])
    def test_where_that_does_not_end_it_is_a_turn(self, start: object) -> None:
        assert len(turns(self.child(start).count().data)) == 2

    def test_a_history_that_is_elsewhere(self) -> None:
        data = Rollout().meta(history_base={"thread_id": "p"}).ask("q").answer("a").data
        assert [type(record) for record in records(data)] == [Skipped]


class TestRejects:
    def test_lines_that_are_none(self) -> None:
        rollout = begun().raw(b"[1]").raw(b'{"id":1}').answer("a")
        rollout.raw(b"{nonsense").raw(b'"\xff"')
        assert rejects(rollout.data) == [
            (5, Reason.NOT_OBJECT, ""),
            (6, Reason.UNRECOGNISED, ""),
            (9, Reason.NOT_JSON, ""),
            (10, Reason.NOT_UTF8, ""),
        ]
        assert len(accepted(records(rollout.data))) == 1

    @pytest.mark.parametrize(
        ("kind", "payload", "pointer"),
        [
            (5, {}, "/type"),
            ("event_msg", [], "/payload"),
            ("event_msg", {"type": 1}, "/payload/type"),
            ("event_msg", {"type": []}, "/payload/type"),
            ("turn_context", {"model": 1}, "/payload/model"),
            ("event_msg", {"type": "token_count", "info": 1}, "/payload/info"),
            (
                "event_msg",
                {"type": "token_count", "info": {"total_token_usage": 1}},
                "/payload/info/total_token_usage",
            ),
            (
                "event_msg",
                {
                    "type": "token_count",
                    "info": {
                        "total_token_usage": {"total_tokens": 1},
                        "last_token_usage": {"output_tokens": 1.5},
                    },
                },
                "/payload/info/last_token_usage/output_tokens",
            ),
        ],
    )
    def test_wrong_types_change_nothing(self, kind: Any, payload: Any, pointer: str) -> None:
        sound = begun().say("a").count().ask("q").answer("b")
        rollout = Rollout()
        rollout.lines = sound.lines[:5]
        rollout.add(kind, payload)
        damaged = rollout.data + b"".join(line + b"\n" for line in sound.lines[5:])
        assert rejects(damaged) == [(6, Reason.LINE_INVALID, pointer)]
        assert identities(accepted(records(damaged))) == identities(turns(sound.data))

    @pytest.mark.parametrize(
        ("kind", "payload", "pointer"),
        [
            ("response_item", None, "/payload"),
            ("response_item", {"role": "user"}, "/payload/type"),
            ("response_item", {"type": 1}, "/payload/type"),
            ("response_item", {"type": "message", "role": 1}, "/payload/role"),
            ("response_item", {"type": "message", "role": "user", "name": 1}, "/payload/name"),
            ("compacted", {"message": 1}, "/payload/message"),
            ("compacted", {"replacement_history": {}}, "/payload/replacement_history"),
            ("compacted", {"replacement_history": [{}, 1]}, "/payload/replacement_history/1"),
            (
                "compacted",
                {"replacement_history": [{"role": 1}]},
                "/payload/replacement_history/0/role",
            ),
            ("rollout_reference", 5, "/payload"),
            ("event_msg", {"type": "thread_rolled_back"}, "/payload/num_turns"),
            ("event_msg", {"type": "thread_rolled_back", "num_turns": -1}, "/payload/num_turns"),
            ("event_msg", {"type": "thread_rolled_back", "num_turns": True}, "/payload/num_turns"),
        ],
    )
    def test_what_the_context_depends_on(self, kind: str, payload: Any, pointer: str) -> None:
        rollout = begun().answer("a").add(kind, payload).ask("q").answer("b")
        assert rejects(rollout.data) == [(7, Reason.LINE_INVALID, pointer)]
        assert reasons(rollout.data) == [Reason.LINE_INVALID, Reason.HISTORY_MISSING]
        assert len(accepted(records(rollout.data))) == 1

    @pytest.mark.parametrize("line", [b"{bad", b'{"a":"\xff"}', b'{"a":1e999}', b"x" * 9000])
    def test_what_cannot_be_read_leaves_a_hole(self, line: bytes) -> None:
        rollout = begun().answer("a").raw(line).ask("q").answer("b")
        rollout.add("compacted", {"message": "m"}).ask("r").answer("c")
        rollout.add("compacted", {"replacement_history": [SUMMARY]}).answer("d")
        found = records(rollout.data, max_line_bytes=8000)
        assert [type(record).__name__ for record in found] == [
            "Accepted",
            "Rejected",
            "Skipped",
            "Skipped",
            "Accepted",
        ]
        assert words(accepted(found)[1]) == ["user: summary", "assistant: d"]

    def test_a_turn_with_a_hole_is_none(self) -> None:
        rollout = begun().say("a").raw(b"{bad").call("c").count()
        assert reasons(rollout.data) == [Reason.HISTORY_MISSING, Reason.NOT_JSON]
        assert len(records(rollout.data)) == 2

    def test_one_that_has_ended_has_no_hole(self) -> None:
        rollout = begun().say("a").event("task_complete").raw(b"{bad").count().answer("b")
        done, bad, skipped = records(rollout.data)
        assert isinstance(done, Accepted)
        assert (done.turn.usage, done.turn.stop_reason) == (Usage(), "stop")
        assert isinstance(bad, Rejected)
        assert isinstance(skipped, Skipped)

    def test_messages_hold_no_content(self) -> None:
        payload = {"type": "message", "role": "user", "name": {"secret": "secret"}}
        (found,) = records(begun().add("response_item", payload).data)
        assert isinstance(found, Rejected)
        assert found.message == "payload.name is not a string"
        assert json.loads(found.raw)["payload"] == payload

    def test_they_come_in_the_order_of_places(self) -> None:
        rollout = begun().raw(b"[]").say("a").raw(b"[]").call("c").raw(b"[]").count()
        found = records(rollout.raw(b"[]").answer("b").data)
        assert [record.location.line for record in found] == [5, 6, 7, 9, 11, 12]
        assert [type(record).__name__[0] for record in found] == [*"RARRRA"]

    def test_too_long(self) -> None:
        data = begun().say("a").told("x" * 2000, "developer").count().data
        skipped, too_long = records(data, max_line_bytes=1000)
        assert isinstance(skipped, Skipped)
        assert isinstance(too_long, Rejected)
        assert (too_long.reason, too_long.location.line) == (Reason.LINE_TOO_LONG, 6)

    def test_too_deep(self) -> None:
        rollout = begun().item("function_call_output", call_id="c", output=lists(950)).answer("a")
        assert rejects(with_depth(rollout.data)) == [(5, Reason.NESTING_TOO_DEEP, "/payload")]

    @pytest.mark.parametrize("depth", [200, 500, 880])
    def test_deep(self, depth: int) -> None:
        rollout = begun().call("c").output("c", objects(depth)).count()
        rollout.item("tool_search_call", call_id="d", arguments=objects(depth)).count()
        assert len(turns(with_depth(rollout.answer("a").data))) == 3

    def test_glued_lines(self) -> None:
        whole = begun().answer("a")
        glued = begun().say("a")
        glued.count().glue()
        assert identities(turns(glued.data)) == identities(turns(whole.data))

    def test_glued_to_something_damaged(self) -> None:
        rollout = begun().answer("a").raw(b'{"type').glue().answer("b")
        assert reasons(rollout.data) == [Reason.NOT_JSON, Reason.HISTORY_MISSING]
        assert rejects(rollout.data) == [(6, Reason.NOT_JSON, "")]
        assert len(accepted(records(rollout.data))) == 1

    def test_a_last_line_that_is_being_written(self) -> None:
        data = begun().say("a").data + b'{"type":"event'
        turn, line = records(data)
        assert isinstance(turn, Incomplete)
        assert isinstance(line, Incomplete)
        assert (turn.location.line, line.location.line, line.raw) == (5, 6, b'{"type":"event')


class TestLimits:
    @pytest.fixture(autouse=True)
    def _small(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(codex, "MAX_HISTORY_BYTES", 4000)
        monkeypatch.setattr(codex_turns, "MAX_HISTORY_BYTES", 4000)

    def test_a_turn_that_does_not_end(self) -> None:
        rollout = begun().say("a").raw(b"{bad")
        for number in range(40):
            rollout.call(f"c{number}")
        rollout.count().answer("b")
        found = [r for r in records(rollout.data) if isinstance(r, Rejected)]
        reasons = [record.reason for record in found]
        assert [record.location.line for record in found[:2]] == [5, 6]
        assert reasons.count(Reason.HISTORY_TOO_LARGE) == len(reasons) - 1
        assert not accepted(records(rollout.data))

    def test_bad_lines_that_wait_count_as_well(self) -> None:
        rollout = begun().say("a").raw(b"{" + b"x" * 5000).raw(b"{bad")
        found = [(type(r).__name__, r.location.line) for r in records(rollout.data)]
        assert found == [("Rejected", 5), ("Rejected", 6), ("Rejected", 7)]

    @pytest.mark.parametrize(
        "back",
        [
            lambda r: r.add("compacted", {"replacement_history": [SUMMARY]}),
            lambda r: r.event("thread_rolled_back", num_turns=1),
        ],
    )
    def test_what_was_too_large_is_forgotten_with_it(
        self, back: Callable[[Rollout], Rollout]
    ) -> None:
        rollout = begun().answer("a").ask("q").say("x" * 5000).count().answer("b")
        reasons = [reason for _, reason, _ in rejects(rollout.data)]
        assert reasons == [Reason.HISTORY_TOO_LARGE] * 2
        found = accepted(records(back(rollout).ask("r").answer("c").data))
        assert len(found) == 2
        assert words(found[1])[-2:] == ["user: r", "assistant: c"]

    def test_many_turns_that_are_small(self) -> None:
        rollout = Rollout().meta()
        for _ in range(30):
            rollout.ask("q" * 100).answer("a")
        before = accepted(records(rollout.data))
        assert 1 < len(before) < 30
        refused = [r for r in records(rollout.data) if isinstance(r, Rejected)]
        # Those are many: each without the history that was too large.
        assert max(len(record.raw) for record in refused[1:]) < 1000
        rollout.event("thread_rolled_back", num_turns=25).ask("r").answer("b")
        after = accepted(records(rollout.data))
        assert len(after) == len(before) + 1
        assert words(after[-1]) == [*words(after[4]), "user: r", "assistant: b"]

    def test_rolled_back_too_little(self) -> None:
        rollout = begun().say("x" * 5000).count().ask("q").answer("b").ask("r").answer("c")
        rollout.event("thread_rolled_back", num_turns=2).ask("s").answer("d")
        assert not accepted(records(rollout.data))
        rollout.event("thread_rolled_back", num_turns=2).ask("t").answer("e")
        (turn,) = accepted(records(rollout.data))
        assert words(turn) == ["user: t", "assistant: e"]


STEPS: list[Callable[[Rollout], object]] = [
    lambda r: r.ask("q"),
    lambda r: r.told("note", "developer"),
    lambda r: r.told("<turn_aborted>"),
    lambda r: r.say("a"),
    lambda r: r.call("c"),
    lambda r: r.output("c"),
    lambda r: r.item("reasoning", summary=[]),
    lambda r: r.count(),
    lambda r: r.count(),
    lambda r: r.count(0, 0, 0),
    lambda r: r.event("token_count", info=None),
    lambda r: r.event("task_started"),
    lambda r: r.event("task_complete"),
    lambda r: r.event("turn_aborted"),
    lambda r: r.event("thread_rolled_back", num_turns=1),
    lambda r: r.context("gpt-6"),
    lambda r: r.meta("other"),
    lambda r: r.meta(),
    lambda r: r.add("response_item", SAID, ordinal=1),
    lambda r: r.add("compacted", {"message": "m"}),
    lambda r: r.add("compacted", {"replacement_history": [SUMMARY, SAID]}),
    lambda r: r.add("compacted", {"replacement_history": [SUMMARY]}),
    lambda r: r.raw(b'{"type":"event_msg","payload":5}'),
    lambda r: r.raw(b"{bad"),
]


def _sorted_by_place(found: list[Record]) -> bool:
    places = [record.location.order for record in found]
    return places == sorted(places)


class TestGrowth:
    @given(st.lists(st.sampled_from(STEPS), min_size=4, max_size=25), st.booleans(), st.booleans())
    @settings(max_examples=250)
    def test_what_a_part_gives_the_whole_gives_again(
        self,
        steps: list[Callable[[Rollout], object]],
        piece: bool,  # noqa: FBT001
        bad_meta: bool,  # noqa: FBT001
    ) -> None:
        rollout = Rollout() if piece else Rollout().meta(subagent_history_start_ordinal=9)
        if bad_meta:
            rollout = Rollout().meta(cwd=5)
        for step in steps:
            step(rollout)
        whole = identities(accepted(records(rollout.data)))
        ends = [0]
        for line in rollout.lines:
            ends.append(ends[-1] + len(line) + 1)
        for end in ends:
            found = records(rollout.data[:end])
            part = identities(accepted(found))
            assert part == whole[: len(part)]
            assert _sorted_by_place(found)
        finished = identities(accepted(records(rollout.data, LONG_AGO)))
        assert finished[: len(whole)] == whole
        assert len(finished) - len(whole) <= 1

    @given(st.lists(st.sampled_from(STEPS), max_size=12), st.integers(0, 4000))
    @settings(max_examples=300)
    def test_cut_anywhere(self, steps: list[Callable[[Rollout], object]], end: int) -> None:
        rollout = begun()
        for step in steps:
            step(rollout)
        whole = identities(accepted(records(rollout.data)))
        part = identities(accepted(records(rollout.data[:end])))
        assert part == whole[: len(part)]


SECRET = "hunter2"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 2**70) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)


def _sample() -> Rollout:
    rollout = begun().item("reasoning", summary=[], encrypted_content=SECRET).say(SECRET)
    rollout.call("c").output("c", SECRET).count().ask(SECRET).answer(SECRET)
    rollout.event("task_complete", last_agent_message=SECRET).event("task_started")
    rollout.add("compacted", {"message": SECRET, "replacement_history": [SUMMARY, SAID]})
    rollout.context().ask("q").say(SECRET).told("<turn_aborted>").event("turn_aborted")
    return rollout.event("thread_rolled_back", num_turns=1).ask("r").answer("z")


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    found = [path]
    for key, item in inner:
        found += _places(item, (*path, key)) if isinstance(item, dict | list) else [(*path, key)]
    return found


class TestDamage:
    """Whatever is in a file, it becomes records, in the order of places, that leak nothing."""

    def check(self, data: bytes) -> None:
        found = records(data)
        assert _sorted_by_place(found)
        for record in found:
            if isinstance(record, Rejected):
                assert SECRET not in record.message + record.pointer
        chains(accepted(found))

    @given(st.data())
    @settings(max_examples=300)
    def test_bytes(self, data: st.DataObject) -> None:
        damaged = bytearray(_sample().data)
        for _ in range(data.draw(st.integers(1, 4))):
            start = data.draw(st.integers(0, len(damaged)))
            end = data.draw(st.integers(start, min(start + 200, len(damaged))))
            damaged[start:end] = data.draw(st.binary(max_size=6) | st.sampled_from([b"\n", b"}{"]))
        self.check(bytes(damaged))

    @given(st.permutations(_sample().lines), st.integers(0, 30), st.integers(0, 30))
    @settings(max_examples=100)
    def test_lines(self, lines: list[bytes], cut: int, glued: int) -> None:
        self.check(b"\n".join(lines[:cut]) + b"".join(lines[cut : cut + glued]) + b"\n")

    @given(st.data())
    @settings(max_examples=250)
    def test_values(self, data: st.DataObject) -> None:
        rollout = _sample()
        number = data.draw(st.integers(0, len(rollout.lines) - 1))
        record = json.loads(rollout.lines[number])
        path = data.draw(st.sampled_from(_places(record)[1:]))
        holder = record
        for key in path[:-1]:
            holder = holder[key]
        holder[path[-1]] = data.draw(JSON)
        rollout.lines[number] = json.dumps(record).encode()
        self.check(rollout.data)

    def test_the_sample_is_sound(self) -> None:
        found = records(_sample().data)
        assert [turn.captured.dated for turn in accepted(found)] == [True] * 4
        assert len(found) == 4
