"""The bodies that providers answer with, written for tests: whole, as a stream, and as an echo.

An API is `anthropic`, `openai` (chat completions), `openai-responses`, `ollama` or `gemini`. A
message is a list of provider-neutral blocks: `text`, `thinking`, `tool_use`, and any other type
with an object of its own as `content`. Chat and Ollama know text before calls only.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tapes_cli.model.turn import Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from tapes_cli.model.blocks import ContentBlock

    Blocks = Sequence[ContentBlock]
    Split = Callable[[str], list[str]]

APIS = ("anthropic", "openai", "openai-responses", "ollama", "gemini")
STOP_REASONS = {"anthropic": "end_turn", "gemini": "STOP"}
SIGNATURE = "c2ln"


def provider_of(api: str) -> str:
    """Return the name of the provider that has the API."""
    return api.split("-", maxsplit=1)[0]


def thirds(text: str) -> list[str]:
    """Return a text in pieces of three UTF-16 code units: characters may come apart."""
    data = text.encode("utf-16-le", "surrogatepass")
    return [
        data[start : start + 6].decode("utf-16-le", "surrogatepass")
        for start in range(0, len(data), 6)
    ]


@dataclass(frozen=True)
class Answer:
    """What is answered besides the message. `stop_reason` is the API's own, or its usual one."""

    model: str = "answered"
    stop_reason: str = ""
    usage: Usage = field(default_factory=Usage)
    created: int = 1767225600

    def reason(self, api: str) -> str:
        return self.stop_reason or STOP_REASONS.get(api, "stop")


def whole(api: str, message: Blocks, answer: Answer | None = None) -> bytes:
    """Return a response in one piece."""
    return json.dumps(_WHOLE[api](message, answer or Answer())).encode()


def stream(api: str, message: Blocks, answer: Answer | None = None, split: Split = thirds) -> bytes:
    """Return the same response as a stream, its texts in pieces as `split` cuts them."""
    events = _STREAMS[api](message, answer or Answer(), split)
    if api == "ollama":
        return b"".join(json.dumps(event).encode() + b"\n" for event in events)
    return server_sent(events, done=api == "openai")


def server_sent(events: Iterable[Any], *, done: bool = False, end: bytes = b"\n") -> bytes:
    """Return server-sent events. `done` ends them as OpenAI does; `end` ends their lines."""
    lines = []
    for event in events:
        if isinstance(event, dict) and isinstance(event.get("type"), str):
            lines.append(b"event: " + event["type"].encode("utf-8", "replace"))
        lines += [b"data: " + json.dumps(event).encode(), b""]
    lines += [b"data: [DONE]", b""] if done else []
    return b"".join(line + end for line in lines)


def echo(api: str, message: Blocks) -> dict[str, Any]:
    """Return a request that sends the message back, and nothing else."""
    match api:
        case "anthropic":
            return {"messages": [{"role": "assistant", "content": _anthropic_content(message)}]}
        case "openai":
            return {"messages": [_chat_message(message)]}
        case "openai-responses":
            return {"input": _output(message)}
        case "ollama":
            return {"messages": [_ollama_message(message)]}
        case _:
            return {"contents": [{"role": "model", "parts": _parts(message)}]}


def _own(block: ContentBlock) -> dict[str, Any]:
    """Return a block of a type that has no fields of its own, as the provider has it."""
    return {"type": block["type"], **block["content"]}


def _arguments(block: ContentBlock) -> str:
    """Return a call's input as text: it may be none that parses."""
    if "content" in block:
        return str(block["content"])
    return json.dumps(block.get("tool_input", {}))


def _given(counts: dict[str, int | None]) -> dict[str, int]:
    return {name: count for name, count in counts.items() if count is not None}


# Anthropic


def _anthropic_block(block: ContentBlock) -> dict[str, Any]:
    match block["type"]:
        case "text":
            return {"type": "text", "text": block["text"]}
        case "thinking":
            thinking = block.get("thinking", "")
            return {"type": "thinking", "thinking": thinking, "signature": SIGNATURE}
        case "tool_use":
            return {
                "type": "tool_use",
                "id": block["tool_use_id"],
                "name": block["tool_name"],
                "input": block.get("tool_input", {}),
            }
    return _own(block)


def _anthropic_content(message: Blocks) -> list[dict[str, Any]]:
    return [_anthropic_block(block) for block in message]


