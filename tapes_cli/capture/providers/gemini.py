"""Google's Gemini API: `generateContent` and `streamGenerateContent`.

The names of fields are those of the API's reference; as its JSON does, requests may spell them
`inlineData` or `inline_data`. A response is streamed as whole parts, of which text comes in
pieces. So texts of one kind in a row are one block, in responses and in requests alike.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tapes_cli.capture.providers import blocks
from tapes_cli.capture.providers.base import check_fields, message_object, model_of, refuse, role_of
from tapes_cli.capture.providers.events import Events, read_reply
from tapes_cli.capture.providers.reduction import (
    Reduction,
    added,
    count,
    joined,
    kept,
    member,
    objects,
    place,
    usage,
)
from tapes_cli.model.blocks import Message

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tapes_cli.model.blocks import ContentBlock
    from tapes_cli.model.json import JSON, JSONObject

_FIELDS = {"model": "a string"}
_PART_FIELDS = {"text": "a string", "thoughtSignature": "a string", "thought": "a boolean"}
_AROUND = ("thought", "thoughtSignature", "videoMetadata", "mediaResolution", "partMetadata")
_BLOCK_TYPES = ("text", "image", "tool_use", "tool_result", "thinking", "refusal")
_NEXT_WORD = re.compile("_([a-z])")


class Gemini:
    """Reads requests to `…/models/{model}:generateContent`, and the responses.

    The model is in the request's address: whoever reads that puts it into the request, as `model`.
    """

    name = "gemini"

    def request_messages(self, request: JSONObject) -> list[JSON]:
        """Return the raw messages. See `Provider.request_messages`.

        A single one may stand there without a list around it.
        """
        check_fields(request, "/request", _FIELDS)
        return _listed(request.get("contents"), "/request/contents")

    def parse_message(self, raw: JSON, pointer: str) -> Message:
        """Return a message. See `Provider.parse_message`.

        A message without a role is the user's, as the API reads it.
        """
        message = message_object(raw, pointer)
        parts = []
        for index, item in enumerate(_listed(message.get("parts"), f"{pointer}/parts")):
            where = f"{pointer}/parts/{index}"
            part = _spelled(message_object(item, where))
            check_fields(part, where, _PART_FIELDS)
            parts.append(part)
        return Message(role_of(message, pointer) or "user", _blocks(parts))

    def model(self, request: JSONObject) -> str:
        """Return the model that the request names, or nothing."""
        return model_of(request)

    def reduce(self, body: bytes, content_type: str = "") -> JSONObject:
        """Return the reduced response. See `Provider.reduce`.

        Of several candidates, the first one counts. Its role is `model` always.
        """
        reply = read_reply(body, content_type)
        answer = _Answer()
        if isinstance(reply, Events):
            for event in reply:
                answer.take(event.value)
            answer.reduction.note_stream(reply)
        else:
            answer.take(reply)
        message = {"role": "model", "parts": answer.parts}
        return answer.reduction.response(lambda: self.parse_message(message, ""))


def _listed(value: JSON, pointer: str) -> list[JSON]:
    if value is None:
        return []
    if isinstance(value, dict):
        return [value]
    if not isinstance(value, list):
        raise refuse(pointer, "is neither a list nor an object")
    return value


def _camel(name: str) -> str:
    return _NEXT_WORD.sub(lambda match: match[1].upper(), name) if "_" in name else name


def _spelled(part: JSONObject) -> JSONObject:
    """Return a part with its fields, and those of what it holds, spelled as in responses."""
    return {
        _camel(name): {_camel(key): inner for key, inner in value.items()}
        if isinstance(value, dict)
        else value
        for name, value in part.items()
    }


@dataclass(slots=True)
class _Run:
    """Texts of one kind in a row, or a block of another kind."""

    kind: str
    texts: list[str] = field(default_factory=list)
    signature: str = ""
    block: ContentBlock | None = None

    def made(self) -> ContentBlock:
        """Return the block."""
        if self.block is None:
            text = joined(self.texts)
            made = blocks.thinking_block(text, None) if self.kind else blocks.text_block(text)
        else:
            made = self.block
        # Of text and calls, too. It is stored, never hashed.
        if self.signature and made["type"] in _BLOCK_TYPES:
            made["thinking_signature"] = self.signature
        return made


def _blocks(parts: Iterable[JSONObject]) -> list[ContentBlock]:
    """Return the blocks of a message's parts.

    Empty text, which only carries the signature of what precedes it, is no block of its own unless
    the message has no other.
    """
    runs: list[_Run] = []
    silent: _Run | None = None
    for part in parts:
        signature = blocks.string(part.get("thoughtSignature"))
        text = part.get("text")
        kind = "thinking" if part.get("thought") else ""
        if not text and (held := _held(part)):
            runs.append(_Run(kind, block=_block(part, held)))
        elif not text:
            silent = _Run("", [""], signature)
        elif runs and runs[-1].block is None and runs[-1].kind == kind:
            runs[-1].texts.append(text)
        else:
            runs.append(_Run(kind, [text]))
        if runs and signature:
            runs[-1].signature = signature
    if not runs and silent is not None:
        runs.append(silent)
    return [run.made() for run in runs]


def _held(part: JSONObject) -> str:
    """Return the name of the field that says what a part is, if there is one besides text."""
    for name, value in part.items():
        if name != "text" and name not in _AROUND and value is not None:
            return name
    return ""


def _block(part: JSONObject, kind: str) -> ContentBlock:
    """Return the block of a part that is no text. What has no field of its own is in `content`."""
    held = part[kind]
    around = {name: part[name] for name in part if name not in (kind, "text", "thoughtSignature")}
    around = {name: value for name, value in around.items() if not blocks.is_empty(value)}
    if isinstance(held, dict) and kind in _READERS:
        read, names = _READERS[kind]
        if (block := read(held)) is not None:
            rest = {name: held[name] for name in held if name not in names} | around
            return block if "content" in block else blocks.compact(**block, content=rest)
    if kind in _BLOCK_TYPES:
        # A name that is taken.
        kind, held, around = "part", {kind: held, **around}, {}
    return blocks.generic_block(kind, {"content": {kind: held, **around} if around else held})


def _function_call(held: JSONObject) -> ContentBlock:
    return blocks.tool_use_block(held.get("id"), held.get("name"), held.get("args"))


def _function_response(held: JSONObject) -> ContentBlock:
    """Return a function's result: without ids, a call is known by its function's name."""
    response = held.get("response")
    return blocks.tool_result_block(
        held.get("id") or held.get("name"),
        blocks.output_text(response),
        is_error=isinstance(response, dict) and bool(response.get("error")),
    )


def _inline_data(held: JSONObject) -> ContentBlock | None:
    kind = blocks.string(held.get("mimeType"))
    if not kind.startswith("image/"):
        return None
    data = blocks.string(held.get("data"))
    return blocks.compact(type="image", media_type=kind, image_base64=data)


def _file_data(held: JSONObject) -> ContentBlock | None:
    kind = blocks.string(held.get("mimeType"))
    if not kind.startswith("image/"):
        return None
    return blocks.compact(
        type="image", media_type=kind, image_url=blocks.string(held.get("fileUri"))
    )


# What reads a kind of part, and the fields that it reads.
_READERS: dict[str, tuple[Callable[[JSONObject], ContentBlock | None], tuple[str, ...]]] = {
    "functionCall": (_function_call, ("id", "name", "args")),
    "functionResponse": (_function_response, ("id", "name", "response")),
    "inlineData": (_inline_data, ("mimeType", "data")),
    "fileData": (_file_data, ("mimeType", "fileUri")),
}


@dataclass(slots=True)
class _Answer:
    """A response as it grows: a stream consists of responses, each with some parts more."""

    reduction: Reduction = field(default_factory=Reduction)
    parts: list[JSONObject] = field(default_factory=list)

    def take(self, response: JSONObject) -> None:
        reduction = self.reduction
        reduction.model = blocks.string(response.get("modelVersion")) or reduction.model
        reduction.created_at = blocks.string(response.get("createTime")) or reduction.created_at
        reduction.extra |= kept(response, "responseId", "promptFeedback")
        if response.get("error"):
            reduction.fail(response["error"])
        if counts := member(response, "usageMetadata"):
            reduction.usage = _usage(counts)
        for candidate in objects(response.get("candidates")):
            if place(candidate.get("index")) == 0:
                self._go_on(candidate)

    def _go_on(self, candidate: JSONObject) -> None:
        parts = member(candidate, "content").get("parts")
        self.parts += [parts] if isinstance(parts, dict) else objects(parts)
        reduction = self.reduction
        if reason := blocks.string(candidate.get("finishReason")):
            reduction.stop_reason, reduction.done = reason, True
        reduction.extra |= kept(candidate, "finishMessage", "citationMetadata", "groundingMetadata")


def _usage(counts: JSONObject) -> JSONObject:
    """Return the usage: what the last response of a stream says is the sum."""
    return usage(
        prompt_tokens=count(counts.get("promptTokenCount")),
        completion_tokens=added(
            count(counts.get("candidatesTokenCount")), count(counts.get("thoughtsTokenCount"))
        ),
        total_tokens=count(counts.get("totalTokenCount")),
        cache_read_input_tokens=count(counts.get("cachedContentTokenCount")),
    )
