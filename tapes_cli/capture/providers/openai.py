"""OpenAI's two APIs: chat completions (`messages`) and Responses (`input`)."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from tapes_cli.capture.providers import openai_chat, openai_responses
from tapes_cli.capture.providers.base import (
    COMMON_FIELDS,
    check_fields,
    message_object,
    model_of,
)
from tapes_cli.capture.providers.events import Events, read_reply
from tapes_cli.capture.providers.openai_parts import openai_block

if TYPE_CHECKING:
    from tapes_cli.capture.providers.reduction import Said
    from tapes_cli.model.blocks import Message
    from tapes_cli.model.json import JSON, JSONObject

__all__ = ["OpenAI", "openai_block"]

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


class OpenAI:
    """Reads requests to `/v1/chat/completions` and `/v1/responses`, and the responses."""

    name = "openai"

    def request_messages(self, request: JSONObject) -> list[JSON]:
        """Return the raw messages, or those that the items of `input` make up.

        See `Provider.request_messages`. A response of the Responses API is one message, but is
        sent back item by item; items in a row that the model said are taken together, as a tuple,
        which no JSON is, so that they are the message that the response was.
        """
        check_fields(request, "/request", _FIELDS)
        messages = request.get("messages")
        return messages or openai_responses.input_messages(request.get("input"))

    def parse_message(self, raw: JSON, pointer: str) -> Message:
        """Return a message. See `Provider.parse_message`.

        What the model said in the Responses API has the role `assistant`, what a tool put out
        `tool`; any other item without a role of its own (another agent's message) is `user`.
        """
        if isinstance(raw, tuple):
            return openai_responses.said_message(raw)
        message = message_object(raw, pointer)
        if openai_responses.is_item(message):
            return openai_responses.item_message(message)
        return openai_chat.chat_message(message, pointer)

    def model(self, request: JSONObject) -> str:
        """Return the model that the request names, or nothing."""
        return model_of(request)

    def reduce(self, body: bytes, content_type: str = "") -> JSONObject:
        """Return the reduced response. See `Provider.reduce`.

        Which of the two APIs answered is told by the body.
        """
        said = _read(body, content_type)
        return said.reduction.response(lambda: self.parse_message(said.message, ""))


def _read(body: bytes, content_type: str) -> Said:
    reply = read_reply(body, content_type)
    if isinstance(reply, Events):
        said = _streamed(reply)
        said.reduction.note_stream(reply)
        return said
    if _is_event_of_responses(reply):
        return openai_responses.streamed([reply])
    if reply.get("object") == "response" or "output" in reply:
        return openai_responses.whole(reply)
    if "choices" not in reply and reply.get("error"):
        return openai_chat.streamed([reply])
    return openai_chat.whole(reply)


def _streamed(events: Events) -> Said:
    values = (event.value for event in events)
    first = next(values, {})
    if _is_event_of_responses(first):
        return openai_responses.streamed(chain([first], values))
    said = openai_chat.streamed(chain([first], values))
    # A stream may say that it has ended in place of saying why.
    said.reduction.done = said.reduction.done or (events.finished and not said.reduction.failed)
    return said


def _is_event_of_responses(value: JSONObject) -> bool:
    kind = value.get("type")
    return isinstance(kind, str) and (kind.startswith("response.") or kind == "error")