def _anthropic_usage(usage: Usage) -> dict[str, int]:
    cached = (usage.cache_creation_input_tokens or 0) + (usage.cache_read_input_tokens or 0)
    prompt = usage.prompt_tokens
    return _given(
        {
            "input_tokens": None if prompt is None else prompt - cached,
            "cache_creation_input_tokens": usage.cache_creation_input_tokens,
            "cache_read_input_tokens": usage.cache_read_input_tokens,
            "output_tokens": usage.completion_tokens,
        }
    )


def _anthropic(message: Blocks, answer: Answer) -> dict[str, Any]:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": answer.model,
        "content": _anthropic_content(message),
        "stop_reason": answer.reason("anthropic"),
        "stop_sequence": None,
        "usage": _anthropic_usage(answer.usage),
    }


def _anthropic_deltas(raw: dict[str, Any], split: Split) -> list[dict[str, Any]]:
    """Return the deltas of a block, which is left as it begins."""
    match raw["type"]:
        case "text":
            text = raw["text"]
            raw["text"] = ""
            return [{"type": "text_delta", "text": piece} for piece in split(text)]
        case "thinking":
            text = raw["thinking"]
            raw |= {"thinking": "", "signature": ""}
            deltas = [{"type": "thinking_delta", "thinking": piece} for piece in split(text)]
            return [*deltas, {"type": "signature_delta", "signature": SIGNATURE}]
        case "tool_use" | "server_tool_use":
            text = json.dumps(raw["input"], ensure_ascii=False) if raw.get("input") else ""
            raw["input"] = {}
            pieces = ["", *split(text)]
            return [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]
    return []


def _anthropic_stream(message: Blocks, answer: Answer, split: Split) -> list[dict[str, Any]]:
    final = _anthropic(message, answer)
    start = {**final, "content": [], "stop_reason": None}
    start["usage"] = {**final["usage"], "output_tokens": 0}
    events: list[dict[str, Any]] = [{"type": "message_start", "message": start}, {"type": "ping"}]
    for index, raw in enumerate(final["content"]):
        deltas = _anthropic_deltas(raw, split)
        place = {"index": index}
        events.append({"type": "content_block_start", **place, "content_block": raw})
        events += [{"type": "content_block_delta", **place, "delta": delta} for delta in deltas]
        events.append({"type": "content_block_stop", **place})
    ended = {"stop_reason": final["stop_reason"], "stop_sequence": None}
    spent = {name: final["usage"][name] for name in final["usage"] if name == "output_tokens"}
    events.append({"type": "message_delta", "delta": ended, "usage": spent})
    return [*events, {"type": "message_stop"}]


# OpenAI, chat completions


def _chat_message(message: Blocks) -> dict[str, Any]:
    texts = [block["text"] for block in message if block["type"] == "text"]
    calls = [
        {
            "id": block["tool_use_id"],
            "type": "function",
            "function": {"name": block["tool_name"], "arguments": _arguments(block)},
        }
        for block in message
        if block["type"] == "tool_use"
    ]
    refusals = [block["content"] for block in message if block["type"] == "refusal"]
    raw = {"role": "assistant", "content": texts[0] if texts else None}
    raw["refusal"] = refusals[0] if refusals else None
    return {**raw, "tool_calls": calls} if calls else raw


def _chat_usage(usage: Usage) -> dict[str, Any]:
    return {
        **_given(
            {
                "prompt_tokens": usage.prompt_tokens,
                "completion_tokens": usage.completion_tokens,
                "total_tokens": usage.total_tokens,
            }
        ),
        "prompt_tokens_details": {"cached_tokens": usage.cache_read_input_tokens or 0},
    }


def _chat(message: Blocks, answer: Answer) -> dict[str, Any]:
    choice = {"index": 0, "message": _chat_message(message), "finish_reason": answer.reason("")}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": answer.created,
        "model": answer.model,
        "choices": [choice],
        "usage": _chat_usage(answer.usage),
    }


def _chat_deltas(message: Blocks, split: Split) -> list[dict[str, Any]]:
    raw = _chat_message(message)
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": None, "refusal": None}]
    for name in ("content", "refusal"):
        if raw[name] is not None:
            deltas += [{name: piece} for piece in ["", *split(raw[name])]]
    for index, call in enumerate(raw.get("tool_calls", ())):
        function = call["function"]
        begun = {**call, "index": index, "function": {**function, "arguments": ""}}
        deltas.append({"tool_calls": [begun]})
        deltas += [
            {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}
            for piece in split(function["arguments"])
        ]
    return deltas


