from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapes_cli.capture.decode import InexactNumberError
from tapes_cli.capture.providers import PROVIDERS
from tapes_cli.capture.providers.paths import is_provider_path, provider_for_path
from tapes_cli.capture.providers.response import parse_response
from tapes_cli.merkle.chain import node_hash
from tapes_cli.model.reasons import Reason
from tapes_cli.model.records import RejectError

if TYPE_CHECKING:
    from tapes_cli.model.blocks import ContentBlock, Message


def messages(provider: str, request: dict[str, Any]) -> list[Message]:
    reader = PROVIDERS[provider]
    return [
        reader.parse_message(raw, f"/request/messages/{index}")
        for index, raw in enumerate(reader.request_messages(request))
    ]


def content(provider: str, message: Any) -> list[ContentBlock]:
    [parsed] = messages(provider, {"messages": [message]})
    return parsed.content


def said(parsed: list[Message]) -> list[tuple[str, list[ContentBlock]]]:
    return [(message.role, message.content) for message in parsed]


def refused(provider: str, request: dict[str, Any]) -> str:
    with pytest.raises(RejectError) as caught:
        messages(provider, request)
    assert caught.value.reason is Reason.REQUEST_INVALID
    assert "secret" not in caught.value.message
    return caught.value.pointer


def test_providers_have_their_names() -> None:
    assert {name: provider.name for name, provider in PROVIDERS.items()} == {
        "anthropic": "anthropic",
        "openai": "openai",
        "ollama": "ollama",
        "gemini": "gemini",
    }


WITH_MESSAGES = sorted(PROVIDERS.keys() - {"gemini"})


@pytest.mark.parametrize("provider", WITH_MESSAGES)
@pytest.mark.parametrize(
    ("request_", "pointer"),
    [
        ({"model": 5}, "/request/model"),
        ({"messages": {}}, "/request/messages"),
        ({"messages": "secret"}, "/request/messages"),
        ({"messages": ["secret"]}, "/request/messages/0"),
        ({"messages": [{"role": "user"}, {"role": 5}]}, "/request/messages/1/role"),
        ({"stream": "secret"}, "/request/stream"),
    ],
)
def test_every_provider_refuses(provider: str, request_: dict[str, Any], pointer: str) -> None:
    assert refused(provider, request_) == pointer


@pytest.mark.parametrize(
    ("provider", "request_", "pointer"),
    [
        ("anthropic", {"max_tokens": 5.0}, "/request/max_tokens"),
        ("anthropic", {"max_tokens": True}, "/request/max_tokens"),
        ("anthropic", {"max_tokens": 2**63}, "/request/max_tokens"),
        ("anthropic", {"temperature": "secret"}, "/request/temperature"),
        ("anthropic", {"top_k": 1.5}, "/request/top_k"),
        ("anthropic", {"stop_sequences": "secret"}, "/request/stop_sequences"),
        ("anthropic", {"stop_sequences": ["a", 1]}, "/request/stop_sequences/1"),
        ("openai", {"seed": 1.5}, "/request/seed"),
        ("openai", {"response_format": []}, "/request/response_format"),
        ("openai", {"input": 5}, "/request/input"),
        ("openai", {"input": [{"type": 5}]}, "/request/input/0/type"),
        ("openai", {"input": ["secret", {"role": 5}]}, "/request/input/1/role"),
        ("openai", {"messages": [{"tool_calls": {}}]}, "/request/messages/0/tool_calls"),
        ("openai", {"messages": [{"tool_calls": [5]}]}, "/request/messages/0/tool_calls/0"),
        ("openai", {"messages": [{"tool_call_id": 5}]}, "/request/messages/0/tool_call_id"),
        (
            "openai",
            {"messages": [{"tool_calls": [{"function": {"arguments": {}}}]}]},
            "/request/messages/0/tool_calls/0/function/arguments",
        ),
        ("gemini", {"model": 5}, "/request/model"),
        ("gemini", {"contents": "secret"}, "/request/contents"),
        ("gemini", {"contents": ["secret"]}, "/request/messages/0"),
        ("gemini", {"contents": [{}, {"role": 5}]}, "/request/messages/1/role"),
        ("gemini", {"contents": [{"parts": "secret"}]}, "/request/messages/0/parts"),
        ("gemini", {"contents": [{"parts": ["secret"]}]}, "/request/messages/0/parts/0"),
        ("gemini", {"contents": {"parts": {"text": 5}}}, "/request/messages/0/parts/0/text"),
        (
            "gemini",
            {"contents": [{"parts": [{"text": "a", "thought_signature": 5}]}]},
            "/request/messages/0/parts/0/thoughtSignature",
        ),
        ("ollama", {"options": []}, "/request/options"),
        ("ollama", {"options": {"stop": [5]}}, "/request/options/stop/0"),
        ("ollama", {"keep_alive": True}, "/request/keep_alive"),
        ("ollama", {"format": 5}, "/request/format"),
        ("ollama", {"messages": [{"content": []}]}, "/request/messages/0/content"),
        ("ollama", {"messages": [{"images": [5]}]}, "/request/messages/0/images/0"),
        (
            "ollama",
            {"messages": [{"tool_calls": [{"function": {"arguments": []}}]}]},
            "/request/messages/0/tool_calls/0/function/arguments",
        ),
    ],
)
def test_a_provider_refuses(provider: str, request_: dict[str, Any], pointer: str) -> None:
    assert refused(provider, request_) == pointer


