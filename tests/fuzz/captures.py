"""A sound capture of every format, to be broken."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

from tests.support.captures import line, record
from tests.support.exchanges import (
    as_text,
    exchange,
    har,
    har_entry,
    history,
    in_one_piece,
    log_line,
    wire_files,
)
from tests.support.provider_bodies import provider_of, whole
from tests.support.rollouts import Rollout
from tests.support.transcripts import Transcript, call, output, text, thinking

if TYPE_CHECKING:
    from collections.abc import Mapping

_APIS = ("anthropic", "openai", "openai-responses", "ollama", "gemini")


def _lines(*values: Any) -> bytes:
    return "".join(map(line, values)).encode()


def _turns(of: str, count: int = 4) -> list[dict[str, Any]]:
    """Turn records of one session, each with the history of those before it."""
    messages: list[Any] = []
    turns = []
    for number in range(count):
        messages.append({"role": "user", "content": f"{of} {number}"})
        answer = f"answer {number}"
        request = {"model": "m", "messages": messages[:], "tools": [{"name": "t"}]}
        turns.append(record(request=request, answer=answer))
        messages.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
    return turns


def _raw_responses() -> list[dict[str, Any]]:
    """Turn records with the provider's own streams."""
    found = []
    for api in _APIS:
        told = exchange(api, [f"raw response of {api}"])
        turn = record(provider=provider_of(api), request=told.request)
        turn["raw_response"] = base64.b64encode(told.response).decode()
        del turn["response"]
        found.append(turn)
    return found


def _rows() -> list[dict[str, Any]]:
    rows = []
    for number, turn in enumerate(_turns("rows")):
        row = {"id": number, "source": "wire", "raw_request": turn["request"]}
        row |= {name: turn[name] for name in ("provider", "response", "meta")}
        row |= {"session_envelope": turn["session"], "received_at": "2026-03-02T09:00:00Z"}
        rows.append(row)
    return [*rows, {"source": "transcript", "raw_request": [], "response": None}]


def _transcript() -> bytes:
    t = Transcript()
    t.prompt("go")
    t.answer("m1", thinking("hm"), text("a"), call("c1", path="/tmp"))
    t.result("c1")
    t.answer("m2", text("b"))
    t.compact("so far")
    t.prompt("go on")
    t.answer("m3", call("c2", n=2**70), call("c3"))
    t.prompt([output("c2"), output("c3")])
    t.answer("m4", text("done"))
    t.end()
    return t.data()


def _sub_agent() -> bytes:
    t = Transcript(agent="a1", prefix="v")
    t.prompt("look")
    t.answer("n1", text("found"))
    t.end()
    return t.data()


def _rollout() -> bytes:
    r = Rollout().meta().context().ask("go")
    r.item("reasoning", summary=[{"type": "summary_text", "text": "hm"}], encrypted_content="x")
    r.say("a").call("c1").call("c2").output("c1").output("c2").count()
    r.say("b").count().context().ask("go on").call("c3").output("c3").count()
    r.add("compacted", {"message": "so far"}).ask("and now").say("done").count()
    return r.event("task_complete").data


def _batch(api: str, number: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """A request of a batch API, and its answer."""
    name, request = f"request-{number}", history(api, [f"question {number}"])
    body = json.loads(whole(api, [{"type": "text", "text": "Hi"}]))
    if api == "anthropic":
        result = {"type": "succeeded", "message": body}
        return {"custom_id": name, "params": request}, {"custom_id": name, "result": result}
    asked = {"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": request}
    response = {"status_code": 200, "request_id": "r", "body": body}
    return asked, {"id": "b", "custom_id": name, "response": response, "error": None}


def _batches() -> dict[str, bytes]:
    pairs = [_batch(api, number) for number, api in enumerate(["anthropic", "openai", "openai"])]
    return {
        "in.jsonl": _lines(*(asked for asked, _ in pairs)),
        "out.jsonl": _lines(*(answered for _, answered in pairs)),
    }


CAPTURES: Mapping[str, Mapping[str, bytes]] = {
    "turn-record": {"a.jsonl": _lines(*_turns("records"), *_raw_responses())},
    "batch": {"a.jsonl": _lines({"turns": _turns("one", 2)}, {"turns": _turns("two", 3)})},
    "rejects": {
        "a.jsonl": _lines(
            *({"type": "reject", "code": "x", "record": t} for t in _turns("rejects"))
        )
    },
    "raw-turns": {"a.jsonl": _lines(*_rows())},
    "codex-rollout": {"a.jsonl": _rollout()},
    "claude-code-transcript": {"a.jsonl": _transcript(), "b.jsonl": _sub_agent()},
    "http-log": {
        "a.jsonl": _lines(
            *(log_line(exchange(api, [f"log of {api}"])) for api in _APIS),
            *(as_text(log_line(in_one_piece(api, [f"text of {api}"]))) for api in _APIS),
        )
    },
    "har": {
        "a.har": json.dumps(
            har(*(har_entry(exchange(api, [f"har of {api}"])) for api in _APIS))
        ).encode()
    },
    "wire-recording": wire_files(exchange(texts=["wire"]), "gzip", "gzip"),
    "batch-api": _batches(),
}
"""For each format the files of a capture, by name."""
