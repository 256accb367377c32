"""OpenAI's Responses API: the items of requests, and the responses, whole and streamed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tapes_cli.capture.providers import blocks
from tapes_cli.capture.providers.base import check_fields, refuse
from tapes_cli.capture.providers.openai_parts import MESSAGE_FIELDS, content_blocks
from tapes_cli.capture.providers.reduction import (
    Reduction,
    Said,
    count,
    joined,
    kept,
    member,
    no_message,
    objects,
    place,
    unix_time,
    usage,
)
from tapes_cli.model.blocks import ContentBlock, Message
from tapes_cli.model.records import RejectError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tapes_cli.model.json import JSON, JSONObject

_ITEM_FIELDS = MESSAGE_FIELDS | {"type": "a string", "role": "a string"}
_MODEL_ITEMS = ("reasoning", "mcp_list_tools", "mcp_approval_request")
_FINAL = ("response.completed", "response.incomplete", "response.failed")
# The chat API's words for the same, which turn records of this API have too.
_STOP_REASONS = {"completed": "stop", "max_output_tokens": "length", "failed": "error"}


def input_messages(items: JSON) -> list[JSON]:
    """Return the raw messages that a request's `input` makes up.

    Raises:
        RejectError: it is neither text nor a list, or an item has a field of the wrong type.
    """
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


def said_message(items: Iterable[JSONObject]) -> Message:
    """Return the message that items in a row make which the model said."""
    return Message("assistant", [block for item in items for block in _item_blocks(item)])


def item_message(item: JSONObject) -> Message:
    """Return the message of an item, other than a message, that the model did not say."""
    role = "tool" if item["type"].endswith("_output") else "user"
    return Message(blocks.string(item.get("role")) or role, _item_blocks(item))


def is_item(message: JSONObject) -> bool:
    """Whether this is an item of `input` other than a message, such as a call or its output."""
    kind = message.get("type")
    if not isinstance(kind, str) or kind in ("", "message"):
        return False
    return "role" not in message or "content" not in message


def _is_said_by_model(item: JSONObject) -> bool:
    if not is_item(item):
        return item.get("role") == "assistant"
    kind: str = item["type"]
    return kind in _MODEL_ITEMS or kind.endswith("_call")


def _item_blocks(item: JSONObject) -> list[ContentBlock]:
    if not is_item(item):
        return content_blocks(item.get("content"))
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


def whole(response: JSONObject) -> Said:
    """Return what a response in one piece says.

    Raises:
        RejectError: it is none.
    """
    output = response.get("output")
    if not isinstance(output, list):
        raise no_message()
    return _said(objects(output), _described(response))


def streamed(events: Iterable[JSONObject]) -> Said:
    """Return what the events of a response add up to, as far as they go.

    The response that the last event holds counts; where it has no output, as some gateways leave
    it, or the stream was cut short, the items that were streamed.

    Raises:
        RejectError: an item has a field of the wrong type.
    """
    response: JSONObject = {}
    output = _Output()
    done = False
    error: JSON = None
    for event in events:
        kind = blocks.string(event.get("type"))
        response = member(event, "response") or response
        if kind == "error":
            error = event.get("error") or event
        elif kind in _FINAL:
            done = True
            # Not every gateway gives the status.
            response = {"status": kind.removeprefix("response."), **response}
        if done or error is not None:
            break
        output.take(kind, event)
    reduction = _described(response)
    reduction.done = done
    if error is not None:
        reduction.fail(error)
    return _said(objects(response.get("output")) or output.items(), reduction)


def _said(output: list[JSONObject], reduction: Reduction) -> Said:
    for item in output:
        try:
            check_fields(item, "", _ITEM_FIELDS)
        except RejectError:
            raise no_message() from None
    return Said(tuple(output), reduction)


def _described(response: JSONObject) -> Reduction:
    status = blocks.string(response.get("status"))
    reason = status
    if status == "incomplete":
        reason = blocks.string(member(response, "incomplete_details").get("reason")) or status
    counts = member(response, "usage")
    under_way = status in ("queued", "in_progress")
    return Reduction(
        model=blocks.string(response.get("model")),
        created_at=unix_time(response.get("created_at")),
        stop_reason="" if under_way else _STOP_REASONS.get(reason, reason),
        usage=usage(
            prompt_tokens=count(counts.get("input_tokens")),
            completion_tokens=count(counts.get("output_tokens")),
            total_tokens=count(counts.get("total_tokens")),
            cache_read_input_tokens=count(
                member(counts, "input_tokens_details").get("cached_tokens")
            ),
        ),
        extra=kept(response, "id", "object", "status", "error"),
        done=not under_way,
    )


# The item that a delta belongs to, what its text is, and the field that says which of several.
_DELTAS = {
    "response.output_text.delta": ("message", "output_text", "content_index"),
    "response.refusal.delta": ("message", "refusal", "content_index"),
    "response.reasoning_summary_text.delta": ("reasoning", "summary_text", "summary_index"),
    "response.reasoning_text.delta": ("reasoning", "reasoning_text", "content_index"),
    "response.function_call_arguments.delta": ("function_call", "arguments", ""),
    "response.custom_tool_call_input.delta": ("custom_tool_call", "input", ""),
    "response.mcp_call_arguments.delta": ("mcp_call", "arguments", ""),
    "response.code_interpreter_call_code.delta": ("code_interpreter_call", "code", ""),
}
# Texts that are parts of a list: the list, and the field of the part.
_PARTS = {
    "output_text": ("content", "text"),
    "refusal": ("content", "refusal"),
    "summary_text": ("summary", "text"),
    "reasoning_text": ("content", "text"),
}


@dataclass(slots=True)
class _Item:
    """An item of the output as it grows. `pieces` are those of its texts, by place and kind."""

    item: JSONObject
    pieces: dict[tuple[int, str], list[str]] = field(default_factory=dict)

    def raw(self) -> JSONObject:
        """Return the whole item."""
        item = dict(self.item)
        lists: dict[str, list[JSONObject]] = {}
        for index, kind in sorted(self.pieces):
            text = joined(self.pieces[index, kind])
            if kind not in _PARTS:
                item[kind] = text
                continue
            parts, name = _PARTS[kind]
            lists.setdefault(parts, []).append({"type": kind, name: text})
        return item | lists


class _Output:
    """The output of a response as it grows."""

    def __init__(self) -> None:
        self._items: dict[int, _Item] = {}
        self._latest = 0

    def take(self, kind: str, event: JSONObject) -> None:
        index = self._latest = place(event.get("output_index"), self._latest)
        if kind in ("response.output_item.added", "response.output_item.done"):
            self._items[index] = _Item(member(event, "item"))
        elif kind in _DELTAS and isinstance(event.get("delta"), str):
            of, text, which = _DELTAS[kind]
            item = self._items.setdefault(index, _Item({"type": of}))
            item.pieces.setdefault((place(event.get(which)), text), []).append(event["delta"])

    def items(self) -> list[JSONObject]:
        return [self._items[index].raw() for index in sorted(self._items)]
