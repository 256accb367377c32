"""Ollama's and Gemini's responses."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tapes_cli.capture.providers import PROVIDERS
from tapes_cli.capture.providers.events import Events, read_reply
from tapes_cli.capture.providers.response import parse_response
from tapes_cli.model.reasons import Reason
from tapes_cli.model.records import RejectError
from tests.support.provider_bodies import server_sent


def ollama(*lines: Any) -> dict[str, Any]:
    return PROVIDERS["ollama"].reduce(b"".join(json.dumps(line).encode() + b"\n" for line in lines))


def gemini(*chunks: Any) -> dict[str, Any]:
    return PROVIDERS["gemini"].reduce(server_sent(chunks, end=b"\r\n"))


def reason(provider: str, body: Any) -> Reason:
    with pytest.raises(RejectError) as caught:
        PROVIDERS[provider].reduce(json.dumps(body).encode())
    return caught.value.reason


def said(**message: Any) -> dict[str, Any]:
    return {"model": "m", "created_at": "t1", "message": {"role": "assistant", **message}}


LAST = {
    "model": "m",
    "created_at": "t2",
    "message": {"role": "assistant", "content": ""},
    "done": True,
    "done_reason": "stop",
    "total_duration": 50,
    "load_duration": 5,
    "prompt_eval_count": 10,
    "prompt_eval_duration": 20,
    "eval_count": 3,
    "eval_duration": 25,
}
CALL = {"function": {"name": "f", "arguments": {"a": 2**70 + 1}}}


def test_an_ollama_stream() -> None:
    assert ollama(
        said(content="", thinking="wh"),
        said(content="", thinking="y"),
        said(content="a"),
        said(content="b", tool_calls=[CALL]),
        said(content="", tool_calls=[CALL], images=["i"]),
        LAST,
        said(content="too late"),
    ) == {
        "model": "m",
        "created_at": "t2",
        "message": {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "why"},
                {"type": "text", "text": "ab"},
                {"type": "image", "image_base64": "i"},
                *[{"type": "tool_use", "tool_name": "f", "tool_input": {"a": 2**70 + 1}}] * 2,
            ],
        },
        "done": True,
        "stop_reason": "stop",
        "usage": {
            "prompt_tokens": 10,
            "completion_tokens": 3,
            "total_tokens": 13,
            "total_duration_ns": 50,
            "prompt_duration_ns": 20,
        },
        "extra": {"load_duration": 5, "eval_duration": 25},
    }


def test_an_ollama_stream_may_come_as_events() -> None:
    lines = [said(content="a"), LAST]
    assert PROVIDERS["ollama"].reduce(server_sent(lines)) == ollama(*lines)


def test_an_ollama_stream_may_be_called_events() -> None:
    """Lines of objects, under the content type of server-sent events."""
    said_, body = said(content="a"), b""
    for line in (said_, LAST):
        body += json.dumps(line).encode() + b"\n"
    assert PROVIDERS["ollama"].reduce(body, "text/event-stream") == ollama(said_, LAST)


FRUITLESS = {
    "list of numbers": (b"[", b"0,"),
    "list of empty objects": (b"[", b"{},"),
    "lines of numbers": (b"{}\n", b"0\n"),
    "blank lines": (b"{}\n{}\n", b" \n"),
    "events of numbers": (b"", b"data: 0\n\n"),
    "events without data": (b"data: 0\n\n", b":\n\n"),
    "ends": (b"", b"data: [DONE]\n\n"),
}


@pytest.mark.parametrize("name", FRUITLESS)
def test_a_stream_that_says_nothing_is_given_up(name: str) -> None:
    """Not read to its end, which may be far away."""
    opening, event = FRUITLESS[name]
    read = []
    for count in (50_000, 100_000):
        events = read_reply(opening + event * count, "")
        assert isinstance(events, Events)
        assert all(not found.value for found in events)
        read.append((events.count, events.unreadable))
    assert read[0] == read[1]
    assert sum(read[0]) <= 10_003


def test_what_was_said_before_nothing_is_kept() -> None:
    body = json.dumps(said(content="a")).encode() + b"\n" + b"0\n" * 20_000
    found = PROVIDERS["ollama"].reduce(body + json.dumps(LAST).encode())
    assert found["message"]["content"] == [{"type": "text", "text": "a"}]
    assert found["done"] is False
    assert found["extra"]["incomplete"] is True
    assert found["extra"]["unreadable_events"] > 10_000


def test_blank_lines_between_events_cost_nothing() -> None:
    lines = [said(content="a")] * 11_000 + [LAST]
    body = b"".join(b"data: %b\n\n\n\n" % json.dumps(line).encode() for line in lines)
    found = PROVIDERS["ollama"].reduce(body)
    assert found["done"] is True
    assert found["message"]["content"] == [{"type": "text", "text": "a" * 11_000}]


def test_a_line_that_cannot_be_read_is_told() -> None:
    body = b"\r\n".join(
        [json.dumps(said(content="a")).encode(), b'{"mess', b"", json.dumps(LAST).encode()]
    )
    found = PROVIDERS["ollama"].reduce(body)
    assert found["extra"].pop("unreadable_events") == 1
    assert found == ollama(said(content="a"), LAST)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, Reason.EMPTY_RESPONSE),
        (LAST, Reason.EMPTY_RESPONSE),
        ({"error": "m"}, Reason.REDUCER_ERROR),
        (said(content=5), Reason.REDUCER_ERROR),
        (said(tool_calls={"a": 1}), Reason.REDUCER_ERROR),
        (said(tool_calls=["x"]), Reason.REDUCER_ERROR),
        (said(content="a", images=[5]), Reason.REDUCER_ERROR),
    ],
)
def test_what_ollama_did_not_say(body: Any, expected: Reason) -> None:
    assert reason("ollama", body) is expected


def test_an_error_amid_an_ollama_stream() -> None:
    found = ollama(said(content="a"), {"error": "m"})
    assert (found["stop_reason"], found["done"]) == ("error", False)
    assert found["extra"] == {"error": "m", "incomplete": True}


def chunk(*parts: Any, **more: Any) -> dict[str, Any]:
    candidate = {"content": {"role": "model", "parts": [*parts]}, **more}
    return {"candidates": [candidate], "modelVersion": "m-001", "responseId": "r"}


USED = {
    "promptTokenCount": 10,
    "candidatesTokenCount": 2,
    "thoughtsTokenCount": 5,
    "cachedContentTokenCount": 4,
    "totalTokenCount": 17,
}
STREAM = [
    {**chunk({"text": "wh", "thought": True}), "usageMetadata": {"promptTokenCount": 10}},
    chunk({"text": "y", "thought": True, "thoughtSignature": "s1"}),
    chunk({"text": "a"}, {"text": "b"}),
    chunk({"functionCall": {"name": "f", "args": {"x": 1}}, "thoughtSignature": "s2"}),
    {**chunk({"text": ""}, finishReason="STOP", index=0), "usageMetadata": USED},
]
REDUCED = {
    "model": "m-001",
    "message": {
        "role": "model",
        "content": [
            {"type": "thinking", "thinking": "why", "thinking_signature": "s1"},
            {"type": "text", "text": "ab"},
            {
                "type": "tool_use",
                "tool_name": "f",
                "tool_input": {"x": 1},
                "thinking_signature": "s2",
            },
        ],
    },
    "done": True,
    "stop_reason": "STOP",
    "usage": {
        "prompt_tokens": 10,
        "completion_tokens": 7,
        "total_tokens": 17,
        "cache_read_input_tokens": 4,
    },
    "extra": {"responseId": "r"},
}


def test_a_gemini_stream() -> None:
    assert gemini(*STREAM) == REDUCED


def test_a_gemini_stream_may_be_a_list() -> None:
    pretty = json.dumps(STREAM, indent=2, ensure_ascii=False).encode()
    assert PROVIDERS["gemini"].reduce(pretty) == REDUCED
    assert PROVIDERS["gemini"].reduce(pretty[:-1]) == REDUCED
    cut = pretty[: pretty.index(b'"functionCall"')]
    found = PROVIDERS["gemini"].reduce(cut)
    assert found["message"]["content"] == REDUCED["message"]["content"][:2]  # type: ignore[index]
    assert found["extra"] == {"responseId": "r", "incomplete": True, "unreadable_events": 1}


def test_integers_in_a_list_stay_exact() -> None:
    call = {"functionCall": {"name": "f", "args": {"x": 2**70 + 1}}}
    body = json.dumps([chunk(call)]).encode()
    [block] = PROVIDERS["gemini"].reduce(body)["message"]["content"]
    assert block["tool_input"] == {"x": 2**70 + 1}


def test_only_the_first_candidate_counts() -> None:
    other = {"content": {"parts": [{"text": "b"}]}, "index": 1, "finishReason": "MAX_TOKENS"}
    body = chunk({"text": "a"}, index=0)
    body["candidates"].insert(0, other)
    found = gemini(body)
    assert found["message"]["content"] == [{"type": "text", "text": "a"}]
    assert (found["done"], found.get("stop_reason")) == (False, None)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, Reason.EMPTY_RESPONSE),
        ({"promptFeedback": {"blockReason": "SAFETY"}}, Reason.EMPTY_RESPONSE),
        ({"candidates": [{"finishReason": "MAX_TOKENS"}]}, Reason.EMPTY_RESPONSE),
        (chunk({"text": 5}), Reason.REDUCER_ERROR),
        (chunk({"text": "a", "thought": "yes"}), Reason.REDUCER_ERROR),
        ([{"error": {"code": 500}}], Reason.REDUCER_ERROR),
    ],
)
def test_what_gemini_did_not_say(body: Any, expected: Reason) -> None:
    assert reason("gemini", body) is expected


def test_a_signature_is_stored_and_not_hashed() -> None:
    signed = {"text": "a", "thoughtSignature": "s"}
    message = parse_response(gemini(chunk(signed))).message
    assert message.content == [{"type": "text", "text": "a", "thinking_signature": "s"}]
