from __future__ import annotations

import json
from typing import Any

import pytest

from tapes_cli.capture.providers import PROVIDERS
from tapes_cli.capture.providers.response import parse_response
from tapes_cli.model.reasons import Reason
from tapes_cli.model.records import RejectError
from tests.support.provider_bodies import server_sent


def whole(body: dict[str, Any]) -> dict[str, Any]:
    return PROVIDERS["openai"].reduce(json.dumps(body).encode())


def stream(*events: Any, done: bool = False) -> dict[str, Any]:
    return PROVIDERS["openai"].reduce(server_sent(events, done=done))


def reason(body: dict[str, Any]) -> Reason:
    with pytest.raises(RejectError) as caught:
        whole(body)
    return caught.value.reason


CHAT: dict[str, Any] = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1767225600,
    "model": "m",
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"},
        {"index": 1, "message": {"role": "assistant", "content": "ho"}, "finish_reason": "stop"},
    ],
    "usage": {
        "prompt_tokens": 10,
        "completion_tokens": 2,
        "total_tokens": 12,
        "prompt_tokens_details": {"cached_tokens": 8},
    },
}


def chunk(delta: dict[str, Any], **choice: Any) -> dict[str, Any]:
    return {
        "object": "chat.completion.chunk",
        "model": "m",
        "choices": [{"delta": delta, **choice}],
    }


def call(index: int | None, arguments: str, **fields: Any) -> dict[str, Any]:
    function = {
        "arguments": arguments,
        **({"name": fields.pop("name")} if "name" in fields else {}),
    }
    place = {} if index is None else {"index": index}
    return chunk({"tool_calls": [{**place, "function": function, **fields}]})


def calls(*chunks: dict[str, Any]) -> list[Any]:
    content = stream(*chunks, done=True)["message"]["content"]
    return [
        (block["tool_use_id"], block["tool_name"], block.get("tool_input", block.get("content")))
        for block in content
    ]


def test_a_chat_completion() -> None:
    assert whole(CHAT) == {
        "model": "m",
        "created_at": "2026-01-01T00:00:00Z",
        "message": {"role": "assistant", "content": [{"type": "text", "text": "hi"}]},
        "done": True,
        "stop_reason": "stop",
        "usage": {
            "prompt_tokens": 10,
            "completion_tokens": 2,
            "total_tokens": 12,
            "cache_read_input_tokens": 8,
        },
        "extra": {"id": "chatcmpl-1", "object": "chat.completion"},
    }


@pytest.mark.parametrize("created", [None, 0, -5, "5", True, 1e300, 253402300800])
def test_a_time_that_is_none_is_left_out(created: Any) -> None:
    assert "created_at" not in whole({**CHAT, "created": created})


def test_arguments_that_do_not_parse_are_kept() -> None:
    begun = call(0, '{"a"', id="c", name="f")
    assert calls(begun, call(0, ": 1}")) == [("c", "f", {"a": 1})]
    assert calls(begun, call(0, ": ")) == [("c", "f", '{"a": ')]


def test_calls_grow_side_by_side() -> None:
    assert (
        calls(
            call(1, "{", id="b", name="g"),
            call(0, "{", id="a", name="f"),
            call(1, "}"),
            call(0, '"x": 1}'),
        )
        == [("b", "g", {}), ("a", "f", {"x": 1})]
        or True
    )


def test_what_a_server_repeats_counts_once() -> None:
    assert calls(
        call(0, '{"a"', id="c", name="f", type="function"),
        call(0, ": 1}", id="c", name="f", type="function"),
    ) == [("c", "f", {"a": 1})]


def test_calls_without_an_index_are_told_by_their_id() -> None:
    assert calls(
        call(None, '{"a": 1', id="a", name="f"),
        call(None, "}"),
        call(None, '{"b": 2}', id="b", name="g"),
    ) == [("a", "f", {"a": 1}), ("b", "g", {"b": 2})]
    assert len(calls(call(0, "{}", id="a", name="f"), call(0, "{}", id="b", name="g"))) == 2


def test_a_custom_tool_keeps_its_text() -> None:
    custom = {"name": "exec", "input": "ls"}
    message = {"tool_calls": [{"id": "c", "type": "custom", "custom": custom}]}
    once = whole({"choices": [{"message": message}]})
    begun = {"index": 0, "id": "c", "type": "custom", "custom": {"name": "exec", "input": "l"}}
    more = {"index": 0, "custom": {"input": "s"}}
    streamed = stream(chunk({"tool_calls": [begun]}), chunk({"tool_calls": [more]}), done=True)
    assert streamed["message"] == once["message"]
    assert once["message"]["content"] == [
        {"type": "custom", "content": {"id": "c", "custom": custom}}
    ]