@pytest.mark.parametrize("provider", WITH_MESSAGES)
def test_null_is_as_good_as_absent(provider: str) -> None:
    absent = dict.fromkeys(("model", "messages", "stream", "max_tokens", "options", "input"))
    assert messages(provider, absent) == []
    assert PROVIDERS[provider].model(absent) == ""
    assert said(messages(provider, {"messages": [None]})) == [("", [])]


@pytest.mark.parametrize("provider", WITH_MESSAGES)
def test_good_requests_are_accepted(provider: str) -> None:
    request = {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": 2**63 - 1,
        "temperature": 1,
        "top_p": 0.5,
        "stream": False,
        "stop_sequences": ["a", None],
        "keep_alive": -1,
        "format": {"type": "object"},
        "options": {"num_ctx": 1, "stop": ["x"]},
        "tools": 5,
    }
    assert said(messages(provider, request)) == [("user", [{"type": "text", "text": "hi"}])]
    assert PROVIDERS[provider].model(request) == "m"


@pytest.mark.parametrize(
    ("raw", "parsed"),
    [
        ("hi", [{"type": "text", "text": "hi"}]),
        ("", [{"type": "text", "text": ""}]),
        (None, []),
        (5, []),
        ({"type": "text"}, []),
        (["a", None, 5, {"type": "text", "text": "x"}], [{"type": "text", "text": "x"}]),
    ],
)
def test_anthropic_content(raw: Any, parsed: list[ContentBlock]) -> None:
    assert content("anthropic", {"role": "user", "content": raw}) == parsed


IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "m", "data": "b"}}


