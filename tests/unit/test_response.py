from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapes_cli.capture.decode import InexactNumberError
from tapes_cli.capture.providers import PROVIDERS
from tapes_cli.capture.providers.response import parse_response
from tapes_cli.merkle.chain import node_hash
from tapes_cli.model.reasons import Reason
from tapes_cli.model.records import RejectError
from tapes_cli.model.turn import Usage

if TYPE_CHECKING:
    from tapes_cli.model.blocks import ContentBlock, Message

COUNTS = [field.name for field in fields(Usage)]


def answer(*content: Any, **more: Any) -> dict[str, Any]:
    return {"message": {"role": "assistant", "content": [*content]}, **more}


def block(raw: Any) -> ContentBlock:
    [parsed] = parse_response(answer(raw)).message.content
    return parsed


def rejected(response: Any) -> tuple[Reason, str]:
    with pytest.raises(RejectError) as caught:
        parse_response(response)
    return caught.value.reason, caught.value.pointer


def address(message: Message) -> str:
    return node_hash("", message.role, message.content)


def test_what_a_response_says() -> None:
    parsed = parse_response(
        answer(
            {"type": "text", "text": "hi"},
            model="m",
            stop_reason="end_turn",
            created_at="2026-05-01T00:00:00Z",
            done=True,
            extra={"a": [1]},
            usage={"prompt_tokens": 3, "completion_tokens": None, "total_duration_ns": 2**63 - 1},
            unheard_of=[1.5],
        )
    )
    assert parsed.message.role == "assistant"
    assert parsed.message.content == [{"type": "text", "text": "hi"}]
    assert (parsed.model, parsed.stop_reason) == ("m", "end_turn")
    assert parsed.created_at == "2026-05-01T00:00:00Z"
    assert parsed.usage == Usage(prompt_tokens=3, total_duration_ns=2**63 - 1)


def test_what_is_absent_is_empty() -> None:
    parsed = parse_response(answer({"type": "text", "text": ""}, model=None, usage=None))
    assert (parsed.model, parsed.stop_reason, parsed.created_at) == ("", "", "")
    assert parsed.usage == Usage()


@pytest.mark.parametrize(
    ("response", "reason", "pointer"),
    [
        (None, Reason.RESPONSE_INVALID, "/response"),
        ([], Reason.RESPONSE_INVALID, "/response"),
        ({}, Reason.ROLE_MISSING, "/response/message/role"),
        ({"message": None}, Reason.ROLE_MISSING, "/response/message/role"),
        ({"message": []}, Reason.RESPONSE_INVALID, "/response/message"),
        ({"message": {"role": ""}}, Reason.ROLE_MISSING, "/response/message/role"),
        ({"message": {"role": 5}}, Reason.RESPONSE_INVALID, "/response/message/role"),
        ({"message": {"role": "a"}}, Reason.CONTENT_MISSING, "/response/message/content"),
        (
            {"message": {"role": "a", "content": []}},
            Reason.CONTENT_MISSING,
            "/response/message/content",
        ),
        (
            {"message": {"role": "a", "content": "x"}},
            Reason.RESPONSE_INVALID,
            "/response/message/content",
        ),
        (answer({"type": "text"}, model=5), Reason.RESPONSE_INVALID, "/response/model"),
        (
            answer({"type": "text"}, stop_reason=[]),
            Reason.RESPONSE_INVALID,
            "/response/stop_reason",
        ),
        (answer({"type": "text"}, created_at=5), Reason.RESPONSE_INVALID, "/response/created_at"),
        (answer({"type": "text"}, done=1), Reason.RESPONSE_INVALID, "/response/done"),
        (answer({"type": "text"}, extra=[]), Reason.RESPONSE_INVALID, "/response/extra"),
        (answer({"type": "text"}, usage=[]), Reason.USAGE_INVALID, "/response/usage"),
    ],
)
def test_what_no_response_looks_like(response: Any, reason: Reason, pointer: str) -> None:
    assert rejected(response) == (reason, pointer)


