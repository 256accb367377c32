"""OpenAI's two APIs: chat completions (`messages`) and Responses (`input`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tapes_cli.capture.providers import blocks
from tapes_cli.capture.providers.base import (
    COMMON_FIELDS,
    check_fields,
    message_object,
    model_of,
    objects_in,
    refuse,
    role_of,
)
from tapes_cli.model.blocks import ContentBlock, Message

if TYPE_CHECKING:
    from tapes_cli.model.json import JSON, JSONObject

_FIELDS = COMMON_FIELDS | {
    "max_tokens": "an integer",
    "temperature": "a number",
    "top_p": "a number",
    "seed": "an integer",
    "frequency_penalty": "a number",
    "presence_penalty": "a number",
    "response_format": "an object",
    "max_output_tokens": "an integer",
    "previous_response_id": "a string",
}
_MESSAGE_FIELDS = {"name": "a string", "tool_call_id": "a string"}
_CALL_FIELDS = {"id": "a string", "type": "a string", "function": "an object"}
_FUNCTION_FIELDS = {"name": "a string", "arguments": "a string"}
_ITEM_FIELDS = _MESSAGE_FIELDS | {"type": "a string", "role": "a string"}
_TEXT_PARTS = ("text", "input_text", "output_text", "summary_text", "reasoning_text")
_IMAGE_PARTS = ("image_url", "input_image")
_MODEL_ITEMS = ("reasoning", "mcp_list_tools", "mcp_approval_request")


class OpenAI:
    """Reads requests to `/v1/chat/completions`, `/v1/responses` and `/codex/responses`."""

    name = "openai"

    def request_messages(self, request: JSONObject) -> list[JSON]:
        """Return the raw messages, or those that the items of `input` make up.

        See `Provider.request_messages`. A response of the Responses API is one message, but is
        sent back item by item; items in a row that the model said are taken together, as a tuple,
        which no JSON is, so that they are the message that the response was.
        """
        check_fields(request, "/request", _FIELDS)
        messages = request.get("messages")
        return messages or _input_messages(request.get("input"))

    def parse_message(self, raw: JSON, pointer: str) -> Message:
        """Return a message. See `Provider.parse_message`.

        What the model said in the Responses API has the role `assistant`, what a tool put out
        `tool`; any other item without a role of its own (another agent's message) is `user`.
        """
        if isinstance(raw, tuple):
            return Message("assistant", [b for item in raw for b in _item_blocks(item)])
        message = message_object(raw, pointer)
        if _is_item(message):
            role = "tool" if message["type"].endswith("_output") else "user"
            return Message(blocks.string(message.get("role")) or role, _item_blocks(message))
        return _chat_message(message, pointer)

    def model(self, request: JSONObject) -> str:
        """Return the model that the request names, or nothing."""
        return model_of(request)


def _chat_message(message: JSONObject, pointer: str) -> Message:
    check_fields(message, pointer, _MESSAGE_FIELDS)
    role = role_of(message, pointer)
    calls = [_tool_call(call, place) for call, place in objects_in(message, "tool_calls", pointer)]
    if role == "tool" and message.get("tool_call_id"):
        result = blocks.tool_result_block(message["tool_call_id"], message.get("content"))
        return Message(role, [result])
    parsed = _content_blocks(message.get("content"))
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


def _content_blocks(content: JSON) -> list[ContentBlock]:
    if isinstance(content, str):
        return [blocks.text_block(content)]
    if not isinstance(content, list):
        return []
    return [openai_block(part) for part in content if isinstance(part, dict)]


def openai_block(part: JSONObject) -> ContentBlock:
    """Return the block of a part of a message's content, of either API.

    Raises:
        InexactNumberError: the block keeps a number that may have been rounded.
    """
    kind = part.get("type")
    if kind in _TEXT_PARTS:
        return blocks.text_block(part.get("text"))
    if kind in _IMAGE_PARTS:
        return _image(part)
    if isinstance(kind, str) and kind:
        return blocks.generic_block(kind, part)
    return blocks.untyped_block(part)


def _image(part: JSONObject) -> ContentBlock:
    address = part.get("image_url")
    if isinstance(address, dict):
        address = address.get("url")
    # An image without an address is an uploaded file.
    return blocks.compact(
        type="image", image_url=blocks.string(address), content=part.get("file_id")
    )


def _input_messages(items: JSON) -> list[JSON]:
    if items is None:
        return []
    if isinstance(items, str):
        return [{"role": "user", "content": items}]
    if not isinstance(items, list):
        raise refuse("/request/input", "is neither a string nor a list")
    messages: list[JSON] = []
    said: list[JSON] = []
    for index, item in enumerate(items):
        if not isinstance(item, dict):
            continue
        check_fields(item, f"/request/input/{index}", _ITEM_FIELDS)
        if _is_said_by_model(item):
            said.append(item)
            continue
        if said:
            messages.append(tuple(said))
            said = []
        messages.append(item)
    return [*messages, tuple(said)] if said else messages


def _is_said_by_model(item: JSONObject) -> bool:
    if not _is_item(item):
        return item.get("role") == "assistant"
    kind: str = item["type"]
    return kind in _MODEL_ITEMS or kind.endswith("_call")


def _is_item(message: JSONObject) -> bool:
    """Whether this is an item of `input` other than a message, such as a call or its output."""
    kind = message.get("type")
    if not isinstance(kind, str) or kind in ("", "message"):
        return False
    return "role" not in message or "content" not in message


def _item_blocks(item: JSONObject) -> list[ContentBlock]:
    if not _is_item(item):
        return _content_blocks(item.get("content"))
    match item["type"]:
        case "function_call":
            arguments = blocks.parsed_arguments(blocks.string(item.get("arguments")))
            return [blocks.tool_use_block(item.get("call_id"), item.get("name"), arguments)]
        case "function_call_output" | "custom_tool_call_output":
            output = blocks.output_text(item.get("output"))
            return [blocks.tool_result_block(item.get("call_id"), output)]
        case "reasoning":
            return [_reasoning(item)]
        case kind:
            return [blocks.generic_block(kind, item)]


def _reasoning(item: JSONObject) -> ContentBlock:
    """Return the thinking of a reasoning item: its summary, in place of what is encrypted."""
    for parts in (item.get("summary"), item.get("content")):
        text, _ = blocks.flattened(parts)
        if text:
            break
    return blocks.thinking_block(text, item.get("encrypted_content"))