def _chat_stream(message: Blocks, answer: Answer, split: Split) -> list[dict[str, Any]]:
    final = _chat(message, answer)
    around = {name: final[name] for name in ("id", "created", "model")}
    around |= {"object": "chat.completion.chunk", "usage": None}
    chunks = [
        {**around, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
        for delta in _chat_deltas(message, split)
    ]
    ended = {"index": 0, "delta": {}, "finish_reason": answer.reason("")}
    chunks.append({**around, "choices": [ended]})
    return [*chunks, {**around, "choices": [], "usage": final["usage"]}]


# OpenAI, Responses


def _item(block: ContentBlock) -> dict[str, Any]:
    match block["type"]:
        case "text":
            part: dict[str, Any] = {"type": "output_text", "text": block["text"]}
            part["annotations"] = []
            return {"type": "message", "role": "assistant", "content": [part]}
        case "refusal":
            part = {"type": "refusal", "refusal": block["content"]}
            return {"type": "message", "role": "assistant", "content": [part]}
        case "thinking":
            thinking = block.get("thinking", "")
            summary = [{"type": "summary_text", "text": thinking}] if thinking else []
            return {"type": "reasoning", "summary": summary, "encrypted_content": SIGNATURE}
        case "tool_use":
            return {
                "type": "function_call",
                "call_id": block["tool_use_id"],
                "name": block["tool_name"],
                "arguments": _arguments(block),
            }
    return _own(block)


def _output(message: Blocks) -> list[dict[str, Any]]:
    return [_item(block) for block in message]


def _responses(message: Blocks, answer: Answer) -> dict[str, Any]:
    usage = answer.usage
    counts: dict[str, Any] = _given(
        {
            "input_tokens": usage.prompt_tokens,
            "output_tokens": usage.completion_tokens,
            "total_tokens": usage.total_tokens,
        }
    )
    counts["input_tokens_details"] = {"cached_tokens": usage.cache_read_input_tokens or 0}
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": answer.created,
        "status": "completed",
        "model": answer.model,
        "output": _output(message),
        "usage": counts,
    }


def _item_deltas(raw: dict[str, Any], split: Split) -> list[dict[str, Any]]:
    """Return the deltas of an item, which is left as it begins."""
    match raw["type"]:
        case "message":
            (part,) = raw["content"]
            name = "text" if part["type"] == "output_text" else "refusal"
            raw["content"] = []
            kind = f"response.{part['type']}.delta"
            return [{"type": kind, "content_index": 0, "delta": d} for d in split(part[name])]
        case "reasoning":
            text = "".join(part["text"] for part in raw["summary"])
            raw["summary"] = []
            kind = "response.reasoning_summary_text.delta"
            return [{"type": kind, "summary_index": 0, "delta": d} for d in split(text)]
        case "function_call":
            text = raw["arguments"]
            raw["arguments"] = ""
            kind = "response.function_call_arguments.delta"
            return [{"type": kind, "delta": d} for d in split(text)]
    return []


def _responses_stream(message: Blocks, answer: Answer, split: Split) -> list[dict[str, Any]]:
    final = _responses(message, answer)
    begun = {**final, "status": "in_progress", "output": [], "usage": None}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
    ]
    for index, (raw, done) in enumerate(zip(_output(message), final["output"], strict=True)):
        deltas = _item_deltas(raw, split)
        place = {"output_index": index}
        events.append({"type": "response.output_item.added", **place, "item": raw})
        events += [{**delta, **place} for delta in deltas]
        events.append({"type": "response.output_item.done", **place, "item": done})
    return [*events, {"type": "response.completed", "response": final}]


# Ollama


def _ollama_message(message: Blocks) -> dict[str, Any]:
    raw: dict[str, Any] = {"role": "assistant", "content": ""}
    for block in message:
        match block["type"]:
            case "text":
                raw["content"] = block["text"]
            case "thinking":
                raw["thinking"] = block.get("thinking", "")
            case "tool_use":
                function = {"name": block["tool_name"], "arguments": block.get("tool_input", {})}
                call = {"id": block["tool_use_id"], "function": function}
                raw.setdefault("tool_calls", []).append(call)
    return raw


