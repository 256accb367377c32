"""OpenAI's chat completions: the messages of requests, and the responses, whole and streamed."""

from __future__ import annotations

from dataclasses import dataclass, field
from operator import itemgetter
from typing import TYPE_CHECKING

from tapes_cli.capture.providers import blocks
from tapes_cli.capture.providers.base import check_fields, objects_in, role_of
from tapes_cli.capture.providers.openai_parts import MESSAGE_FIELDS, content_blocks
from tapes_cli.capture.providers.reduction import (
    Reduction,
    Said,
    count,
    joined,
    kept,
    member,
    no_message,
    objects,
    place,
    unix_time,
    usage,
)
from tapes_cli.model.blocks import ContentBlock, Message

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tapes_cli.model.json import JSON, JSONObject

_CALL_FIELDS = {"id": "a string", "type": "a string", "function": "an object"}
_FUNCTION_FIELDS = {"name": "a string", "arguments": "a string"}
_TEXTS = ("content", "refusal")
# Not of OpenAI's own. Kept beside the message: most harnesses do not send it back.
_REASONING = ("reasoning_content", "reasoning")
# What a call is of, with the field that is streamed.
_CALLED = {"function": "arguments", "custom": "input"}


def chat_message(message: JSONObject, pointer: str) -> Message:
    """Return a message: text, refusal, calls, in this order. See `Provider.parse_message`."""
    check_fields(message, pointer, MESSAGE_FIELDS)
    role = role_of(message, pointer)
    calls = [_tool_call(call, where) for call, where in objects_in(message, "tool_calls", pointer)]
    if role == "tool" and message.get("tool_call_id"):
        result = blocks.tool_result_block(message["tool_call_id"], message.get("content"))
        return Message(role, [result])
    parsed = content_blocks(message.get("content"))
    if refusal := blocks.string(message.get("refusal")):
        parsed.append(blocks.compact(type="refusal", content=refusal))
    return Message(role, parsed + calls)


def _tool_call(call: JSONObject, pointer: str) -> ContentBlock:
    check_fields(call, pointer, _CALL_FIELDS)
    if call.get("function") is None and call.get("type", "function") != "function":
        # A custom tool, whose input is free text.
        return blocks.generic_block(call["type"], call)
    function = call.get("function") or {}
    check_fields(function, f"{pointer}/function", _FUNCTION_FIELDS)
    arguments = blocks.parsed_arguments(function.get("arguments") or "")
    return blocks.tool_use_block(call.get("id"), function.get("name"), arguments)


def whole(reply: JSONObject) -> Said:
    """Return what a response in one piece says: its first choice.

    Raises:
        RejectError: it is none.
    """
    choices = reply.get("choices")
    if not isinstance(choices, list):
        raise no_message()
    choice = next(iter(objects(choices)), {})
    message = dict(member(choice, "message"))
    reduction = Reduction(stop_reason=blocks.string(choice.get("finish_reason")), done=True)
    _describe(reduction, reply)
    reduction.extra |= kept(message, *_REASONING)
    return Said({**message, "role": message.get("role") or "assistant"}, reduction)


def streamed(chunks: Iterable[JSONObject]) -> Said:
    """Return what the chunks of a response add up to, as far as they go.

    Raises:
        RejectError: a chunk has a field of the wrong type.
    """
    reduction = Reduction()
    answer = _Answer()
    for chunk in chunks:
        _describe(reduction, chunk)
        if chunk.get("error"):
            reduction.fail(chunk["error"])
        for choice in objects(chunk.get("choices")):
            if place(choice.get("index")) == 0:
                answer.take(member(choice, "delta"))
                if reason := blocks.string(choice.get("finish_reason")):
                    reduction.stop_reason, reduction.done = reason, True
    reduction.extra |= {name: text for name in _REASONING if (text := answer.text(name))}
    return Said(answer.message(), reduction)


def _describe(reduction: Reduction, reply: JSONObject) -> None:
    """Note what every chunk, or the response, says about itself."""
    reduction.model = blocks.string(reply.get("model")) or reduction.model
    reduction.created_at = unix_time(reply.get("created")) or reduction.created_at
    reduction.extra |= kept(reply, "id", "object", "system_fingerprint")
    if counts := member(reply, "usage"):
        reduction.usage = usage(
            prompt_tokens=count(counts.get("prompt_tokens")),
            completion_tokens=count(counts.get("completion_tokens")),
            total_tokens=count(counts.get("total_tokens")),
            cache_read_input_tokens=count(
                member(counts, "prompt_tokens_details").get("cached_tokens")
            ),
        )


@dataclass(slots=True)
class _Call:
    """A tool call as it grows."""

    call_id: str = ""
    kind: str = ""
    of: str = "function"
    name: str = ""
    pieces: list[str] = field(default_factory=list)

    def take(self, delta: JSONObject) -> None:
        # Some servers repeat what they have said already: the first time counts.
        self.call_id = self.call_id or _text(delta, "id")
        self.kind = self.kind or _text(delta, "type")
        for of, text in _CALLED.items():
            if isinstance(called := delta.get(of), dict):
                self.of = of
                self.name = self.name or _text(called, "name")
                self.pieces.append(_text(called, text))

    def raw(self) -> JSONObject:
        called = {"name": self.name, _CALLED[self.of]: joined(self.pieces)}
        return {"id": self.call_id, "type": self.kind or self.of, self.of: called}


@dataclass(slots=True)
class _Answer:
    """A message as it grows.

    Attributes:
        role: who says it.
        texts: the pieces of its texts, by field.
        calls: its calls, each with its index.
        at: the call that an index stands for.
    """

    role: str = ""
    texts: dict[str, list[str]] = field(default_factory=dict)
    calls: list[tuple[int, _Call]] = field(default_factory=list)
    at: dict[int, _Call] = field(default_factory=dict)

    def take(self, delta: JSONObject) -> None:
        self.role = self.role or _text(delta, "role")
        for name in _TEXTS:
            if delta.get(name) is not None:
                self.texts.setdefault(name, []).append(_text(delta, name))
        for name in _REASONING:
            if isinstance(delta.get(name), str):
                self.texts.setdefault(name, []).append(delta[name])
        for call in objects(delta.get("tool_calls")):
            self._call(call).take(call)

    def _call(self, delta: JSONObject) -> _Call:
        """Return the call that a delta goes on with, told by its index, or by its id without."""
        call_id = _text(delta, "id")
        index = place(delta.get("index"), -1)
        call = self.at.get(index)
        if call is None or (call_id and call.call_id and call.call_id != call_id):
            call = self.at[index] = _Call()
            self.calls.append((index, call))
        return call

    def text(self, name: str) -> str | None:
        return joined(self.texts[name]) if name in self.texts else None

    def message(self) -> JSONObject:
        return {
            "role": self.role or "assistant",
            "content": self.text("content"),
            "refusal": self.text("refusal"),
            "tool_calls": [call.raw() for _, call in sorted(self.calls, key=itemgetter(0))],
        }


def _text(value: JSONObject, name: str) -> str:
    """Return a text that is streamed, empty where it is null or absent.

    Raises:
        RejectError: it is no text.
    """
    text: JSON = value.get(name)
    if text is None:
        return ""
    if not isinstance(text, str):
        raise no_message()
    return text
