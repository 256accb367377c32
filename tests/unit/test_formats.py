from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapes_cli.capture.decode import InexactNumberError
from tapes_cli.capture.formats import all_formats, detect
from tapes_cli.capture.formats.base import Item, RecordFormat, SkipError
from tapes_cli.capture.formats.turn_records import TurnParser
from tapes_cli.capture.history import OpenedRecord
from tapes_cli.capture.times import Fallback
from tapes_cli.model.reasons import EXPLANATIONS, Reason
from tapes_cli.model.records import RejectError
from tapes_cli.model.turn import CaptureTime, TimeSource, Turn, Usage

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
FALLBACK = Fallback(None, lambda: NOON)


def record(**changes: Any) -> dict[str, Any]:
    """A sound turn record; None takes a field away."""
    whole = {
        "provider": "anthropic",
        "request": {"model": "m", "messages": [{"role": "user", "content": "hi"}]},
        "response": {
            "model": "m-1",
            "message": {"role": "assistant", "content": [{"type": "text", "text": "ok"}]},
            "stop_reason": "end_turn",
            "usage": {"prompt_tokens": 3, "completion_tokens": 2},
        },
    }
    whole |= changes
    return {name: value for name, value in whole.items() if value is not None}


def parse(value: Any, parser: TurnParser | None = None) -> Turn:
    return (parser or TurnParser()).parse(OpenedRecord(value), FALLBACK)


def reject(value: Any) -> RejectError:
    with pytest.raises(RejectError) as caught:
        parse(value)
    return caught.value


def items_of(value: dict[str, Any]) -> list[Any]:
    found = detect(value)
    assert isinstance(found, RecordFormat)
    return list(found.items(value))


def refused(value: dict[str, Any]) -> RejectError:
    with pytest.raises(RejectError) as caught:
        items_of(value)
    return caught.value


class TestDetection:
    def test_turn_record(self) -> None:
        found = detect(record())
        assert found.name == "turn-record"
        assert items_of(record()) == [Item(record())]

    def test_batch(self) -> None:
        batch = {"turns": [record(), 5], "provider": "x", "request": {}}
        found = detect(batch)
        assert found.name == "batch"
        assert items_of(batch) == [Item(record(), 0), Item(5, 1)]

    @pytest.mark.parametrize(
        ("value", "reason", "pointer"),
        [
            ({"turns": []}, Reason.BATCH_EMPTY, "/turns"),
            ({"turns": {}}, Reason.BATCH_INVALID, "/turns"),
            ({"turns": None}, Reason.BATCH_INVALID, "/turns"),
            ({}, Reason.UNRECOGNISED, ""),
            ({"a": 1}, Reason.UNRECOGNISED, ""),
            ({"provider": "anthropic"}, Reason.UNRECOGNISED, ""),
        ],
    )
    def test_refused(self, value: dict[str, Any], reason: Reason, pointer: str) -> None:
        error = refused(value)
        assert (error.reason, error.pointer) == (reason, pointer)

    @pytest.mark.parametrize(
        ("value", "name"),
        [
            ({"raw_request": {}, "provider": "openai"}, "raw-turns"),
            ({"type": "event_msg", "payload": {}, "timestamp": ""}, "codex-rollout"),
            ({"sessionId": "s", "uuid": "u", "type": "user"}, "claude-code-transcript"),
            ({"sessionId": "s", "message": {}}, "claude-code-transcript"),
            ({"type": "summary", "leafUuid": "u"}, "claude-code-transcript"),
            ({"request": {"url": "/", "body": ""}, "response": None}, "http-log"),
            ({"request": {"headers": {}}, "response": {}}, "http-log"),
            ({"log": {"entries": []}}, "har"),
            ({"schema": 1, "traces": []}, "derived-export"),
            ({"custom_id": "a", "params": {}}, "batch-api-input"),
            ({"custom_id": "a", "result": {}}, "batch-api-output"),
        ],
    )
    def test_other_formats(self, value: dict[str, Any], name: str) -> None:
        assert detect(value).name == name

    def test_turn_record_with_extra_fields_stays_one(self) -> None:
        extra = {"turns": 5, "type": "x", "payload": 1, "sessionId": "s", "uuid": "u"}
        assert detect(record(**extra)).name == "turn-record"

    def test_turn_record_without_a_field_says_which(self) -> None:
        for name, reason in (
            ("provider", Reason.PROVIDER_UNSUPPORTED),
            ("request", Reason.REQUEST_INVALID),
            ("response", Reason.RESPONSE_INVALID),
        ):
            broken = record(**{name: None})
            (item,) = items_of(broken)
            assert reject(item.record).reason is reason

    def test_unrecognised_record_shows_its_first_keys_harmlessly(self) -> None:
        keys = ["\x1b[31mred", "k" * 100, "my password is", "d", "e", "secret"]
        message = refused(dict.fromkeys(keys)).message
        shown = "…, …, …, d, e, …"
        assert message == f"no known capture format has a record with the keys {shown}"
        assert refused({}).message == "the record is empty"

    def test_names_are_unique(self) -> None:
        names = [found.name for found in all_formats()]
        assert len(set(names)) == len(names)

    @settings(max_examples=200, deadline=None)
    @given(
        st.dictionaries(
            st.sampled_from(
                [
                    *("turns", "provider", "request", "response", "raw_request", "schema"),
                    *("traces", "type", "payload", "sessionId", "uuid", "message", "x"),
                ]
            ),
            st.sampled_from([None, {}, [], [1], "a", 1, {"url": ""}]),
        )
    )
    def test_any_record_has_items_or_a_reason(self, value: dict[str, Any]) -> None:
        try:
            found = detect(value)
            # What has to be seen as a whole is for its own tests.
            outcome: Any = items_of(value) if isinstance(found, RecordFormat) else found
        except RejectError as error:
            outcome = error.message and EXPLANATIONS[error.reason]
        except SkipError as error:
            outcome = EXPLANATIONS[error.reason]
        assert outcome