def _ollama(message: Blocks, answer: Answer) -> dict[str, Any]:
    usage = answer.usage
    return {
        "model": answer.model,
        "created_at": "2026-01-01T00:00:00.000000001Z",
        "message": _ollama_message(message),
        "done": True,
        "done_reason": answer.reason("ollama"),
        **_given(
            {
                "total_duration": usage.total_duration_ns,
                "prompt_eval_count": usage.prompt_tokens,
                "prompt_eval_duration": usage.prompt_duration_ns,
                "eval_count": usage.completion_tokens,
            }
        ),
    }


def _ollama_stream(message: Blocks, answer: Answer, split: Split) -> list[dict[str, Any]]:
    final = _ollama(message, answer)
    raw = final["message"]
    begun = {"model": answer.model, "created_at": final["created_at"], "done": False}
    pieces: list[dict[str, Any]] = [
        {"role": "assistant", "content": "", "thinking": piece}
        for piece in split(raw.get("thinking", ""))
    ]
    pieces += [{"role": "assistant", "content": piece} for piece in split(raw["content"])]
    pieces += [
        {"role": "assistant", "content": "", "tool_calls": [call]}
        for call in raw.get("tool_calls", ())
    ]
    ended = {**final, "message": {"role": "assistant", "content": ""}}
    return [*({**begun, "message": piece} for piece in pieces), ended]


# Gemini


def _part(block: ContentBlock) -> dict[str, Any]:
    match block["type"]:
        case "text":
            return {"text": block["text"]}
        case "thinking":
            return {"text": block.get("thinking", ""), "thought": True}
        case "tool_use":
            call: dict[str, Any] = {"name": block["tool_name"]}
            if block.get("tool_use_id"):
                call["id"] = block["tool_use_id"]
            return {"functionCall": {**call, "args": block.get("tool_input", {})}}
    return {block["type"]: block["content"]}


def _parts(message: Blocks) -> list[dict[str, Any]]:
    # What a message ends with that was thought about: a signature without text.
    silent = [{"text": "", "thoughtSignature": SIGNATURE}] if message else []
    return [*map(_part, message), *silent]


def _gemini(message: Blocks, answer: Answer) -> dict[str, Any]:
    usage = answer.usage
    candidate = {
        "content": {"role": "model", "parts": _parts(message)},
        "finishReason": answer.reason("gemini"),
        "index": 0,
    }
    counts = _given(
        {
            "promptTokenCount": usage.prompt_tokens,
            "candidatesTokenCount": usage.completion_tokens,
            "totalTokenCount": usage.total_tokens,
            "cachedContentTokenCount": usage.cache_read_input_tokens,
        }
    )
    return {
        "candidates": [candidate],
        "usageMetadata": counts,
        "modelVersion": answer.model,
        "responseId": "r1",
    }


def _gemini_stream(message: Blocks, answer: Answer, split: Split) -> list[dict[str, Any]]:
    final = _gemini(message, answer)
    around = {"modelVersion": answer.model, "responseId": "r1"}
    parts: list[dict[str, Any]] = []
    for part in _parts(message):
        pieces = split(part["text"]) if part.get("text") else None
        parts += [part] if pieces is None else [{**part, "text": piece} for piece in pieces]
    chunks = [
        {
            "candidates": [{"content": {"role": "model", "parts": [part]}, "index": 0}],
            "usageMetadata": {"promptTokenCount": 1, "totalTokenCount": 1},
            **around,
        }
        for part in parts[:-1]
    ]
    last: dict[str, Any] = {"role": "model", "parts": parts[-1:]}
    ended = {**final["candidates"][0], "content": last}
    return [*chunks, {**final, "candidates": [ended]}]


_WHOLE: dict[str, Callable[[Blocks, Answer], dict[str, Any]]] = {
    "anthropic": _anthropic,
    "openai": _chat,
    "openai-responses": _responses,
    "ollama": _ollama,
    "gemini": _gemini,
}
_STREAMS: dict[str, Callable[[Blocks, Answer, Split], list[dict[str, Any]]]] = {
    "anthropic": _anthropic_stream,
    "openai": _chat_stream,
    "openai-responses": _responses_stream,
    "ollama": _ollama_stream,
    "gemini": _gemini_stream,
}