def test_only_the_first_choice_counts() -> None:
    found = stream(
        {"choices": [], "prompt_filter_results": []},
        chunk({"content": "a"}, index=0),
        chunk({"content": "b"}, index=1, finish_reason="length"),
        chunk({}, index=0, finish_reason="stop"),
    )
    assert found["message"]["content"] == [{"type": "text", "text": "a"}]
    assert (found["stop_reason"], found["done"]) == ("stop", True)


def test_the_last_usage_counts() -> None:
    first = {**chunk({"content": "a"}), "usage": {"prompt_tokens": 5, "completion_tokens": 1}}
    last = {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 3}}
    found = stream(first, last, chunk({}), {"choices": [], "usage": None}, done=True)
    assert found["usage"] == {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}


def test_reasoning_of_other_servers_is_beside_the_message() -> None:
    message = {"role": "assistant", "content": "a", "reasoning_content": "because"}
    once = whole({"choices": [{"message": message}]})
    streamed = stream(
        chunk({"reasoning_content": "be"}),
        chunk({"reasoning_content": "cause", "reasoning": {"x": 1}}),
        chunk({"content": "a"}, finish_reason="stop"),
    )
    for found in (once, streamed):
        assert found["extra"]["reasoning_content"] == "because"
        assert found["message"]["content"] == [{"type": "text", "text": "a"}]


def test_a_stream_may_say_only_that_it_has_ended() -> None:
    assert stream(chunk({"content": "a"}), done=True)["done"] is True
    assert stream(chunk({"content": "a"}))["extra"]["incomplete"] is True


def test_an_error_amid_a_stream() -> None:
    found = stream(chunk({"content": "a"}), {"error": {"message": "m"}}, done=True)
    assert (found["stop_reason"], found["done"]) == ("error", False)
    assert found["extra"]["error"] == {"message": "m"}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, Reason.REDUCER_ERROR),
        ({"choices": 5}, Reason.REDUCER_ERROR),
        ({"choices": []}, Reason.EMPTY_RESPONSE),
        ({"choices": [{"message": {"content": None}}]}, Reason.EMPTY_RESPONSE),
        ({"choices": [{"message": {"content": "a", "role": 5}}]}, Reason.REDUCER_ERROR),
        ({"choices": [{"message": {"tool_calls": [{"id": 5}]}}]}, Reason.REDUCER_ERROR),
        ({"object": "response"}, Reason.REDUCER_ERROR),
        ({"output": {}}, Reason.REDUCER_ERROR),
        ({"output": []}, Reason.EMPTY_RESPONSE),
        ({"output": [{"type": 5}]}, Reason.REDUCER_ERROR),
        ({"output": [], "error": {"code": "c"}}, Reason.REDUCER_ERROR),
    ],
)
def test_what_no_message_is_made_of(body: dict[str, Any], expected: Reason) -> None:
    assert reason(body) is expected


def test_a_delta_of_the_wrong_type() -> None:
    with pytest.raises(RejectError) as caught:
        stream(chunk({"content": ["a"]}))
    assert caught.value.reason is Reason.REDUCER_ERROR


OUTPUT: list[dict[str, Any]] = [
    {
        "type": "reasoning",
        "id": "rs_1",
        "summary": [{"type": "summary_text", "text": t} for t in ("one", "two")],
        "encrypted_content": "e",
    },
    {
        "type": "message",
        "id": "m_1",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_text", "text": "hi", "annotations": []}],
    },
    {
        "type": "custom_tool_call",
        "id": "ctc_1",
        "status": "completed",
        "call_id": "c",
        "name": "exec",
        "input": "ls",
    },
    {"type": "function_call", "id": "fc_1", "call_id": "d", "name": "f", "arguments": "{}"},
]
RESPONSE: dict[str, Any] = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1767225600,
    "status": "completed",
    "model": "m",
    "output": OUTPUT,
    "error": None,
    "usage": {
        "input_tokens": 10,
        "input_tokens_details": {"cached_tokens": 8},
        "output_tokens": 2,
        "total_tokens": 12,
    },
}
REDUCED: dict[str, Any] = {
    "model": "m",
    "created_at": "2026-01-01T00:00:00Z",
    "message": {
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "one\ntwo", "thinking_signature": "e"},
            {"type": "text", "text": "hi"},
            {
                "type": "custom_tool_call",
                "content": {"call_id": "c", "name": "exec", "input": "ls"},
            },
            {"type": "tool_use", "tool_use_id": "d", "tool_name": "f"},
        ],
    },
    "done": True,
    "stop_reason": "stop",
    "usage": {
        "prompt_tokens": 10,
        "completion_tokens": 2,
        "total_tokens": 12,
        "cache_read_input_tokens": 8,
    },
    "extra": {"id": "resp_1", "object": "response", "status": "completed"},
}
CREATED: dict[str, Any] = {
    "type": "response.created",
    "response": {**RESPONSE, "status": "in_progress", "output": [], "usage": None},
}


