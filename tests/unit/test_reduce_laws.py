"""What holds for every provider, whatever it says and however it says it."""

from __future__ import annotations

import json
import re
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapes_cli.capture.decode import check_nesting
from tapes_cli.capture.providers import PROVIDERS
from tapes_cli.capture.providers.response import ParsedResponse, parse_response
from tapes_cli.merkle.chain import node_hash
from tapes_cli.model.reasons import Reason
from tapes_cli.model.records import RejectError
from tapes_cli.model.turn import Usage
from tests.support.provider_bodies import APIS, Answer, echo, provider_of, stream, whole

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from tapes_cli.model.blocks import ContentBlock, Message

Read = TypeVar("Read")
REASONS = {Reason.RESPONSE_DECODE, Reason.EMPTY_RESPONSE, Reason.REDUCER_ERROR}


def address(message: Message) -> str:
    return node_hash("", message.role, message.content)


def reduced(api: str, body: bytes) -> dict[str, Any]:
    return PROVIDERS[provider_of(api)].reduce(body)


def parsed(api: str, body: bytes) -> ParsedResponse:
    return parse_response(reduced(api, body))


def echoed(api: str, message: list[ContentBlock]) -> Message:
    provider = PROVIDERS[provider_of(api)]
    request = echo(api, message)
    # Decoded as a reader does, with what of it cannot be a double kept exact.
    [raw] = provider.request_messages(json.loads(json.dumps(request)))
    return provider.parse_message(raw, "")


TEXT = st.text(
    st.sampled_from(' ab<>{}"\\\n\r\t\u2028\u2029\x85é\U0001f600\U0010ffff\x00\x1c'), max_size=9
)
SAID = TEXT.filter(bool)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(-1e9, 1e9) | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=5,
)
INPUTS = st.dictionaries(TEXT, VALUES | st.just(2**70 + 1), max_size=3)