class TestTurnRecord:
    def test_whole_record(self) -> None:
        turn = parse(
            record(
                agent_name="claude",
                session={"harness_id": "h", "harness_session_id": "s"},
                meta={"captured_at": "2026-02-01T00:00:00Z"},
                surplus={},
            ),
            TurnParser(project="p"),
        )
        assert [(m.role, m.content) for m in turn.history] == [
            ("user", [{"type": "text", "text": "hi"}])
        ]
        assert turn.response.role == "assistant"
        assert turn.response.content == [{"type": "text", "text": "ok"}]
        assert (turn.provider, turn.agent_name, turn.project) == ("anthropic", "claude", "p")
        assert (turn.request_model, turn.response_model) == ("m", "m-1")
        assert turn.stop_reason == "end_turn"
        assert turn.usage == Usage(prompt_tokens=3, completion_tokens=2)
        assert turn.captured == CaptureTime(datetime(2026, 2, 1, tzinfo=UTC))
        assert turn.envelope is not None
        assert turn.envelope.harness_session_id == "s"

    def test_bare_record(self) -> None:
        turn = parse(record())
        assert turn.envelope is None
        assert (turn.agent_name, turn.project) == ("", "")
        assert turn.captured == CaptureTime(NOON, TimeSource.CLOCK)

    @pytest.mark.parametrize(
        ("changes", "at"),
        [
            ({"received_at": "2026-03-03T00:00:00Z"}, (3, 3)),
            ({"received_at": 5, "meta": {"captured_at": 5}}, None),
        ],
    )
    def test_time(self, changes: dict[str, Any], at: tuple[int, int] | None) -> None:
        captured = parse(record(**changes)).captured
        assert captured.dated is bool(at)
        if at:
            assert (captured.at.month, captured.at.day) == at

    def test_time_of_the_response(self) -> None:
        value = record()
        value["response"]["created_at"] = "2026-04-04T00:00:00Z"
        assert parse(value).captured.at.month == 4

    @pytest.mark.parametrize("provider", ["s3cret", "", "Anthropic", 5, True, [], {}])
    def test_unknown_provider_names_the_known_ones(self, provider: Any) -> None:
        error = reject(record(provider=provider))
        assert (error.reason, error.pointer) == (Reason.PROVIDER_UNSUPPORTED, "/provider")
        assert (
            error.message == "provider is none of the supported anthropic, gemini, ollama, openai"
        )

    @pytest.mark.parametrize(
        ("changes", "reason", "pointer"),
        [
            ({"agent_name": 5}, Reason.RECORD_INVALID, "/agent_name"),
            ({"meta": []}, Reason.RECORD_INVALID, "/meta"),
            ({"meta": False}, Reason.RECORD_INVALID, "/meta"),
            ({"request": []}, Reason.REQUEST_INVALID, "/request"),
            ({"request": "s3cret"}, Reason.REQUEST_INVALID, "/request"),
            ({"request": {"messages": 5}}, Reason.REQUEST_INVALID, "/request/messages"),
            ({"request": {"messages": [5]}}, Reason.REQUEST_INVALID, "/request/messages/0"),
            ({"response": []}, Reason.RESPONSE_INVALID, "/response"),
            ({"response": {}}, Reason.ROLE_MISSING, "/response/message/role"),
            ({"session": []}, Reason.SESSION_INVALID, "/session"),
            ({"session": {"org_id": "s3cret"}}, Reason.ORG_ID_INVALID, "/session/org_id"),
        ],
    )
    def test_rejects(self, changes: dict[str, Any], reason: Reason, pointer: str) -> None:
        error = reject(record(**changes))
        assert (error.reason, error.pointer) == (reason, pointer)
        assert "s3cret" not in error.message

    @pytest.mark.parametrize("value", [None, 5, "s3cret", [], True])
    def test_record_must_be_an_object(self, value: Any) -> None:
        assert reject(value).reason is Reason.NOT_OBJECT

    def test_first_fault_counts(self) -> None:
        value = record(provider="x", request=5, response=5, session=5)
        assert reject(value).reason is Reason.PROVIDER_UNSUPPORTED
        value["provider"] = "ollama"
        assert reject(value).reason is Reason.REQUEST_INVALID
        value["request"] = {}
        assert reject(value).reason is Reason.RESPONSE_INVALID
        value["response"] = record()["response"]
        assert reject(value).reason is Reason.SESSION_INVALID

    def test_nulls_are_absent(self) -> None:
        value = record() | dict.fromkeys(["agent_name", "session", "meta"])
        assert parse(value).envelope is None
        assert reject(record() | {"request": None}).message == "request is missing"
        assert reject(record() | {"response": None}).message == "response is missing"

    def test_deep_response(self) -> None:
        value: Any = "x"
        for _ in range(950):
            value = [value]
        block = {"type": "tool_use", "tool_input": {"a": value}}
        response = {"message": {"role": "assistant", "content": [block]}}
        assert reject(record(response=response)).reason is Reason.NESTING_TOO_DEEP

    def test_number_that_may_be_rounded(self) -> None:
        block = {"type": "tool_use", "id": "i", "name": "n", "input": {"a": 1e30}}
        request = {"messages": [{"role": "assistant", "content": [block]}]}
        with pytest.raises(InexactNumberError):
            parse(record(request=request))

    def test_history_is_recognised_within_a_session_only(self) -> None:
        parser = TurnParser()

        def shared(session: Any) -> int:
            messages = [{"role": "user", "content": f"{n}"} for n in range(5)]
            value = record(session=session, request={"messages": messages})
            opened = parser.histories.open(json.dumps(value).encode())
            history = parser.parse(opened, FALLBACK).history
            assert [message.content[0]["text"] for message in history] == [*"01234"]
            return history.shared

        a = {"harness_id": "h", "harness_session_id": "a"}
        b = a | {"harness_session_id": "b"}
        assert [shared(session) for session in (a, a, b, None, None, a, b)] == [0, 4, 0, 0, 4, 4, 4]

    def test_malformed_session_does_not_stop_the_search(self) -> None:
        assert reject(record(session={"harness_id": []})).reason is Reason.SESSION_INVALID
