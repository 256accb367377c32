"""Content blocks and messages: the provider-neutral form of what was said."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from tapes_cli.model.json import JSON, JSONObject


class ContentBlock(TypedDict, total=False):
    """One flat block of a message, in the very shape that is hashed and stored.

    A field that does not apply is absent. `type` is always present. `content` holds the raw
    JSON of a block type that has no fields of its own here (server tools, documents, refusals).
    """

    type: str
    text: str
    image_url: str
    image_base64: str
    media_type: str
    tool_use_id: str
    tool_name: str
    tool_input: JSONObject
    tool_result_id: str
    tool_output: str
    is_error: bool
    thinking: str
    thinking_signature: str
    content: JSON


@dataclass(slots=True, eq=False, weakref_slot=True)
class Message:
    """One message of a conversation.

    Compared by identity: a reader that recognises the history a session re-sends hands out the
    same object again, and whoever has seen the object need not look inside.
    """

    role: str
    content: list[ContentBlock]