def block(kind: str, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries({"type": st.just(kind), **fields})


TEXT_BLOCK = block("text", text=SAID)
THINKING = block("thinking", thinking=SAID)
CALL = block("tool_use", tool_use_id=SAID, tool_name=SAID, tool_input=INPUTS)
BROKEN_CALL = block("tool_use", tool_use_id=SAID, tool_name=SAID, content=st.just('{"a": "x'))
REFUSAL = block("refusal", content=SAID)


def own(*kinds: str, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    content = st.fixed_dictionaries(fields)
    return st.fixed_dictionaries({"type": st.sampled_from(kinds), "content": content})


def optional(*parts: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    """Give messages that have some of the blocks, in this order, and calls at their end."""
    return st.tuples(
        *(st.lists(part, max_size=1) for part in parts), st.lists(CALL | BROKEN_CALL, max_size=2)
    ).map(lambda lists: [found for listed in lists for found in listed])


MESSAGES = {
    "anthropic": st.lists(
        TEXT_BLOCK
        | THINKING
        | CALL
        | own("server_tool_use", id=SAID, name=SAID, input=INPUTS)
        | own("redacted_thinking", data=SAID)
        | own("web_search_tool_result", tool_use_id=SAID, content=st.lists(INPUTS, max_size=2))
        | own("unheard_of", value=VALUES),
        max_size=4,
    ),
    "openai": optional(TEXT_BLOCK, REFUSAL),
    "openai-responses": st.lists(
        TEXT_BLOCK
        | REFUSAL
        | THINKING
        | block("thinking")
        | CALL
        | BROKEN_CALL
        | own("custom_tool_call", call_id=SAID, name=SAID, input=TEXT)
        | own("web_search_call", id=SAID, action=INPUTS),
        max_size=4,
    ),
    "ollama": optional(THINKING, TEXT_BLOCK).filter(
        lambda found: not any("content" in block for block in found)
    ),
    "gemini": st.lists(
        TEXT_BLOCK
        | THINKING
        | CALL
        | own("executableCode", language=SAID, code=TEXT)
        | own("inlineData", mimeType=st.sampled_from(["image/png", "audio/wav"]), data=SAID)
        | own("unheardOf", value=VALUES),
        max_size=4,
    ),
}
COUNTS = st.integers(0, 2**53)
USAGE = st.builds(
    lambda prompt, completion, cached: Usage(
        prompt_tokens=prompt + cached,
        completion_tokens=completion,
        total_tokens=prompt + completion + cached,
        cache_read_input_tokens=cached or None,
    ),
    COUNTS,
    COUNTS,
    COUNTS,
)


def cut(random_: random.Random) -> Callable[[str], list[str]]:
    """Return what cuts texts anywhere, also between the halves of a character."""

    def split(text: str) -> list[str]:
        data = text.encode("utf-16-le", "surrogatepass")
        ends = sorted({*random_.choices(range(len(data) // 2 + 1), k=3), len(data) // 2})
        starts = [0, *ends]
        return [
            data[2 * start : 2 * end].decode("utf-16-le", "surrogatepass")
            for start, end in zip(starts, ends, strict=False)
        ]

    return split


def refused(attempt: Callable[[], Read]) -> RejectError | Read:
    try:
        return attempt()
    except RejectError as error:
        return error


RANDOMLY = st.randoms(use_true_random=False)


@pytest.mark.parametrize("api", APIS)
@given(data=st.data(), randomly=RANDOMLY)
def test_a_response_is_the_same_whole_streamed_and_sent_back(
    api: str, data: st.DataObject, randomly: random.Random
) -> None:
    message = data.draw(MESSAGES[api].filter(bool))
    usage = data.draw(USAGE)
    if api == "ollama":
        usage = Usage(usage.prompt_tokens, usage.completion_tokens, usage.total_tokens)
    answer = Answer(usage=usage)
    once = parsed(api, whole(api, message, answer))
    streamed = parsed(api, stream(api, message, answer, cut(randomly)))
    assert streamed.message.content == once.message.content
    assert address(streamed.message) == address(once.message) == address(echoed(api, message))
    assert streamed.usage == once.usage == usage
    assert (once.model, once.stop_reason) == (answer.model, answer.reason(api))
    assert (streamed.model, streamed.stop_reason) == (once.model, once.stop_reason)


@pytest.mark.parametrize("api", APIS)
@given(data=st.data(), randomly=RANDOMLY)
def test_what_a_response_says_is_kept(
    api: str, data: st.DataObject, randomly: random.Random
) -> None:
    """Not only alike: the words and the numbers are those that were said."""
    message = data.draw(MESSAGES[api].filter(bool))
    content = parsed(api, stream(api, message, split=cut(randomly))).message.content

    def words(field: str, blocks: list[Any]) -> str:
        return "".join(block.get(field, "") for block in blocks)

    for field in ("text", "thinking", "tool_use_id", "tool_name"):
        assert words(field, content) == words(field, message)
    said = [block["tool_input"] for block in message if block.get("tool_input")]
    assert [block["tool_input"] for block in content if "tool_input" in block] == said


@pytest.mark.parametrize("api", APIS)
@given(data=st.data(), randomly=RANDOMLY)
def test_a_stream_cut_short_gives_a_beginning(
    api: str, data: st.DataObject, randomly: random.Random
) -> None:
    message = data.draw(MESSAGES[api].filter(bool))
    body = stream(api, message, split=cut(randomly))
    complete = "".join(b.get("text", "") for b in parsed(api, body).message.content)
    piece = body[: data.draw(st.integers(0, len(body) - 1))]
    found = refused(lambda: reduced(api, piece))
    if isinstance(found, RejectError):
        assert found.reason in REASONS
        return
    assert found["done"] is not found.get("extra", {}).get("incomplete", False)
    text = "".join(b.get("text", "") for b in parse_response(found).message.content)
    # Half a character may stand at the end.
    assert complete.startswith(re.sub("[\ud800-\udfff]$", "", text))


@pytest.mark.parametrize("api", APIS)
def test_a_cut_before_the_end_is_told(api: str) -> None:
    message: list[ContentBlock] = [{"type": "text", "text": "a long answer"}]
    body = stream(api, message)
    found = reduced(api, body[: body.index(b'" an"')])
    assert (found["done"], found["extra"]["incomplete"]) == (False, True)
    assert found["message"]["content"] == [{"type": "text", "text": "a long"}]
    complete = reduced(api, body)
    assert complete["done"] is True
    assert "incomplete" not in complete.get("extra", {})


@st.composite
def damaged(draw: st.DrawFn, api: str) -> bytes:
    """Give bodies with bytes and values changed, cut, doubled and glued together."""
    message = draw(MESSAGES[api])
    body = draw(st.sampled_from([whole, stream]))(api, message)
    kind = draw(st.sampled_from(["bytes", "value", "cut", "glue"]))
    if kind == "bytes":
        return bytes(draw(st.lists(st.sampled_from(body) | st.integers(0, 255), max_size=40)))
    start, end = sorted(draw(st.tuples(*[st.integers(0, len(body))] * 2)))
    if kind == "cut":
        return body[:start] + body[end:]
    if kind == "glue":
        return body[start:] + draw(st.sampled_from([b"", b"\n", b"\r", b","])) + body[:end]
    # A value of another type in the place of one that is there.
    other = draw(st.sampled_from(["null", "5", "1e300", "-1", '"x"', "[]", "[{}]", "{}", "true"]))
    places = [found for found in range(len(body) - 1) if body[found : found + 2] == b": "]
    place = draw(st.sampled_from(places)) + 2
    try:
        _, length = json.JSONDecoder().raw_decode(body[place:].decode())
    except ValueError:
        length = 0
    return body[:place] + other.encode() + body[place + length :]


@pytest.mark.parametrize("api", APIS)
@settings(max_examples=250)
@given(data=st.data())
def test_nothing_but_rejects_comes_of_damage(api: str, data: st.DataObject) -> None:
    body = data.draw(damaged(api))
    reader = data.draw(st.sampled_from(sorted(PROVIDERS)))
    kind = data.draw(st.sampled_from(["", "text/event-stream"]))
    for name in {provider_of(api), reader}:
        found = refused(partial(PROVIDERS[name].reduce, body, kind))
        if isinstance(found, RejectError):
            assert found.reason in REASONS
            assert found.pointer == ""
            continue
        check_nesting(found, 1, "/response")
        read = refused(partial(parse_response, found))
        # The one thing that a block may leave out.
        assert not isinstance(read, RejectError) or read.reason is Reason.BLOCK_TYPE_MISSING


@pytest.mark.parametrize("name", sorted(PROVIDERS))
@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", Reason.EMPTY_RESPONSE),
        (b"\xef\xbb\xbf \r\n", Reason.EMPTY_RESPONSE),
        (b": keep alive\n\n", Reason.EMPTY_RESPONSE),
        (b"data: [DONE]\n\n", Reason.EMPTY_RESPONSE),
        (b"[]", Reason.EMPTY_RESPONSE),
        (b"<html>Bad gateway</html>", Reason.RESPONSE_DECODE),
        (b"\x1f\x8b\x08\x00", Reason.RESPONSE_DECODE),
        (b'{"a": "', Reason.RESPONSE_DECODE),
        (b"data: nothing\n\n", Reason.RESPONSE_DECODE),
        (b"data: 5\n\ndata: [1]\n\n", Reason.RESPONSE_DECODE),
        (b"[5, 6", Reason.RESPONSE_DECODE),
        (b"[" * 100_000, Reason.RESPONSE_DECODE),
        (b'{"a":' * 100_000, Reason.RESPONSE_DECODE),
        (b'{"error": {"message": "secret", "code": 5}}', Reason.REDUCER_ERROR),
        (b'data: {"error": {"message": "secret"}}\n\n', Reason.REDUCER_ERROR),
    ],
)
def test_what_is_no_response(name: str, body: bytes, reason: Reason) -> None:
    if name == "anthropic":
        body = body.replace(b'{"error"', b'{"type": "error", "error"')
    with pytest.raises(RejectError) as caught:
        PROVIDERS[name].reduce(body)
    assert (caught.value.reason, caught.value.pointer) == (reason, "")
    assert "secret" not in caught.value.message


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_the_ends_of_lines(api: str, end: bytes) -> None:
    message: list[ContentBlock] = [{"type": "text", "text": "a\u2028b\x85c\r\nd"}]
    body = stream(api, message)
    raw = body.decode().encode().replace(b"\\u2028", "\u2028".encode())
    found = reduced(api, b"\xef\xbb\xbf" + raw.replace(b"\n", end))
    assert found == reduced(api, body)


@pytest.mark.parametrize("api", sorted({*APIS} - {"ollama"}))
def test_an_event_that_cannot_be_read_is_passed_over_and_told(api: str) -> None:
    message: list[ContentBlock] = [{"type": "text", "text": "hello"}]
    body = stream(api, message)
    first, rest = body.split(b"\n\n", 1)
    found = reduced(api, first + b'\n\ndata: {"broken\n\ndata: 5\n\n' + rest)
    assert found["extra"].pop("unreadable_events") == 2
    assert found == reduced(api, body)


@pytest.mark.parametrize("api", sorted({*APIS} - {"ollama"}))
def test_data_on_several_lines(api: str) -> None:
    message: list[ContentBlock] = [{"type": "text", "text": "hello"}]
    body = stream(api, message)
    several = body.replace(b"data: {", b": note\nid: 7\ndata: {\ndata:   ")
    assert reduced(api, several) == reduced(api, body)