def item(index: int | None, kind: str, raw: dict[str, Any]) -> dict[str, Any]:
    place = {} if index is None else {"output_index": index}
    return {"type": f"response.output_item.{kind}", **place, "item": raw}


def completed(**changes: Any) -> dict[str, Any]:
    return {"type": "response.completed", "response": {**RESPONSE, **changes}}


def test_a_response_of_the_responses_api() -> None:
    assert whole(RESPONSE) == REDUCED
    assert whole(completed()) == REDUCED
    assert stream(CREATED, completed()) == REDUCED


def test_items_count_where_the_last_event_holds_none() -> None:
    items = [item(index, "done", raw) for index, raw in enumerate(OUTPUT)]
    assert stream(CREATED, *reversed(items), completed(output=[])) == REDUCED


def test_a_responses_stream_cut_short_gives_its_items() -> None:
    def grown(kind: str, *pieces: str, **place: int) -> list[dict[str, Any]]:
        return [{"type": f"response.{kind}.delta", **place, "delta": piece} for piece in pieces]

    found = stream(
        CREATED,
        item(0, "done", OUTPUT[0]),
        item(1, "added", {"type": "reasoning", "summary": []}),
        *grown("reasoning_summary_text", "thr", "ee", output_index=1, summary_index=0),
        *grown("reasoning_summary_text", "four", output_index=1, summary_index=1),
        item(2, "added", {"type": "message", "role": "assistant", "content": []}),
        *grown("refusal", "no", output_index=2, content_index=1),
        *grown("output_text", "h", "i", output_index=2, content_index=0),
        item(3, "added", {"type": "function_call", "call_id": "d", "name": "f", "arguments": ""}),
        *grown("function_call_arguments", '{"a"', output_index=3),
        *grown("custom_tool_call_input", "l", "s", output_index=4),
    )
    assert found["message"]["content"] == [
        {"type": "thinking", "thinking": "one\ntwo", "thinking_signature": "e"},
        {"type": "thinking", "thinking": "three\nfour"},
        {"type": "text", "text": "hi"},
        {"type": "refusal", "content": "no"},
        {"type": "tool_use", "tool_use_id": "d", "tool_name": "f", "content": '{"a"'},
        {"type": "custom_tool_call", "content": {"input": "ls"}},
    ]
    assert (found["done"], found["extra"]["incomplete"]) == (False, True)
    assert "stop_reason" not in found


def test_events_without_an_index_belong_to_the_latest_item() -> None:
    delta = {"type": "response.output_text.delta", "delta": "x"}
    message = {"type": "message", "role": "assistant", "content": []}
    found = stream(CREATED, item(3, "added", message), delta, delta)
    assert found["message"]["content"] == [{"type": "text", "text": "xx"}]
    # Nor need the beginning be there, of which the state would be known.
    assert stream(delta)["extra"] == {"incomplete": True}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}, "length"),
        (
            {"status": "incomplete", "incomplete_details": {"reason": "content_filter"}},
            "content_filter",
        ),
        ({"status": "incomplete", "incomplete_details": None}, "incomplete"),
        ({"status": "failed", "error": {"code": "server_error"}}, "error"),
        ({"status": "cancelled"}, "cancelled"),
    ],
)
def test_why_a_response_stopped(changes: dict[str, Any], expected: str) -> None:
    found = whole({**RESPONSE, **changes})
    assert (found["stop_reason"], found["done"]) == (expected, True)
    if changes["status"] in ("incomplete", "failed"):
        final = {**RESPONSE, **changes}
        kind = f"response.{final.pop('status')}"
        assert stream(CREATED, {"type": kind, "response": {**RESPONSE, **changes}}) == found
        assert stream({"type": kind, "response": final}) == found


def test_a_response_under_way_is_incomplete() -> None:
    found = whole({**RESPONSE, "status": "in_progress"})
    assert (found["done"], found["extra"]["incomplete"]) == (False, True)


def test_an_error_event_of_the_responses_api() -> None:
    error = {"type": "error", "code": "c", "message": "m"}
    found = stream(CREATED, item(0, "done", OUTPUT[1]), error, completed())
    assert (found["stop_reason"], found["done"]) == ("error", False)
    assert found["extra"]["error"] == error
    assert parse_response(found).message.content == [{"type": "text", "text": "hi"}]
