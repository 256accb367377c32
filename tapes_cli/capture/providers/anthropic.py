"""Anthropic's Messages API."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tapes_cli.capture.providers import anthropic_reply, blocks
from tapes_cli.capture.providers.base import (
    COMMON_FIELDS,
    STRINGS,
    check_fields,
    message_object,
    model_of,
    role_of,
)
from tapes_cli.model.blocks import ContentBlock, Message

if TYPE_CHECKING:
    from collections.abc import Callable

    from tapes_cli.model.json import JSON, JSONObject

_FIELDS = COMMON_FIELDS | {
    "max_tokens": "an integer",
    "temperature": "a number",
    "top_p": "a number",
    "top_k": "an integer",
    "stop_sequences": STRINGS,
}


class Anthropic:
    """Reads requests to `/v1/messages`, and the responses."""

    name = "anthropic"

    def request_messages(self, request: JSONObject) -> list[JSON]:
        """Return the raw messages. See `Provider.request_messages`."""
        check_fields(request, "/request", _FIELDS)
        return request.get("messages") or []

    def parse_message(self, raw: JSON, pointer: str) -> Message:
        """Return a message. See `Provider.parse_message`.

        Content that is neither text nor a list, and items of the list that are no objects, are
        passed over, as the reference does.
        """
        message = message_object(raw, pointer)
        content = message.get("content")
        parsed: list[ContentBlock] = []
        if isinstance(content, str):
            parsed = [blocks.text_block(content)]
        elif isinstance(content, list):
            parsed = [anthropic_block(item) for item in content if isinstance(item, dict)]
        return Message(role_of(message, pointer), parsed)

    def model(self, request: JSONObject) -> str:
        """Return the model that the request names, or nothing."""
        return model_of(request)

    def reduce(self, body: bytes, content_type: str = "") -> JSONObject:
        """Return the reduced response. See `Provider.reduce`."""
        said = anthropic_reply.read(body, content_type)
        reduced = said.reduction.response(lambda: self.parse_message(said.message, ""))
        for block, raw in zip(reduced["message"]["content"], said.message["content"], strict=True):
            if block["type"] == "text" and raw.get("citations"):
                # Not hashed, since not every harness sends them back.
                block["citations"] = raw["citations"]
        return reduced


def anthropic_block(raw: JSONObject) -> ContentBlock:
    """Return a block of Anthropic's own form.

    Raises:
        InexactNumberError: the block keeps a number that may have been rounded.
    """
    kind = raw.get("type")
    if not isinstance(kind, str) or not kind:
        return blocks.untyped_block(raw)
    read = _BLOCKS.get(kind)
    return blocks.generic_block(kind, raw) if read is None else read(raw)


def _tool_result(raw: JSONObject) -> ContentBlock:
    return blocks.tool_result_block(
        raw.get("tool_use_id"), raw.get("content"), is_error=raw.get("is_error")
    )


_BLOCKS: dict[str, Callable[[JSONObject], ContentBlock]] = {
    "text": lambda raw: blocks.text_block(raw.get("text")),
    "image": lambda raw: blocks.compact(type="image", **blocks.image_source(raw)),
    "tool_use": lambda raw: blocks.tool_use_block(raw.get("id"), raw.get("name"), raw.get("input")),
    "tool_result": _tool_result,
    "thinking": lambda raw: blocks.thinking_block(raw.get("thinking"), raw.get("signature")),
}
