from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

from tapes_cli.capture.bodies import decode_body
from tapes_cli.capture.providers import PROVIDERS
from tapes_cli.capture.providers.response import parse_response
from tapes_cli.model.reasons import Reason
from tapes_cli.model.records import RejectError
from tests.support.provider_bodies import server_sent
from tests.support.real import REAL


def reduced(*events: Any) -> dict[str, Any]:
    return PROVIDERS["anthropic"].reduce(server_sent(events))


def content(*events: Any) -> list[Any]:
    found: list[Any] = reduced(START, *events, STOP)["message"]["content"]
    return found


START: dict[str, Any] = {
    "type": "message_start",
    "message": {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [],
        "stop_reason": None,
        "usage": {
            "input_tokens": 3,
            "cache_creation_input_tokens": 20,
            "cache_read_input_tokens": 100,
            "output_tokens": 1,
        },
    },
}
END: dict[str, Any] = {
    "type": "message_delta",
    "delta": {"stop_reason": "tool_use", "stop_sequence": None},
    "usage": {"output_tokens": 7},
}
STOP = {"type": "message_stop"}


def begin(index: int, **block: Any) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": block}


def delta(index: int, kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind, **fields}}


HELLO = [begin(0, type="text", text=""), delta(0, "text_delta", text="hello")]


def test_a_stream_reduces_to_a_response() -> None:
    assert reduced(START, *HELLO, END, STOP) == {
        "model": "m",
        "message": {"role": "assistant", "content": [{"type": "text", "text": "hello"}]},
        "done": True,
        "stop_reason": "tool_use",
        "usage": {
            "prompt_tokens": 123,
            "completion_tokens": 7,
            "total_tokens": 130,
            "cache_creation_input_tokens": 20,
            "cache_read_input_tokens": 100,
        },
        "extra": {"id": "msg_1", "type": "message"},
    }


def test_the_name_of_an_event_may_stand_on_its_own_line() -> None:
    events = [START, *HELLO, END, STOP]
    named = b"".join(
        b"event: %b\ndata: %b\n\n"
        % (
            event["type"].encode(),
            json.dumps({k: v for k, v in event.items() if k != "type"}).encode(),
        )
        for event in events
    )
    assert PROVIDERS["anthropic"].reduce(named) == reduced(*events)


def test_blocks_stand_in_the_order_of_their_index() -> None:
    blocks = content(
        begin(2, type="text", text="c"),
        begin(0, type="text", text="a"),
        *[delta(0, "text_delta", text="b")],
    )
    assert [block["text"] for block in blocks] == ["ab", "c"]


@pytest.mark.parametrize(
    ("pieces", "fields"),
    [
        ([], {"tool_input": {"kept": 1}}),
        (["", " "], {"tool_input": {"kept": 1}}),
        (
            ['{"a"', ": 12345678901234567", "8901234567890}"],
            {"tool_input": {"a": 123456789012345678901234567890}},
        ),
        (['{"a": 1000000000000e7}'], {"tool_input": {"a": 10**19}}),
        (['{"a": "\ud83d', '\ude00"}'], {"tool_input": {"a": "\U0001f600"}}),
        (["{}"], {}),
        (["[1]"], {"content": [1]}),
        (['{"a": '], {}),
        (['{"a": NaN}'], {}),
        (["[" * 2000], {}),
    ],
)
def test_input_is_read_when_it_is_whole(pieces: list[str], fields: dict[str, Any]) -> None:
    start = begin(0, type="tool_use", id="i", name="n", input={"kept": 1})
    deltas = [delta(0, "input_json_delta", partial_json=piece) for piece in pieces]
    assert content(start, *deltas) == [
        {"type": "tool_use", "tool_use_id": "i", "tool_name": "n", **fields}
    ]


def test_input_that_does_not_parse_is_told() -> None:
    call = begin(1, type="tool_use", id="i", name="n", input={})
    found = reduced(
        START, *HELLO, call, delta(1, "input_json_delta", partial_json='{"a'), END, STOP
    )
    assert found["extra"]["unreadable_inputs"] == [1]
    assert found["message"]["content"][1] == {
        "type": "tool_use",
        "tool_use_id": "i",
        "tool_name": "n",
    }


def test_a_server_tool_keeps_its_input_and_what_it_found() -> None:
    found = [{"type": "web_search_result", "title": "t", "encrypted_content": "e"}]
    assert content(
        begin(0, type="server_tool_use", id="s", name="web_search", input={}),
        delta(0, "input_json_delta", partial_json='{"query": '),
        delta(0, "input_json_delta", partial_json='"q"}'),
        begin(1, type="web_search_tool_result", tool_use_id="s", content=found),
        begin(2, type="redacted_thinking", data="d"),
    ) == [
        {
            "type": "server_tool_use",
            "content": {"id": "s", "name": "web_search", "input": {"query": "q"}},
        },
        {"type": "web_search_tool_result", "content": {"tool_use_id": "s", "content": found}},
        {"type": "redacted_thinking", "content": {"data": "d"}},
    ]


