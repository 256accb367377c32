"""Ollama's chat API."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tapes_cli.capture.providers import blocks
from tapes_cli.capture.providers.base import (
    COMMON_FIELDS,
    STRINGS,
    check_fields,
    message_object,
    model_of,
    objects_in,
    role_of,
)
from tapes_cli.capture.providers.events import Events, read_reply
from tapes_cli.capture.providers.reduction import (
    Reduction,
    count,
    joined,
    kept,
    member,
    no_message,
    usage,
)
from tapes_cli.model.blocks import ContentBlock, Message

if TYPE_CHECKING:
    from tapes_cli.model.json import JSON, JSONObject

# `format` may be a JSON schema, and `keep_alive` a number of seconds: the API takes both.
_FIELDS = COMMON_FIELDS | {
    "format": "a string or an object",
    "keep_alive": "a string or a number",
    "options": "an object",
}
_OPTIONS = {
    "temperature": "a number",
    "top_p": "a number",
    "top_k": "an integer",
    "seed": "an integer",
    "num_predict": "an integer",
    "num_ctx": "an integer",
    "repeat_penalty": "a number",
    "repeat_last_n": "an integer",
    "stop": STRINGS,
}
_MESSAGE_FIELDS = {"content": "a string", "thinking": "a string", "images": STRINGS}
_CALL_FIELDS = {"id": "a string", "function": "an object"}
_FUNCTION_FIELDS = {"name": "a string", "arguments": "a string or an object"}


class Ollama:
    """Reads requests to `/api/chat`, and the responses."""

    name = "ollama"

    def request_messages(self, request: JSONObject) -> list[JSON]:
        """Return the raw messages. See `Provider.request_messages`."""
        check_fields(request, "/request", _FIELDS)
        check_fields(request.get("options") or {}, "/request/options", _OPTIONS)
        return request.get("messages") or []

    def parse_message(self, raw: JSON, pointer: str) -> Message:
        """Return a message. See `Provider.parse_message`.

        Thinking, text, images, tool calls, in this order; empty text is no block. The message of
        a tool is text like any other: the API names no call that it belongs to.
        """
        message = message_object(raw, pointer)
        check_fields(message, pointer, _MESSAGE_FIELDS)
        parsed: list[ContentBlock] = []
        if thinking := message.get("thinking"):
            parsed.append(blocks.thinking_block(thinking, None))
        if text := message.get("content"):
            parsed.append(blocks.text_block(text))
        images = message.get("images") or ()
        parsed += [blocks.compact(type="image", image_base64=image) for image in images]
        for call, place in objects_in(message, "tool_calls", pointer):
            check_fields(call, place, _CALL_FIELDS)
            function = call.get("function") or {}
            check_fields(function, f"{place}/function", _FUNCTION_FIELDS)
            arguments = function.get("arguments")
            if isinstance(arguments, str):
                arguments = blocks.parsed_arguments(arguments)
            parsed.append(blocks.tool_use_block(call.get("id"), function.get("name"), arguments))
        return Message(role_of(message, pointer), parsed)

    def model(self, request: JSONObject) -> str:
        """Return the model that the request names, or nothing."""
        return model_of(request)

    def reduce(self, body: bytes, content_type: str = "") -> JSONObject:
        """Return the reduced response. See `Provider.reduce`."""
        reply = read_reply(body, content_type)
        answer = _Answer()
        if isinstance(reply, Events):
            for event in reply:
                answer.take(event.value)
                if answer.reduction.done:
                    break
            answer.reduction.note_stream(reply)
        else:
            answer.take(reply)
        return answer.reduction.response(lambda: self.parse_message(answer.message(), ""))


@dataclass(slots=True)
class _Answer:
    """A message as it grows. `texts` are the pieces of its texts by field."""

    reduction: Reduction = field(default_factory=Reduction)
    role: str = ""
    texts: dict[str, list[str]] = field(default_factory=lambda: {"thinking": [], "content": []})
    lists: dict[str, list[JSON]] = field(default_factory=lambda: {"images": [], "tool_calls": []})

    def take(self, chunk: JSONObject) -> None:
        """Go on with a chunk of the stream, or the whole response.

        Raises:
            RejectError: a field of it has the wrong type.
        """
        message = member(chunk, "message")
        for name, pieces in self.texts.items():
            if (text := message.get(name)) is not None:
                pieces.append(_checked(text, str))
        for name, items in self.lists.items():
            items.extend(_checked(message.get(name) or [], list))
        self.role = self.role or blocks.string(message.get("role"))
        self._describe(chunk)

    def message(self) -> JSONObject:
        texts = {name: joined(pieces) for name, pieces in self.texts.items()}
        return {"role": self.role or "assistant", **texts, **self.lists}

    def _describe(self, chunk: JSONObject) -> None:
        reduction = self.reduction
        reduction.model = blocks.string(chunk.get("model")) or reduction.model
        reduction.created_at = blocks.string(chunk.get("created_at")) or reduction.created_at
        if chunk.get("error"):
            reduction.fail(chunk["error"])
        if chunk.get("done") is not True:
            return
        reduction.done = True
        reduction.stop_reason = blocks.string(chunk.get("done_reason"))
        reduction.extra |= kept(chunk, "load_duration", "eval_duration")
        reduction.usage = usage(
            prompt_tokens=count(chunk.get("prompt_eval_count")),
            completion_tokens=count(chunk.get("eval_count")),
            total_duration_ns=count(chunk.get("total_duration")),
            prompt_duration_ns=count(chunk.get("prompt_eval_duration")),
        )


def _checked(value: JSON, kind: type) -> JSON:
    if not isinstance(value, kind):
        raise no_message()
    return value
