"""Ollama's chat API."""

from __future__ import annotations

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
    """Reads requests to `/api/chat`."""

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
