"""What of a message is hashed: its content without what a harness rewrites between calls.

Only the hash sees the projection; what is stored stays as it was received.
"""

from __future__ import annotations

import re
from io import StringIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tapes_cli.model.blocks import ContentBlock
    from tapes_cli.model.json import JSONObject

REWRITTEN_TAGS = (
    "system-reminder",
    "command-name",
    "command-message",
    "command-args",
    "local-command-stdout",
    "local-command-stderr",
    "local-command-caveat",
)
"""Spans that a harness puts in and takes out as it likes, in the order of their removal."""

WHITE_SPACE = (
    "\t\n\v\f\r \u0085\u00a0\u1680"
    "\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
"""What is trimmed: Unicode's White_Space. `str.strip()` also takes U+001C to U+001F."""

_TAGS = tuple((f"<{tag}>", f"</{tag}>") for tag in REWRITTEN_TAGS)
_LINE_FEEDS = re.compile("\n\n+")
# Types whose `content` is not hashed. A tool result is addressed by its text alone, as in the
# reference; its raw parts (images, for one) are stored beside it. A block without a type may be
# a tool result.
_FLATTENED = ("tool_result", "")
_TEXT_FIELDS = (
    "image_url",
    "image_base64",
    "media_type",
    "tool_use_id",
    "tool_name",
    "tool_result_id",
    "tool_output",
    "thinking",
)


def project_content(blocks: Iterable[ContentBlock]) -> list[JSONObject]:
    """Return what is hashed of a message's blocks; blocks without a trace left are gone."""
    projected = []
    for block in blocks:
        hashed = project_block(block)
        if hashed is not None:
            projected.append(hashed)
    return projected


def project_block(block: ContentBlock) -> JSONObject | None:
    """Return what is hashed of a block, or None if its text is nothing but rewritten spans.

    Empty fields are left out, except `is_error`. The signature of a thinking block is left out
    always: it is opaque, and not every harness sends it back.
    """
    hashed: JSONObject = {"is_error": block.get("is_error", False), "type": block["type"]}
    text = block.get("text")
    if text:
        text = project_text(text)
        if not text:
            return None
        hashed["text"] = text
        # Nothing more in the most frequent block of all.
        if len(block) == 2:  # noqa: PLR2004  # its type and its text
            return hashed
    for field in _TEXT_FIELDS:
        if value := block.get(field):
            hashed[field] = value
    if (tool_input := block.get("tool_input")) and (pruned := prune(tool_input)):
        hashed["tool_input"] = pruned
    if block["type"] not in _FLATTENED and _is_said(content := block.get("content")):
        hashed["content"] = content
    return hashed


def _is_said(content: object) -> bool:
    """Whether raw content is more than null or empty; 0 and false say something."""
    return content is not None and content not in ("", [], {})


def project_text(text: str) -> str:
    """Return the text without rewritten spans, and with its white space made uniform."""
    if "<" in text:
        for opening, closing in _TAGS:
            if opening in text:
                text = _remove_spans(text, opening, closing)
    if "\r" in text:
        text = text.replace("\r\n", "\n")
    if "\n" in text:
        if " \n" in text or "\t\n" in text:
            # Line by line: a regular expression would look at long runs of blanks again and again.
            *lines, last = text.split("\n")
            text = "\n".join([*(line.rstrip(" \t") for line in lines), last])
        if "\n\n" in text:
            text = _LINE_FEEDS.sub("\n", text)
    return text.strip(WHITE_SPACE)


def _remove_spans(text: str, opening: str, closing: str) -> str:
    """Remove the spans; one that is never closed takes the rest of the text with it.

    What stood before and after a span may come together as another opening tag, which counts.
    """
    kept = StringIO()
    position = 0
    while True:
        # One character less than the tag on either side, so that it lies across the seam.
        before = _last(kept, len(opening) - 1)
        seam = (before + text[position : position + len(opening) - 1]).find(opening)
        if seam >= 0:
            begun = len(before) - seam
            kept.seek(kept.tell() - begun)
            kept.truncate()
            inside = position + len(opening) - begun
        else:
            start = text.find(opening, position)
            if start < 0:
                kept.write(text[position:])
                break
            kept.write(text[position:start])
            inside = start + len(opening)
        end = text.find(closing, inside)
        if end < 0:
            break
        position = end + len(closing)
    return kept.getvalue()


def _last(kept: StringIO, count: int) -> str:
    """Return the last characters written, leaving the position at the end."""
    kept.seek(max(0, kept.tell() - count))
    return kept.read()


def prune(tool_input: JSONObject) -> JSONObject:
    """Return a tool's arguments without those that say nothing.

    null, false, "", 0, [] and objects that are empty themselves after pruning are dropped, through
    objects but not inside lists: a streamed call leaves them out, the call re-sent may not.
    """
    if not any(isinstance(value, dict) for value in tool_input.values()):
        return {key: value for key, value in tool_input.items() if value}
    # Inner objects come after the ones that hold them, so they are pruned first from behind.
    objects = [tool_input]
    for members in objects:
        objects.extend(value for value in members.values() if isinstance(value, dict))
    pruned: dict[int, JSONObject] = {}
    for members in reversed(objects):
        pruned[id(members)] = {
            key: kept
            for key, value in members.items()
            if (kept := pruned[id(value)] if isinstance(value, dict) else value)
        }
    return pruned[id(tool_input)]