@pytest.mark.parametrize(
    ("raw", "parsed"),
    [
        (
            {"type": "text", "text": 5, "cache_control": {"type": "ephemeral"}},
            {"type": "text", "text": ""},
        ),
        (IMAGE, {"type": "image", "media_type": "m", "image_base64": "b"}),
        (
            {"type": "image", "source": {"type": "url", "url": "u"}},
            {"type": "image", "image_url": "u"},
        ),
        (
            {"type": "image", "source": {"type": "file", "file_id": "f"}},
            {"type": "image", "content": {"type": "file", "file_id": "f"}},
        ),
        ({"type": "image", "source": "u"}, {"type": "image"}),
        (
            {"type": "tool_use", "id": "i", "name": "n", "input": {"a": None}},
            {"type": "tool_use", "tool_use_id": "i", "tool_name": "n", "tool_input": {"a": None}},
        ),
        ({"type": "tool_use", "id": 5, "input": [1]}, {"type": "tool_use", "content": [1]}),
        ({"type": "tool_use", "input": 0}, {"type": "tool_use", "content": 0}),
        ({"type": "tool_use", "input": {}}, {"type": "tool_use"}),
        (
            {"type": "tool_result", "tool_use_id": "i", "content": "o", "is_error": True},
            {"type": "tool_result", "tool_result_id": "i", "tool_output": "o", "is_error": True},
        ),
        (
            {"type": "tool_result", "content": [{"text": "a"}, {"type": "text", "text": "b"}]},
            {"type": "tool_result", "tool_output": "a\nb"},
        ),
        (
            {"type": "tool_result", "content": [{"type": "text", "text": "a"}, IMAGE]},
            {
                "type": "tool_result",
                "tool_output": "a",
                "content": [{"type": "text", "text": "a"}, IMAGE],
            },
        ),
        ({"type": "tool_result", "content": 5, "is_error": "x"}, {"type": "tool_result"}),
        (
            {"type": "thinking", "thinking": "t", "signature": "s"},
            {"type": "thinking", "thinking": "t", "thinking_signature": "s"},
        ),
        (
            {"text": "t", "id": "i", "name": "n", "input": {"a": 1}, "source": IMAGE["source"]},
            {
                "type": "",
                "text": "t",
                "media_type": "m",
                "image_base64": "b",
                "tool_use_id": "i",
                "tool_name": "n",
                "tool_input": {"a": 1},
            },
        ),
        (
            {
                "type": 5,
                "tool_use_id": "i",
                "content": [{"text": "o"}],
                "input": [1],
                "is_error": True,
            },
            {"type": "", "tool_result_id": "i", "tool_output": "o", "is_error": True},
        ),
        (
            {"type": "redacted_thinking", "data": "d", "cache_control": {}},
            {"type": "redacted_thinking", "content": {"data": "d"}},
        ),
        ({"type": "document", "content": "c"}, {"type": "document", "content": "c"}),
        (
            {"type": "x", "content": {"type": "x", "a": 1, "cache_control": {}}},
            {"type": "x", "content": {"a": 1}},
        ),
        ({"type": "x", "content": {"type": "y"}}, {"type": "x", "content": {"type": "y"}}),
    ],
)
def test_anthropic_blocks(raw: dict[str, Any], parsed: ContentBlock) -> None:
    assert content("anthropic", {"role": "user", "content": [raw]}) == [parsed]


@pytest.mark.parametrize(
    ("message", "parsed"),
    [
        ({"content": ""}, [{"type": "text", "text": ""}]),
        ({"content": 5}, []),
        (
            {"content": [{"type": "text", "text": "a"}, "b", {"text": "c"}]},
            [{"type": "text", "text": "a"}, {"type": "", "text": "c"}],
        ),
        (
            {"content": [{"type": "image_url", "image_url": {"url": "u", "detail": "low"}}]},
            [{"type": "image", "image_url": "u"}],
        ),
        (
            {"content": [{"type": "image_url", "image_url": "u"}]},
            [{"type": "image", "image_url": "u"}],
        ),
        (
            {"content": [{"type": "input_audio", "input_audio": {"data": "d"}}]},
            [{"type": "input_audio", "content": {"input_audio": {"data": "d"}}}],
        ),
        ({"content": None, "refusal": "no"}, [{"type": "refusal", "content": "no"}]),
        (
            {"content": [{"type": "refusal", "refusal": "no"}]},
            [{"type": "refusal", "content": "no"}],
        ),
        (
            {
                "role": "tool",
                "tool_call_id": "i",
                "content": [{"type": "text", "text": "a"}, {"text": "b"}],
            },
            [{"type": "tool_result", "tool_result_id": "i", "tool_output": "a\nb"}],
        ),
        (
            {"role": "tool", "tool_call_id": "i", "content": None},
            [{"type": "tool_result", "tool_result_id": "i"}],
        ),
        ({"role": "tool", "content": "o"}, [{"type": "text", "text": "o"}]),
        (
            {"tool_calls": [{"id": "i", "type": "custom", "custom": {"name": "n", "input": "x"}}]},
            [{"type": "custom", "content": {"id": "i", "custom": {"name": "n", "input": "x"}}}],
        ),
        ({"type": "message", "content": "a"}, [{"type": "text", "text": "a"}]),
        ({"type": "human", "role": "user", "content": "a"}, [{"type": "text", "text": "a"}]),
    ],
)
def test_chat_messages(message: dict[str, Any], parsed: list[ContentBlock]) -> None:
    assert content("openai", {"role": "user", **message}) == parsed