@pytest.mark.parametrize(
    ("raw", "reason", "field"),
    [
        (None, Reason.BLOCK_INVALID, ""),
        ("x", Reason.BLOCK_INVALID, ""),
        ({"text": "x"}, Reason.BLOCK_TYPE_MISSING, "/type"),
        ({"type": None}, Reason.BLOCK_TYPE_MISSING, "/type"),
        ({"type": ""}, Reason.BLOCK_TYPE_MISSING, "/type"),
        ({"type": 5}, Reason.BLOCK_INVALID, "/type"),
        ({"type": "text", "text": 5}, Reason.BLOCK_INVALID, "/text"),
        ({"type": "thinking", "thinking": []}, Reason.BLOCK_INVALID, "/thinking"),
        ({"type": "tool_use", "tool_input": []}, Reason.BLOCK_INVALID, "/tool_input"),
        ({"type": "tool_result", "is_error": 1}, Reason.BLOCK_INVALID, "/is_error"),
    ],
)
def test_what_no_block_looks_like(raw: Any, reason: Reason, field: str) -> None:
    response = answer({"type": "text", "text": "x"}, raw)
    assert rejected(response) == (reason, f"/response/message/content/1{field}")


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("count", [-1, 1.0, 1e3, True, "1", [], 2**63, 2.0**64])
def test_what_is_no_count(name: str, count: Any) -> None:
    response = answer({"type": "text"}, usage={name: count})
    assert rejected(response) == (Reason.USAGE_INVALID, f"/response/usage/{name}")


@given(st.dictionaries(st.sampled_from(COUNTS), st.none() | st.integers(0, 2**63 - 1)))
def test_counts_are_kept(usage: dict[str, int | None]) -> None:
    parsed = parse_response(answer({"type": "text"}, usage=usage)).usage
    assert [getattr(parsed, name) for name in COUNTS] == [usage.get(name) for name in COUNTS]


def test_no_message_shows_content() -> None:
    with pytest.raises(RejectError) as caught:
        parse_response(answer({"type": "tool_use", "tool_input": "secret"}, model="secret"))
    assert "secret" not in caught.value.message


@pytest.mark.parametrize(
    ("raw", "parsed"),
    [
        ({"type": "text"}, {"type": "text", "text": ""}),
        (
            {"type": "text", "text": "x", "tool_name": "", "is_error": False, "content": None},
            {"type": "text", "text": "x"},
        ),
        ({"type": "text", "text": None, "citations": []}, {"type": "text", "text": ""}),
        (
            {"type": "tool_use", "tool_use_id": "i", "tool_name": "n", "tool_input": None},
            {"type": "tool_use", "tool_use_id": "i", "tool_name": "n"},
        ),
        (
            {"type": "tool_use", "id": "i", "name": "n", "input": {"a": 1}},
            {"type": "tool_use", "tool_use_id": "i", "tool_name": "n", "tool_input": {"a": 1}},
        ),
        (
            {"type": "tool_use", "tool_use_id": "i", "tool_name": "n", "content": "{broken"},
            {"type": "tool_use", "tool_use_id": "i", "tool_name": "n", "content": "{broken"},
        ),
        (
            {"type": "tool_result", "tool_result_id": "i", "tool_output": "o", "is_error": True},
            {"type": "tool_result", "tool_result_id": "i", "tool_output": "o", "is_error": True},
        ),
        (
            {"type": "tool_result", "tool_use_id": "i", "content": "o"},
            {"type": "tool_result", "tool_result_id": "i", "tool_output": "o"},
        ),
        ({"type": "tool_result", "tool_output": "o"}, {"type": "tool_result", "tool_output": "o"}),
        (
            {"type": "image", "media_type": "m", "image_base64": "b"},
            {"type": "image", "media_type": "m", "image_base64": "b"},
        ),
        ({"type": "x", "content": 0}, {"type": "x", "content": 0}),
        ({"type": "x", "content": {}}, {"type": "x"}),
        ({"type": "x"}, {"type": "x"}),
        ({"type": "refusal", "text": "no"}, {"type": "refusal", "content": "no"}),
        ({"type": "refusal", "why": "x"}, {"type": "refusal", "content": {"why": "x"}}),
    ],
)
def test_blocks(raw: Any, parsed: ContentBlock) -> None:
    assert block(raw) == parsed


