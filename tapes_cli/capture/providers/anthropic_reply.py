"""Responses of Anthropic's Messages API, whole and streamed.

The events are those of the API's documentation ("Streaming messages"). What a stream adds up to is
the message that the same response would be in one piece.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tapes_cli.capture.decode import decode_faithfully
from tapes_cli.capture.providers.blocks import string
from tapes_cli.capture.providers.events import Events, read_reply
from tapes_cli.capture.providers.reduction import (
    Reduction,
    Said,
    added,
    count,
    joined,
    kept,
    member,
    no_message,
    objects,
    place,
    usage,
)
from tapes_cli.merkle.canonical import well_formed
from tapes_cli.model.records import RejectError

if TYPE_CHECKING:
    from tapes_cli.capture.providers.events import Event
    from tapes_cli.model.json import JSON, JSONObject

_INPUT = "partial_json"
# The field of the delta, and of the block that it goes on with.
_DELTAS = {
    "text_delta": "text",
    "thinking_delta": "thinking",
    "signature_delta": "signature",
    "input_json_delta": _INPUT,
}
_STARTED_BY = {"text": "text", "thinking": "thinking", "signature": "thinking", _INPUT: "tool_use"}
_COUNTS = (
    "input_tokens",
    "cache_creation_input_tokens",
    "cache_read_input_tokens",
    "output_tokens",
)


def read(body: bytes, content_type: str) -> Said:
    """Return what a response says.

    Raises:
        RejectError: see `Provider.reduce`.
    """
    reply = read_reply(body, content_type)
    stream = _Stream()
    if isinstance(reply, Events):
        for event in reply:
            stream.take(event)
            if stream.reduction.done:
                break
        stream.reduction.note_stream(reply)
    elif reply.get("type") == "error":
        stream.reduction.fail(reply.get("error"))
    else:
        if not isinstance(reply.get("content"), list):
            raise no_message()
        stream.start(reply)
        stream.reduction.done = True
    return stream.said()


@dataclass(slots=True)
class _Block:
    """A block as it grows: what it began with, and what was added, by field."""

    start: JSONObject
    pieces: dict[str, list[str]] = field(default_factory=dict)
    citations: list[JSON] = field(default_factory=list)

    def add(self, delta: JSONObject) -> None:
        kind = delta.get("type")
        if kind == "citations_delta":
            self.citations.append(delta.get("citation"))
            return
        known = _DELTAS.get(string(kind))
        names = [known] if known else [name for name in delta if name != "type"]
        for name in names:
            value = delta.get(name)
            if isinstance(value, str):
                self.pieces.setdefault(name, []).append(value)
            elif known is None:
                # A kind of delta that is not known replaces what is no text.
                self.start[name] = value

    def raw(self) -> JSONObject:
        """Return the whole block. Input that was streamed and is no JSON is null."""
        block = dict(self.start)
        for name, pieces in self.pieces.items():
            if name != _INPUT:
                block[name] = joined([string(block.get(name)), *pieces])
        if self.citations:
            before = block.get("citations")
            block["citations"] = [*(before if isinstance(before, list) else ()), *self.citations]
        if text := joined(self.pieces.get(_INPUT, ())).strip():
            block["input"] = _parsed(text)
        return block


def _parsed(text: str) -> JSON:
    try:
        return decode_faithfully(well_formed(text).encode())
    except RejectError:
        return None


class _Stream:
    """A message as it grows."""

    def __init__(self) -> None:
        self.reduction = Reduction()
        self._role = ""
        self._blocks: dict[int, _Block] = {}
        self._latest = 0
        self._counts: dict[str, int] = {}

    def take(self, event: Event) -> None:
        value = event.value
        match value.get("type") or event.name:
            case "message_start":
                self.start(member(value, "message"))
            case "content_block_start":
                self._latest = place(value.get("index"), len(self._blocks))
                self._blocks[self._latest] = _Block(dict(member(value, "content_block")))
            case "content_block_delta":
                self._add(place(value.get("index"), self._latest), member(value, "delta"))
            case "message_delta":
                self._end(member(value, "delta"))
                self._count(value.get("usage"))
            case "message_stop":
                self.reduction.done = True
            case "error":
                self.reduction.fail(value.get("error"))

    def start(self, message: JSONObject) -> None:
        """Begin with a message: empty if it is streamed, whole if it is not."""
        reduction = self.reduction
        reduction.model = string(message.get("model"))
        reduction.extra |= kept(message, "id", "type")
        self._role = string(message.get("role"))
        self._blocks = {
            index: _Block(dict(block))
            for index, block in enumerate(objects(message.get("content")))
        }
        self._end(message)
        self._count(message.get("usage"))

    def said(self) -> Said:
        content = [self._blocks[index].raw() for index in sorted(self._blocks)]
        unreadable = [index for index, raw in enumerate(content) if raw.get("input", raw) is None]
        if unreadable:
            self.reduction.extra["unreadable_inputs"] = unreadable
        self.reduction.usage = self._usage()
        return Said({"role": self._role or "assistant", "content": content}, self.reduction)

    def _add(self, index: int, delta: JSONObject) -> None:
        if index not in self._blocks:
            # The recording began after the block did.
            name = _DELTAS.get(string(delta.get("type")), "")
            self._blocks[index] = _Block({"type": _STARTED_BY.get(name, "text")})
        self._blocks[index].add(delta)

    def _end(self, said: JSONObject) -> None:
        if reason := string(said.get("stop_reason")):
            self.reduction.stop_reason = reason
        self.reduction.extra |= kept(said, "stop_sequence")

    def _count(self, counts: JSON) -> None:
        # They grow along the stream; the first event says nothing final of the output, and some
        # gateways say nothing there of the input.
        for name in _COUNTS if isinstance(counts, dict) else ():
            number = count(counts.get(name))
            if number is not None:
                self._counts[name] = max(number, self._counts.get(name, 0))

    def _usage(self) -> JSONObject:
        spent, creation, read_, output = map(self._counts.get, _COUNTS)
        return usage(
            prompt_tokens=added(spent, creation, read_),
            completion_tokens=output,
            cache_creation_input_tokens=creation,
            cache_read_input_tokens=read_,
        )