@pytest.mark.parametrize(
    ("arguments", "fields"),
    [
        ('{"a": 1}', {"tool_input": {"a": 1}}),
        ("{}", {}),
        ("null", {}),
        ("", {}),
        ("[1]", {"content": "[1]"}),
        ("5", {"content": "5"}),
        ('{"a": 1', {"content": '{"a": 1'}),
        ('{"a": 1e400}', {"content": '{"a": 1e400}'}),
        ('{"a": NaN}', {"content": '{"a": NaN}'}),
        ('{"a": 123456789012345678901}', {"tool_input": {"a": 123456789012345678901}}),
        ('{"a": "\ud800"}', {"tool_input": {"a": "\ufffd"}}),
        ("[" * 2000, {"content": "[" * 2000}),
    ],
)
def test_arguments(arguments: str, fields: dict[str, Any]) -> None:
    call = {"id": "i", "type": "function", "function": {"name": "n", "arguments": arguments}}
    expected = {"type": "tool_use", "tool_use_id": "i", "tool_name": "n", **fields}
    assert content("openai", {"role": "assistant", "tool_calls": [call]}) == [expected]


def test_a_tool_call_may_be_empty() -> None:
    empty = [{"type": "tool_use"}]
    assert content("openai", {"role": "assistant", "tool_calls": [None]}) == empty
    assert content("ollama", {"role": "assistant", "tool_calls": [None]}) == empty


def test_text_comes_before_calls() -> None:
    call = {"id": "i", "function": {"name": "n", "arguments": "{}"}}
    message = {"role": "assistant", "content": "a", "tool_calls": [call]}
    assert [block["type"] for block in content("openai", message)] == ["text", "tool_use"]


REASONING = {
    "type": "reasoning",
    "id": "r",
    "summary": [{"type": "summary_text", "text": "a"}, {"type": "summary_text", "text": "b"}],
    "encrypted_content": "e",
}
CALL = {"type": "function_call", "call_id": "c", "name": "f", "arguments": '{"a":1}'}
CUSTOM_CALL = {"type": "custom_tool_call", "call_id": "d", "name": "exec", "input": "ls"}


def test_the_items_of_a_responses_request() -> None:
    request = {
        "input": [
            {"type": "additional_tools", "role": "developer", "tools": [1]},
            {"role": "user", "content": "hi"},
            REASONING,
            {
                "type": "message",
                "role": "assistant",
                "content": [{"type": "output_text", "text": "t"}],
            },
            CALL,
            CUSTOM_CALL,
            {"type": "function_call_output", "call_id": "c", "output": {"b": 1, "a": [2.0]}},
            {
                "type": "custom_tool_call_output",
                "call_id": "d",
                "output": [
                    {"type": "input_text", "text": "x"},
                    {"type": "input_text", "text": "y"},
                ],
            },
            "passed over",
            {"type": "agent_message", "author": "/root", "content": [{"text": "go"}]},
            {"type": "web_search_call", "id": "w", "status": "completed", "action": {"q": "x"}},
        ]
    }
    assert said(messages("openai", request)) == [
        (
            "developer",
            [{"type": "additional_tools", "content": {"role": "developer", "tools": [1]}}],
        ),
        ("user", [{"type": "text", "text": "hi"}]),
        (
            "assistant",
            [
                {"type": "thinking", "thinking": "a\nb", "thinking_signature": "e"},
                {"type": "text", "text": "t"},
                {
                    "type": "tool_use",
                    "tool_use_id": "c",
                    "tool_name": "f",
                    "tool_input": {"a": 1},
                },
                {
                    "type": "custom_tool_call",
                    "content": {"call_id": "d", "name": "exec", "input": "ls"},
                },
            ],
        ),
        (
            "tool",
            [{"type": "tool_result", "tool_result_id": "c", "tool_output": '{"a":[2],"b":1}'}],
        ),
        ("tool", [{"type": "tool_result", "tool_result_id": "d", "tool_output": "x\ny"}]),
        (
            "user",
            [
                {
                    "type": "agent_message",
                    "content": {"author": "/root", "content": [{"text": "go"}]},
                }
            ],
        ),
        (
            "assistant",
            [{"type": "web_search_call", "content": {"id": "w", "action": {"q": "x"}}}],
        ),
    ]