def test_citations_stand_beside_the_text_and_are_not_hashed() -> None:
    cited = [{"type": "char_location", "cited_text": text} for text in "ab"]
    events = [
        begin(0, type="text", text="", citations=[]),
        *(delta(0, "citations_delta", citation=citation) for citation in cited),
        delta(0, "text_delta", text="x"),
    ]
    found = reduced(START, *events, STOP)
    assert found["message"]["content"] == [{"type": "text", "text": "x", "citations": cited}]
    assert parse_response(found).message.content == [{"type": "text", "text": "x"}]


def test_deltas_of_a_kind_that_is_not_known() -> None:
    assert content(
        begin(0, type="compaction", content=None),
        delta(0, "compaction_delta", content="a", tokens=1),
        delta(0, "compaction_delta", content="b", tokens=2),
    ) == [{"type": "compaction", "content": {"content": "ab", "tokens": 2}}]


def test_a_recording_that_begins_late() -> None:
    found = reduced(
        delta(1, "input_json_delta", partial_json="{}"),
        delta(0, "thinking_delta", thinking="t"),
        delta(2, "text_delta", text="x"),
        STOP,
    )
    assert [block["type"] for block in found["message"]["content"]] == [
        "thinking",
        "tool_use",
        "text",
    ]
    assert found["message"]["role"] == "assistant"


def test_an_error_ends_a_stream() -> None:
    error = {"type": "overloaded_error", "message": "m"}
    found = reduced(START, *HELLO, {"type": "error", "error": error})
    assert (found["stop_reason"], found["done"]) == ("error", False)
    assert found["extra"]["error"] == error
    with pytest.raises(RejectError) as caught:
        reduced(START, {"type": "error", "error": error})
    assert caught.value.reason is Reason.REDUCER_ERROR


def test_what_follows_the_end_does_not_count() -> None:
    again = [START, begin(0, type="text", text="again"), STOP]
    assert reduced(START, *HELLO, END, STOP, *again) == reduced(START, *HELLO, END, STOP)


def test_a_stream_that_starts_anew_counts_from_there() -> None:
    lost = [START, begin(0, type="text", text="lost"), begin(1, type="text", text="lost")]
    assert reduced(*lost, START, *HELLO, END, STOP) == reduced(START, *HELLO, END, STOP)


def test_events_that_are_not_known_are_passed_over() -> None:
    other = [{"type": "unheard_of", "index": 0}, {"no": "type"}, {"type": 5}, {"type": "ping"}]
    assert reduced(START, *other, *HELLO, END, *other, STOP) == reduced(START, *HELLO, END, STOP)


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        # Some gateways say what the prompt was at the end only.
        ({"input_tokens": 0}, {"input_tokens": 9, "output_tokens": 2}, (9, 2, 11)),
        ({"input_tokens": 9}, {"input_tokens": 0, "output_tokens": 2}, (9, 2, 11)),
        ({"input_tokens": 9, "output_tokens": 1}, {}, (9, 1, 10)),
        ({"input_tokens": -1}, {"output_tokens": 2}, (None, 2, 2)),
        ({"input_tokens": 1.5}, {"output_tokens": True}, (None, None, None)),
        ({"input_tokens": 2**63 - 1, "cache_read_input_tokens": 1}, {}, (None, None, None)),
        ([], None, (None, None, None)),
    ],
)
def test_counts(first: Any, last: Any, expected: tuple[int | None, ...]) -> None:
    start = {"type": "message_start", "message": {**START["message"], "usage": first}}
    end = {**END, "usage": last}
    usage = parse_response(reduced(start, *HELLO, end, STOP)).usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == expected


def test_counts_of_zero_that_are_not_of_every_turn_are_left_out() -> None:
    counts = dict.fromkeys(START["message"]["usage"], 0)
    start = {"type": "message_start", "message": {**START["message"], "usage": counts}}
    assert reduced(start, *HELLO, STOP)["usage"] == {
        "prompt_tokens": 0,
        "completion_tokens": 0,
        "total_tokens": 0,
    }


@pytest.mark.parametrize("body", [{}, {"content": "text"}, {"type": "message"}, {"choices": []}])
def test_json_of_another_form(body: dict[str, Any]) -> None:
    with pytest.raises(RejectError) as caught:
        PROVIDERS["anthropic"].reduce(json.dumps(body).encode())
    assert caught.value.reason is Reason.REDUCER_ERROR


def test_an_answer_without_content_is_empty() -> None:
    with pytest.raises(RejectError) as caught:
        reduced(START, END, STOP)
    assert caught.value.reason is Reason.EMPTY_RESPONSE


@pytest.mark.skipif(not REAL.is_dir(), reason="there are no real captures")
def test_real_streams_reduce_to_the_records_made_of_them() -> None:
    folders = sorted((REAL / "wire-recordings").glob("turn-*"))
    records = (REAL / "claude-recordings.turns.jsonl").read_bytes().strip(b"\n").split(b"\n")
    assert len(folders) == len(records) > 0
    for folder, record in zip(folders, records, strict=True):
        raw = (folder / "response.sse").read_bytes()
        body = decode_body(raw, "gzip", Reason.RESPONSE_DECODE)
        assert body.data == gzip.decompress(raw)
        assert PROVIDERS["anthropic"].reduce(body.data) == json.loads(record)["response"]
