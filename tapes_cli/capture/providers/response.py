"""The reduced response of a turn record: what the model answered, and what it cost."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from tapes_cli.capture.providers import blocks
from tapes_cli.capture.providers.anthropic import anthropic_block
from tapes_cli.capture.providers.base import MAX_INTEGER
from tapes_cli.model.blocks import ContentBlock, Message
from tapes_cli.model.reasons import Reason
from tapes_cli.model.records import RejectError
from tapes_cli.model.turn import Usage

if TYPE_CHECKING:
    from tapes_cli.model.json import JSON, JSONObject

_MESSAGE = "/response/message"
_COUNTS = tuple(field.name for field in fields(Usage))
_STRINGS = (
    "text",
    "image_url",
    "image_base64",
    "media_type",
    "tool_use_id",
    "tool_name",
    "tool_result_id",
    "tool_output",
    "thinking",
    "thinking_signature",
)
_BLOCK_FIELDS = (*_STRINGS, "tool_input", "is_error", "content")
_KNOWN_TYPES = ("text", "image", "tool_use", "tool_result", "thinking")


@dataclass(frozen=True, slots=True)
class ParsedResponse:
    """A response in provider-neutral form. Text that was absent is empty.

    `created_at` is the text that the response gives as its time, not yet read.
    """

    message: Message
    model: str
    stop_reason: str
    usage: Usage
    created_at: str


def parse_response(response: JSON) -> ParsedResponse:
    """Return what a reduced response says.

    Raises:
        RejectError: the response is missing, has no role, no content or a block without a type,
            or a field of it has the wrong type.
        InexactNumberError: a block keeps a number that may have been rounded.
    """
    if not isinstance(response, dict):
        raise RejectError(Reason.RESPONSE_INVALID, "response is not an object", "/response")
    message = response.get("message", {})
    if message is None:
        message = {}
    if not isinstance(message, dict):
        raise RejectError(Reason.RESPONSE_INVALID, "response.message is not an object", _MESSAGE)
    _check(response, "done", bool, "a boolean")
    _check(response, "extra", dict, "an object")
    return ParsedResponse(
        message=Message(_role(message), _content(message)),
        model=_text(response, "model"),
        stop_reason=_text(response, "stop_reason"),
        usage=_usage(response.get("usage")),
        created_at=_text(response, "created_at"),
    )


def _check(response: JSONObject, name: str, kind: type, what: str) -> None:
    value = response.get(name)
    if value is not None and not isinstance(value, kind):
        raise RejectError(
            Reason.RESPONSE_INVALID, f"response.{name} is not {what}", f"/response/{name}"
        )


def _text(response: JSONObject, name: str) -> str:
    _check(response, name, str, "a string")
    return response.get(name) or ""


def _role(message: JSONObject) -> str:
    role = message.get("role")
    pointer = f"{_MESSAGE}/role"
    if role is None or role == "":
        raise RejectError(Reason.ROLE_MISSING, "response.message.role is missing", pointer)
    if not isinstance(role, str):
        raise RejectError(Reason.RESPONSE_INVALID, "response.message.role is not a string", pointer)
    return role


def _content(message: JSONObject) -> list[ContentBlock]:
    content = message.get("content")
    pointer = f"{_MESSAGE}/content"
    if content is None or content == []:
        raise RejectError(Reason.CONTENT_MISSING, "response.message.content has no blocks", pointer)
    if not isinstance(content, list):
        raise RejectError(
            Reason.RESPONSE_INVALID, "response.message.content is not a list", pointer
        )
    return [_block(raw, index) for index, raw in enumerate(content)]


def _block(raw: JSON, index: int) -> ContentBlock:
    if not isinstance(raw, dict):
        raise _invalid_block(index, "", "an object")
    kind = raw.get("type")
    if kind is None or kind == "":
        raise RejectError(
            Reason.BLOCK_TYPE_MISSING,
            f"response.message.content[{index}].type is missing",
            f"{_MESSAGE}/content/{index}/type",
        )
    if not isinstance(kind, str):
        raise _invalid_block(index, "type", "a string")
    if kind not in _KNOWN_TYPES:
        return blocks.generic_block(kind, raw)
    return _known_block(kind, raw, index)


def _known_block(kind: str, raw: JSONObject, index: int) -> ContentBlock:
    """Return a block in the reduced form, or with the provider's own names for its fields."""
    for name in _STRINGS:
        if raw.get(name) is not None and not isinstance(raw[name], str):
            raise _invalid_block(index, name, "a string")
    if raw.get("tool_input") is not None and not isinstance(raw["tool_input"], dict):
        raise _invalid_block(index, "tool_input", "an object")
    if raw.get("is_error") is not None and not isinstance(raw["is_error"], bool):
        raise _invalid_block(index, "is_error", "a boolean")
    if kind == "text" and len(raw) <= 2:  # noqa: PLR2004  # its type and its text
        return blocks.text_block(raw.get("text"))
    if kind == "tool_result" and raw.get("tool_result_id") is raw.get("tool_output") is None:
        return anthropic_block(raw)
    # What stands there under the names of the provider's own block.
    own = anthropic_block(raw)
    said = {
        name: raw[name] if raw.get(name) is not None else own.get(name) for name in _BLOCK_FIELDS
    }
    reduced = blocks.compact(type=kind, **said)
    if kind == "text":
        reduced.setdefault("text", "")
    return reduced


def _invalid_block(index: int, name: str, what: str) -> RejectError:
    place = f"response.message.content[{index}]" + (f".{name}" if name else "")
    pointer = f"{_MESSAGE}/content/{index}" + (f"/{name}" if name else "")
    return RejectError(Reason.BLOCK_INVALID, f"{place} is not {what}", pointer)


def _usage(usage: JSON) -> Usage:
    if usage is None:
        return Usage()
    if not isinstance(usage, dict):
        raise RejectError(
            Reason.USAGE_INVALID, "response.usage is not an object", "/response/usage"
        )
    return Usage(**{name: _count(usage, name) for name in _COUNTS})


def _count(usage: JSONObject, name: str) -> int | None:
    value = usage.get(name)
    if value is None:
        return None
    if type(value) is not int or not 0 <= value <= MAX_INTEGER:
        raise RejectError(
            Reason.USAGE_INVALID,
            f"response.usage.{name} is not an integer from 0 to 2^63-1",
            f"/response/usage/{name}",
        )
    return value
