"""What OpenAI's two APIs have in common: the parts of a message's content."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tapes_cli.capture.providers import blocks

if TYPE_CHECKING:
    from tapes_cli.model.blocks import ContentBlock
    from tapes_cli.model.json import JSON, JSONObject

MESSAGE_FIELDS = {"name": "a string", "tool_call_id": "a string"}
"""Fields of a message, with their kinds, besides role and content."""

_TEXT_PARTS = ("text", "input_text", "output_text", "summary_text", "reasoning_text")
_IMAGE_PARTS = ("image_url", "input_image")


def content_blocks(content: JSON) -> list[ContentBlock]:
    """Return the blocks of a message's content: text, or a list of parts."""
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
