from __future__ import annotations

import json
from typing import Any

import pytest

from tapes_cli.merkle.chain import ChainBuilder
from tapes_cli.model.reasons import Reason
from tapes_cli.model.records import Accepted, Rejected, Skipped
from tests.support.exchanges import (
    BEGAN,
    ENDED,
    SESSION,
    as_text,
    chain_of,
    exchange,
    in_one_piece,
    log_line,
    read_files,
    read_values,
    turns_of,
)

UUID = "0b0f2c1d-1111-4222-8333-944445555666"


def line(request: dict[str, Any] | None = None, **response: Any) -> dict[str, Any]:
    """A line with fields of the request, and of the response, changed."""
    whole = log_line(exchange())
    return {
        **whole,
        "request": whole["request"] | (request or {}),
        "response": whole["response"] | response,
    }


def reason_of(value: dict[str, Any]) -> Reason:
    (record,) = read_values(value)
    assert isinstance(record, Rejected | Skipped)
    return record.reason


@pytest.mark.parametrize(
    "value",
    [
        line(),
        as_text(line()),
        line({"method": None}),
        line({"headers": None}),
        line({"url": "/v1/messages"}),
        line(body=log_line(exchange())["response"]["body_raw"]),
        line(body=json.loads(in_one_piece().response)),
        line(body=in_one_piece().response.decode()),
        line({"headers": [["Content-Type", "application/json"]]}, headers=None),
    ],
)
def test_forms_of_a_line(value: dict[str, Any]) -> None:
    (turn,) = turns_of(read_values(value))
    (same,) = turns_of(read_values(line()))
    assert chain_of(turn) == chain_of(same)
    assert (turn.envelope, turn.agent_name, turn.captured.at) == (None, "", ENDED)


def test_found_by_its_keys() -> None:
    found = [
        record.location.format
        for record in read_values(line(), {"request": {"headers": 5}, "response": None})
    ]
    assert found == ["http-log", "http-log"]
    (record,) = read_values({"request": {"body": {}}, "response": None})
    assert record.location.format != "http-log"


@pytest.mark.parametrize(
    ("request_", "response", "said"),
    [
        ({}, {"timestamp": None}, BEGAN),
        ({"timestamp": "2026-05-01T10:00:00.25Z"}, {"timestamp": "soon"}, BEGAN),
        ({}, {"timestamp": "2026-05-01T12:00:02.750+02:00"}, ENDED),
    ],
)
def test_when_it_was_captured(request_: Any, response: Any, said: Any) -> None:
    (turn,) = turns_of(read_values(line(request_, **response)))
    assert (turn.captured.at, turn.captured.dated) == (said, True)


def test_session_of_claude_code() -> None:
    body = {**exchange().request, "metadata": {"user_id": f"user_1_account__session_{UUID}"}}
    for value in (line({"body": body}), as_text(line({"body": body}))):
        (turn,) = turns_of(read_values(value))
        assert turn.envelope is not None
        assert turn.envelope.harness_id == "claude"
        assert turn.envelope.harness_session_id == UUID
    named = {"x-tapes-agent-name": "helper", "x-tapes-cwd": "/x"}
    (turn,) = turns_of(read_values(line({"body": body, "headers": named})))
    assert turn.envelope is not None
    assert turn.envelope.harness_session_id == UUID
    assert turn.envelope.cwd == "/x"
    (turn,) = turns_of(read_values(line({"body": body, "headers": SESSION})))
    assert turn.envelope is not None
    assert turn.envelope.harness_session_id == "s-1"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({**line(), "response": None}, Reason.EMPTY_RESPONSE),
        ({**line({"url": "/collect"}), "response": None}, Reason.UNKNOWN_PROVIDER),
        ({**line({"url": "/v1/models"}), "response": 5}, Reason.NON_TURN_REQUEST),
        ({**line(), "response": 5}, Reason.EXCHANGE_INVALID),
        (line(status_code=None), Reason.EXCHANGE_INVALID),
        (line(headers=5), Reason.EXCHANGE_INVALID),
        (line({"headers": "x"}), Reason.EXCHANGE_INVALID),
        (line(body=5), Reason.EXCHANGE_INVALID),
        (line(body_raw=5), Reason.EXCHANGE_INVALID),
        (line({"body": 5}), Reason.EXCHANGE_INVALID),
        (line({"body": []}), Reason.EXCHANGE_INVALID),
        (line({"body": None}), Reason.REQUEST_DECODE),
        (line({"body": ""}), Reason.REQUEST_DECODE),
        (line({"body": '{},"session":{}'}), Reason.REQUEST_DECODE),
        (line({"body": {"messages": 5}}), Reason.REQUEST_INVALID),
        (line(body_raw=""), Reason.EMPTY_RESPONSE),
        (line(body_raw=None), Reason.EMPTY_RESPONSE),
        (line(body=[]), Reason.EMPTY_RESPONSE),
    ],
)
def test_no_turn(value: dict[str, Any], reason: Reason) -> None:
    assert reason_of(value) is reason


def test_what_is_kept_says_the_same_fault() -> None:
    (record,) = read_values(line({"body": {"messages": [{"role": 5}]}}))
    assert isinstance(record, Rejected)
    kept = json.loads(record.raw)
    assert kept["request"]["url"] == "/prefix/v1/messages"
    (again,) = read_files({"a": record.raw})
    assert isinstance(again, Rejected)
    assert (again.reason, again.pointer, again.raw) == (record.reason, record.pointer, record.raw)


def test_what_a_session_sends_again_is_hashed_once() -> None:
    texts = [f"said {number}" for number in range(9)]
    lines = [log_line(exchange(texts=texts[:count])) for count in (3, 5, 7, 9)]
    for values in (lines, [as_text(value) for value in lines]):
        builder = ChainBuilder()
        for turn in turns_of(read_values(*values)):
            builder.build(turn)
        assert builder.hashes_computed == len(texts) + len(lines)


def test_side_calls_are_threads_of_their_own() -> None:
    body = {**exchange().request, "metadata": {"user_id": f"_session_{UUID}"}}
    title = {**body, "messages": [{"role": "user", "content": "A title, please"}]}
    one, two = turns_of(read_values(line({"body": body}), line({"body": title})))
    assert one.envelope == two.envelope
    assert chain_of(one)[0] != chain_of(two)[0]


@pytest.mark.parametrize("depth", [300, 900, 1000, 1020, 5000])
def test_nesting(depth: int) -> None:
    block = {"type": "tool_use", "id": "i", "name": "n", "input": {"a": "DEEP"}}
    message = {**json.loads(in_one_piece().response), "content": [block]}
    asked = {"messages": [{"role": "assistant", "content": [block]}]}
    deep = b"[" * depth + b"]" * depth
    for value in (line(body=message), line({"body": asked}), as_text(line({"body": asked}))):
        data = json.dumps(value).encode()
        (record,) = read_files(
            {"a.jsonl": data.replace(rb"\"DEEP\"", deep).replace(b'"DEEP"', deep)}
        )
        if depth < 400:
            assert isinstance(record, Accepted)
        else:
            assert isinstance(record, Rejected)
            assert record.reason is Reason.NESTING_TOO_DEEP