@pytest.mark.parametrize(
    ("item", "parsed"),
    [
        (
            {
                "type": "message",
                "role": "user",
                "content": [{"type": "input_image", "image_url": "u"}],
            },
            [{"type": "image", "image_url": "u"}],
        ),
        (
            {
                "type": "message",
                "role": "user",
                "content": [{"type": "input_image", "file_id": "f"}],
            },
            [{"type": "image", "content": "f"}],
        ),
        (
            {"type": "reasoning", "content": [{"text": "t"}]},
            [{"type": "thinking", "thinking": "t"}],
        ),
        ({"type": "reasoning"}, [{"type": "thinking"}]),
        (
            {"type": "function_call_output", "call_id": "c", "output": "o"},
            [{"type": "tool_result", "tool_result_id": "c", "tool_output": "o"}],
        ),
    ],
)
def test_items(item: dict[str, Any], parsed: list[ContentBlock]) -> None:
    [message] = messages("openai", {"input": [item]})
    assert message.content == parsed


def test_input_that_is_text() -> None:
    assert said(messages("openai", {"messages": [], "input": "hi"})) == [
        ("user", [{"type": "text", "text": "hi"}])
    ]
    assert said(messages("openai", {"messages": [{"role": "a"}], "input": "hi"})) == [("a", [])]


