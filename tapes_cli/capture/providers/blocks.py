"""Content blocks from what providers send.

A block is said twice: once as part of a response, reduced, and then again in every request that
follows, as the provider's own. Both must come out alike, or the conversation forks there; so what
both need is here. Empty fields are left out: they are not hashed and say nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from tapes_cli.capture.decode import InexactNumberError, decode, decode_exact, require_exact
from tapes_cli.merkle.canonical import canonical, well_formed
from tapes_cli.model.records import RejectError

if TYPE_CHECKING:
    from tapes_cli.model.blocks import ContentBlock
    from tapes_cli.model.json import JSON, JSONObject

_AROUND = frozenset({"type", "cache_control"})
_AROUND_CALL = _AROUND | {"status", "metadata", "internal_chat_message_metadata_passthrough"}
_IMAGE_SOURCE = {"type", "media_type", "data", "url"}


def string(value: JSON) -> str:
    """Return the value if it is a string, else an empty one."""
    return value if isinstance(value, str) else ""


def is_empty(content: JSON) -> bool:
    """Whether raw content is nothing to keep: null, "", [] or {}."""
    return content is None or (isinstance(content, str | list | dict) and not content)


def compact(**fields: JSON) -> ContentBlock:
    """Return a block of these fields, without the empty ones; `type` stays.

    Raises:
        InexactNumberError: `tool_input` or `content` holds a number that may be rounded.
    """
    block = {name: value for name, value in fields.items() if name == "type" or value}
    if (content := fields.get("content")) is not None and not is_empty(content):
        # 0 and false are content.
        block["content"] = content
        require_exact(content)
    if "tool_input" in block:
        require_exact(block["tool_input"])
    return cast("ContentBlock", block)


def text_block(text: JSON) -> ContentBlock:
    """Return a text block. It is kept even if empty."""
    return {"type": "text", "text": string(text)}


def image_source(raw: JSONObject) -> JSONObject:
    """Return the fields of an image that its `source` gives.

    A source that is neither data nor an address (an uploaded file) is kept as it is.
    """
    source = raw.get("source")
    if not isinstance(source, dict):
        return {}
    return {
        "media_type": string(source.get("media_type")),
        "image_base64": string(source.get("data")),
        "image_url": string(source.get("url")),
        "content": None if source.keys() <= _IMAGE_SOURCE else source,
    }


def tool_use_block(tool_use_id: JSON, name: JSON, tool_input: JSON) -> ContentBlock:
    """Return a tool call. Input that is not an object is kept in `content`."""
    fields: JSONObject = {"tool_use_id": string(tool_use_id), "tool_name": string(name)}
    fields["tool_input" if isinstance(tool_input, dict) else "content"] = tool_input
    return compact(type="tool_use", **fields)


def parsed_arguments(arguments: str) -> JSON:
    """Return a tool call's arguments that came as text: an object, or None for "null".

    Text that is no JSON object comes back as it is.
    """
    data = well_formed(arguments).encode()
    try:
        value = decode(data)
        require_exact(value)
    except RejectError:
        return arguments
    except InexactNumberError:
        value = decode_exact(data)
    return value if value is None or isinstance(value, dict) else arguments


def tool_result_block(tool_use_id: JSON, output: JSON, *, is_error: JSON = False) -> ContentBlock:
    """Return a tool's result. Of a list of parts, the texts are joined by line feeds.

    Where there is more in the list than text, the list is kept beside them in `content`.
    """
    text, parts = flattened(output)
    fields = {"tool_result_id": string(tool_use_id), "tool_output": text, "content": parts}
    return compact(type="tool_result", is_error=is_error is True, **fields)


def flattened(output: JSON) -> tuple[str, list[JSON] | None]:
    """Return a tool's output as text, and the list that it was if that held more than text."""
    if isinstance(output, str):
        return output, None
    if not isinstance(output, list):
        return "", None
    texts = [
        part["text"]
        for part in output
        if isinstance(part, dict) and isinstance(part.get("text"), str)
    ]
    return "\n".join(texts), None if len(texts) == len(output) else output


def output_text(output: JSON) -> JSON:
    """Return a tool's output with an object written as JSON, in one way for equal objects."""
    if not isinstance(output, dict):
        return output
    require_exact(output)
    return canonical(output).decode()


def thinking_block(thinking: JSON, signature: JSON) -> ContentBlock:
    """Return a block of thinking."""
    return compact(type="thinking", thinking=string(thinking), thinking_signature=string(signature))


def generic_block(kind: str, raw: JSONObject) -> ContentBlock:
    """Return a block of a type that has no fields of its own: what it says is in `content`.

    `content` is the raw block without its type, or the value of its only field where that is
    `content`. A reducer keeps a whole raw block in `content`, so the type may be found there
    again. A harness moves `cache_control` between calls: it is no part of what was said. Nor is
    what the Responses API puts around a call, and a harness may or may not send back.
    """
    while True:
        around = _around_call(raw) if kind.endswith("_call") else _AROUND
        rest = {name: value for name, value in raw.items() if name not in around}
        if rest.keys() != {"content"}:
            break
        content = rest["content"]
        if not isinstance(content, dict) or content.get("type") != kind:
            return compact(type=kind, content=content)
        raw = content
    if kind == "refusal" and len(rest) == 1:
        # Said as {"refusal": text} by the provider, as text by others.
        return compact(type=kind, content=rest.get("refusal", rest.get("text", rest)))
    return compact(type=kind, content=rest)


def _around_call(call: JSONObject) -> frozenset[str]:
    # The id of the item says no more than the id of the call.
    return _AROUND_CALL | {"id"} if "call_id" in call else _AROUND_CALL


def untyped_block(raw: JSONObject) -> ContentBlock:
    """Return a block that does not say its type, with all fields that a block may have."""
    tool_input = raw.get("input")
    text, parts = flattened(raw.get("content"))
    fields = image_source(raw)
    return compact(
        type="",
        text=string(raw.get("text")),
        media_type=fields.get("media_type"),
        image_base64=fields.get("image_base64"),
        image_url=fields.get("image_url"),
        tool_use_id=string(raw.get("id")),
        tool_name=string(raw.get("name")),
        tool_input=tool_input if isinstance(tool_input, dict) else None,
        tool_result_id=string(raw.get("tool_use_id")),
        tool_output=text,
        is_error=raw.get("is_error") is True,
        content=parts or fields.get("content"),
    )