@pytest.mark.parametrize("field", ["tool_input", "input", "content"])
def test_a_number_that_may_be_rounded_is_not_kept(field: str) -> None:
    with pytest.raises(InexactNumberError):
        block({"type": "tool_use", field: {"k": [2.0**63]}})


TEXT = st.text(" ab<>\n\ud800é", max_size=6)
VALUES = st.none() | st.booleans() | st.integers(-2, 2) | st.floats(-1, 1) | TEXT | st.lists(TEXT)
OBJECTS = st.dictionaries(st.text("abc", max_size=2), VALUES, max_size=3)


def kind(name: str, /, **members: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({"type": st.just(name)}, optional=members)


UNKNOWN = st.sampled_from(
    ["server_tool_use", "document", "web_search_tool_result", "redacted", "é"]
)
GENERIC = st.builds(
    lambda name, members: {**members, "type": name},
    UNKNOWN,
    st.dictionaries(
        st.sampled_from(
            ["content", "id", "data", "cache_control", "text", "is_error", "tool_use_id"]
        ),
        VALUES | OBJECTS | st.lists(OBJECTS, max_size=2),
        max_size=4,
    ),
)
ANTHROPIC_BLOCKS = st.one_of(
    kind("text", text=TEXT, citations=st.none(), cache_control=OBJECTS),
    kind("thinking", thinking=TEXT, signature=TEXT),
    kind("tool_use", id=TEXT, name=TEXT, input=OBJECTS, cache_control=OBJECTS),
    kind(
        "tool_result",
        tool_use_id=TEXT,
        is_error=st.booleans(),
        content=TEXT | st.lists(kind("text", text=TEXT) | kind("image", source=OBJECTS)),
    ),
    kind(
        "image",
        source=kind("base64", media_type=TEXT, data=TEXT)
        | kind("url", url=TEXT)
        | kind("file", file_id=TEXT),
    ),
    GENERIC,
)


def reduced(raw: dict[str, Any]) -> dict[str, Any]:
    """Return the block as a reducer of responses writes it."""
    match raw["type"]:
        case "text":
            return {"type": "text", "text": raw.get("text", "")}
        case "thinking":
            return {
                "type": "thinking",
                "thinking": raw.get("thinking"),
                "thinking_signature": raw.get("signature"),
            }
        case "tool_use":
            return {
                "type": "tool_use",
                "tool_use_id": raw.get("id"),
                "tool_name": raw.get("name"),
                "tool_input": raw.get("input"),
            }
        case "image" | "tool_result":
            return raw
        case other:
            return {"type": other, "content": raw}


def moved(raw: dict[str, Any]) -> dict[str, Any]:
    """Return the block as it is sent again: with another cache marker, and no signature."""
    kept = {k: v for k, v in raw.items() if k not in ("cache_control", "signature")}
    return {**kept, "cache_control": {"type": "ephemeral"}}


@given(st.lists(ANTHROPIC_BLOCKS, min_size=1, max_size=3))
def test_the_head_hashes_like_its_echo_anthropic(raw: list[dict[str, Any]]) -> None:
    echo = {"role": "assistant", "content": [moved(block) for block in raw]}
    again = address(PROVIDERS["anthropic"].parse_message(echo, "/request/messages/1"))
    assert address(parse_response(answer(*map(reduced, raw))).message) == again
    assert address(parse_response(answer(*raw)).message) == again


@given(st.lists(ANTHROPIC_BLOCKS, min_size=1, max_size=3))
def test_a_stored_message_read_as_a_response_is_the_same_message(raw: list[dict[str, Any]]) -> None:
    once = parse_response(answer(*map(reduced, raw))).message
    again = parse_response(answer(*once.content)).message
    assert again.content == once.content