@pytest.mark.parametrize(
    ("message", "parsed"),
    [
        ({"content": "hi"}, [{"type": "text", "text": "hi"}]),
        ({"content": None}, []),
        ({"content": ""}, []),
        (
            {"content": "a", "thinking": "t", "images": ["b"]},
            [
                {"type": "thinking", "thinking": "t"},
                {"type": "text", "text": "a"},
                {"type": "image", "image_base64": "b"},
            ],
        ),
        (
            {"tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}]},
            [{"type": "tool_use", "tool_name": "f", "tool_input": {"a": 1}}],
        ),
        (
            {"tool_calls": [{"id": "i", "function": {"name": "f", "arguments": "{broken"}}]},
            [{"type": "tool_use", "tool_use_id": "i", "tool_name": "f", "content": "{broken"}],
        ),
        ({"role": "tool", "content": "o", "tool_name": "f"}, [{"type": "text", "text": "o"}]),
    ],
)
def test_ollama_messages(message: dict[str, Any], parsed: list[ContentBlock]) -> None:
    assert content("ollama", {"role": "user", **message}) == parsed


def parts(*raw: Any) -> list[ContentBlock]:
    [parsed] = messages("gemini", {"contents": [{"role": "user", "parts": [*raw]}]})
    return parsed.content


@pytest.mark.parametrize(
    ("part", "parsed"),
    [
        ({"text": "a", "unheard_of": {"b": 1}}, {"type": "text", "text": "a"}),
        ({"text": "a", "thought": True}, {"type": "thinking", "thinking": "a"}),
        (
            {"inlineData": {"mimeType": "image/png", "data": "b"}},
            {"type": "image", "media_type": "image/png", "image_base64": "b"},
        ),
        (
            {"inline_data": {"mime_type": "image/png", "data": "b", "display_name": "n"}},
            {
                "type": "image",
                "media_type": "image/png",
                "image_base64": "b",
                "content": {"displayName": "n"},
            },
        ),
        (
            {"inlineData": {"mimeType": "audio/wav", "data": "b"}},
            {"type": "inlineData", "content": {"mimeType": "audio/wav", "data": "b"}},
        ),
        (
            {"file_data": {"mime_type": "image/png", "file_uri": "u"}},
            {"type": "image", "media_type": "image/png", "image_url": "u"},
        ),
        (
            {"fileData": {"fileUri": "u"}, "video_metadata": {"fps": 1}},
            {
                "type": "fileData",
                "content": {"fileData": {"fileUri": "u"}, "videoMetadata": {"fps": 1}},
            },
        ),
        (
            {"functionCall": {"id": "i", "name": "f", "args": {"snake_case": 1}}},
            {
                "type": "tool_use",
                "tool_use_id": "i",
                "tool_name": "f",
                "tool_input": {"snake_case": 1},
            },
        ),
        (
            {"function_call": {"name": "f", "args": None}, "thought_signature": "s"},
            {"type": "tool_use", "tool_name": "f", "thinking_signature": "s"},
        ),
        (
            {"functionCall": {"name": "f", "args": {"a": 1}, "willContinue": True}},
            {
                "type": "tool_use",
                "tool_name": "f",
                "tool_input": {"a": 1},
                "content": {"willContinue": True},
            },
        ),
        (
            {"functionResponse": {"name": "f", "response": {"b": 1, "a": [2.0]}}},
            {"type": "tool_result", "tool_result_id": "f", "tool_output": '{"a":[2],"b":1}'},
        ),
        (
            {"function_response": {"id": "i", "name": "f", "response": {"error": "no"}}},
            {
                "type": "tool_result",
                "tool_result_id": "i",
                "tool_output": '{"error":"no"}',
                "is_error": True,
            },
        ),
        (
            {"executable_code": {"language": "PYTHON", "code": "1"}},
            {"type": "executableCode", "content": {"language": "PYTHON", "code": "1"}},
        ),
        ({"image": {"a": 1}}, {"type": "part", "content": {"image": {"a": 1}}}),
        ({"functionCall": "f"}, {"type": "functionCall", "content": "f"}),
    ],
)
def test_gemini_parts(part: dict[str, Any], parsed: ContentBlock) -> None:
    assert parts(part) == [parsed]


@pytest.mark.parametrize(
    ("raw", "parsed"),
    [
        ([], []),
        ([{}], [{"type": "text", "text": ""}]),
        ([{"text": ""}], [{"type": "text", "text": ""}]),
        (
            [{"text": "a"}, {"text": ""}, {"text": "b", "thought": False}],
            [{"type": "text", "text": "ab"}],
        ),
        (
            [{"text": "\ud83d"}, {"text": "\ude00"}],
            [{"type": "text", "text": "\U0001f600"}],
        ),
        (
            [{"text": "a", "thought": True}, {"text": "b"}, {"text": "c", "thought": True}],
            [
                {"type": "thinking", "thinking": "a"},
                {"type": "text", "text": "b"},
                {"type": "thinking", "thinking": "c"},
            ],
        ),
        (
            [{"functionCall": {"name": "f"}}, {"text": ""}, {"thoughtSignature": "s"}],
            [{"type": "tool_use", "tool_name": "f", "thinking_signature": "s"}],
        ),
        (
            [{"text": "", "thoughtSignature": "s"}],
            [{"type": "text", "text": "", "thinking_signature": "s"}],
        ),
    ],
)
def test_gemini_messages(raw: list[Any], parsed: list[ContentBlock]) -> None:
    assert parts(*raw) == parsed


def test_a_gemini_request() -> None:
    single = {"model": "m", "contents": {"parts": {"text": "hi"}}, "messages": [{"role": "x"}]}
    assert said(messages("gemini", single)) == [("user", [{"type": "text", "text": "hi"}])]
    assert PROVIDERS["gemini"].model(single) == "m"
    assert said(messages("gemini", {"contents": [None, {"role": "model"}]})) == [
        ("user", []),
        ("model", []),
    ]
    assert messages("gemini", {"model": None, "contents": None}) == []


CAMEL = {
    "inlineData": "inline_data",
    "mimeType": "mime_type",
    "functionResponse": "function_response",
    "thoughtSignature": "thought_signature",
    "executableCode": "executable_code",
}


def test_both_spellings_of_gemini_hash_alike() -> None:
    raw = [
        {"text": "a", "thoughtSignature": "s"},
        {"inlineData": {"mimeType": "image/png", "data": "b"}},
        {"inlineData": {"mimeType": "audio/wav", "data": "b"}},
        {"functionResponse": {"name": "f", "response": {"mimeType": 1}}},
        {"executableCode": {"code": "1"}},
    ]

    def snake(value: Any, levels: int) -> Any:
        if not isinstance(value, dict) or not levels:
            return value
        return {CAMEL.get(k, k): snake(v, levels - 1) for k, v in value.items()}

    assert parts(*(snake(part, 2) for part in raw)) == parts(*raw)


@pytest.mark.parametrize(
    ("path", "name", "model"),
    [
        ("/v1/messages", "anthropic", ""),
        ("/local-gw/anthropic/v1/messages?beta=true", "anthropic", ""),
        ("https://api.anthropic.com/v1/messages/#x", "anthropic", ""),
        ("/v1/messages/v1/messages", "anthropic", ""),
        ("/v1/chat/completions", "openai", ""),
        ("/openai/deployments/x/chat/completions?api-version=1", "openai", ""),
        ("/gw/v1/responses", "openai", ""),
        ("/local-gw/codex/responses", "openai", ""),
        ("/api/chat", "ollama", ""),
        ("/v1beta/models/gemini-2.5-pro:generateContent", "gemini", "gemini-2.5-pro"),
        (
            "/v1/projects/p/locations/l/publishers/google/models/g-1%3AstreamGenerateContent?alt=sse",
            "gemini",
            "g-1",
        ),
        ("/v1beta/models/a%20b:generateContent", "gemini", "a b"),
    ],
)
def test_the_provider_of_a_path(path: str, name: str, model: str) -> None:
    assert provider_for_path(path) == (PROVIDERS[name], model)
    assert is_provider_path(path)


@pytest.mark.parametrize(
    ("path", "known"),
    [
        ("/v1/messages/count_tokens", True),
        ("/v1/messages/batches", True),
        ("/v1/models", True),
        ("/v1/models/x", True),
        ("/gw/v1/embeddings?x=/v1/messages", True),
        ("/v1/responses/resp_1", True),
        ("/v1/chat/completions/c_1", True),
        ("/codex/models", True),
        ("/api/tags", True),
        ("/api/generate", True),
        ("/v1beta/models", True),
        ("/v1beta/models/g:countTokens", True),
        ("/v1/projects/p/publishers/google/models/g:countTokens", True),
        ("/v1/messagesx", False),
        ("/xv1/messages", False),
        ("/api/event_logging/batch", False),
        ("/", False),
        ("", False),
        ("/search?q=/v1/messages", False),
    ],
)
def test_a_path_that_is_no_turn(path: str, known: bool) -> None:  # noqa: FBT001  # a parameter
    assert provider_for_path(path) is None
    assert is_provider_path(path) is known


LARGE = {"a": [1, {"b": -(2.0**63)}]}


@pytest.mark.parametrize(
    ("provider", "message"),
    [
        ("anthropic", {"content": [{"type": "tool_use", "input": LARGE}]}),
        ("anthropic", {"content": [{"type": "tool_use", "input": [LARGE]}]}),
        ("anthropic", {"content": [{"type": "document", "source": LARGE}]}),
        ("anthropic", {"content": [{"input": LARGE}]}),
        ("anthropic", {"content": [{"type": "tool_result", "content": [LARGE]}]}),
        ("openai", {"content": [{"type": "x", "content": LARGE}]}),
        ("openai", {"type": "function_call_output", "output": LARGE}),
        ("ollama", {"tool_calls": [{"function": {"arguments": LARGE}}]}),
        ("gemini", {"parts": [{"functionCall": {"name": "f", "args": LARGE}}]}),
        ("gemini", {"parts": [{"functionResponse": {"name": "f", "response": LARGE}}]}),
        ("gemini", {"parts": [{"unheardOf": LARGE}]}),
    ],
)
def test_a_number_that_may_be_rounded_is_not_kept(provider: str, message: dict[str, Any]) -> None:
    name = "contents" if provider == "gemini" else "messages"
    with pytest.raises(InexactNumberError):
        messages(provider, {name: [message]})


def test_a_number_that_is_not_kept_may_be_rounded() -> None:
    block = {"type": "text", "text": "x", "cache_control": LARGE}
    assert content("anthropic", {"content": [block]}) == [{"type": "text", "text": "x"}]


TEXT = st.text(" ab\n", max_size=5)
ARGUMENTS = st.dictionaries(TEXT, st.none() | st.integers() | TEXT, max_size=3).map(json.dumps)
CALLS = st.lists(st.tuples(TEXT, TEXT, ARGUMENTS | TEXT | st.just('{"a":')), max_size=2)


def address(message: Message) -> str:
    return node_hash("", message.role, message.content)


def response_address(blocks: list[dict[str, Any]]) -> str:
    return address(parse_response({"message": {"role": "assistant", "content": blocks}}).message)


def reduced_call(call_id: str, name: str, arguments: str) -> dict[str, Any]:
    """Return a tool call as a reducer writes it: arguments that do not parse are kept as text."""
    block: dict[str, Any] = {"type": "tool_use", "tool_use_id": call_id, "tool_name": name}
    try:
        parsed = json.loads(arguments)
    except ValueError:
        parsed = arguments
    if isinstance(parsed, dict):
        return {**block, "tool_input": parsed}
    return block if parsed is None else {**block, "content": arguments}


@given(st.none() | TEXT, TEXT, CALLS)
def test_the_head_hashes_like_its_echo_chat(
    text: str | None, refusal: str, calls: list[tuple[str, str, str]]
) -> None:
    blocks = [] if text is None else [{"type": "text", "text": text}]
    blocks += [{"type": "refusal", "content": refusal}] if refusal else []
    blocks += [reduced_call(*call) for call in calls]
    echo = {
        "role": "assistant",
        "content": text,
        "refusal": refusal or None,
        "tool_calls": [
            {"id": i, "type": "function", "function": {"name": name, "arguments": arguments}}
            for i, name, arguments in calls
        ],
    }
    if blocks:
        [again] = messages("openai", {"messages": [echo]})
        assert response_address(blocks) == address(again)


@given(st.lists(TEXT, max_size=2), TEXT, CALLS, st.booleans())
def test_the_head_hashes_like_its_echo_responses(
    summary: list[str],
    text: str,
    calls: list[tuple[str, str, str]],
    sent_back: bool,  # noqa: FBT001  # given by hypothesis
) -> None:
    """A response of several items is one message, also when a harness drops what is around it."""
    around = {"id": "1", "status": "completed"} if sent_back else {}
    custom = {"type": "custom_tool_call", "call_id": "c", "name": "exec", "input": text}
    search = {"type": "web_search_call", "id": "w", "action": {"query": text}}
    blocks = [
        {"type": "thinking", "thinking": "\n".join(summary), "thinking_signature": "s"},
        {"type": "text", "text": text},
        *(reduced_call(*call) for call in calls),
        {
            "type": "custom_tool_call",
            "content": {**custom, "id": "1", "status": "completed", "metadata": {"turn_id": "t"}},
        },
        {"type": "web_search_call", "content": {**search, "status": "completed"}},
    ]
    items = [
        {"role": "user", "content": "hi"},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": s} for s in summary]},
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": text}],
        },
        *(
            {"type": "function_call", **around, "call_id": i, "name": name, "arguments": arguments}
            for i, name, arguments in calls
        ),
        {**custom, **around},
        search,
        {"type": "function_call_output", "call_id": "c", "output": "x"},
    ]
    question, again, output = messages("openai", {"input": items})
    assert (question.role, output.role) == ("user", "tool")
    assert response_address(blocks) == address(again)
