"""Recorded HTTP exchanges made for tests, and the captures of every format that hold them."""

from __future__ import annotations

import gzip
import json
import tempfile
from base64 import b64encode
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tapes_cli.capture.expansion import expand
from tapes_cli.capture.reader import Options, Reader
from tapes_cli.capture.sources import Source
from tapes_cli.merkle.chain import ChainBuilder
from tapes_cli.model.records import Accepted
from tests.support.provider_bodies import Answer, stream, whole

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tapes_cli.model.blocks import ContentBlock
    from tapes_cli.model.records import Record
    from tapes_cli.model.turn import Turn

PATHS = {
    "anthropic": "/v1/messages",
    "openai": "/v1/chat/completions",
    "openai-responses": "/codex/responses",
    "ollama": "/api/chat",
    "gemini": "/v1beta/models/asked:streamGenerateContent",
}
BEGAN = datetime(2026, 5, 1, 10, 0, 0, 250000, tzinfo=UTC)
ENDED = datetime(2026, 5, 1, 10, 0, 2, 750000, tzinfo=UTC)
ELAPSED_MS = 2500
SESSION = {
    "x-tapes-harness-id": "claude",
    "x-tapes-harness-session-id": "s-1",
    "x-tapes-harness-version": "2.1",
    "x-tapes-cwd": "/home/me/a%20folder+more",
    "x-tapes-session-name": "n%C3%A4me",
    "x-tapes-harness-metadata": "eyJrIjoxfQ",
    "x-tapes-agent-name": "helper",
    "x-paper-auth-subject": "subject-1",
}
SECRET_HEADERS = (
    *("Authorization", "Cookie", "Set-Cookie", "X-Api-Key", "api-key", "x-goog-api-key"),
    *("Proxy-Authorization", "X-Paper-Auth", "X-Anything-Else"),
)


@dataclass(frozen=True)
class Exchange:
    """An exchange as it went over the wire, without content codings."""

    api: str
    request: dict[str, Any]
    response: bytes
    url: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    answered: dict[str, str] = field(default_factory=dict)
    content_type: str = ""
    status: int = 200
    method: str = "POST"

    @property
    def address(self) -> str:
        return self.url or f"https://gateway.test/prefix{PATHS[self.api]}?beta=true"


def history(api: str, texts: Iterable[str]) -> dict[str, Any]:
    """Return a request that has these messages, the user's first."""
    roles = ("user", "model" if api == "gemini" else "assistant")
    said = [(roles[number % 2], text) for number, text in enumerate(texts)]
    if api == "gemini":
        return {"contents": [{"role": role, "parts": [{"text": text}]} for role, text in said]}
    name = "input" if api == "openai-responses" else "messages"
    return {"model": "asked", name: [{"role": role, "content": text} for role, text in said]}


def exchange(
    api: str = "anthropic",
    texts: Iterable[str] = ("Hello",),
    blocks: Iterable[ContentBlock] = ({"type": "text", "text": "Hi"},),
    answer: Answer | None = None,
    **changes: Any,
) -> Exchange:
    """Return an exchange whose response is a stream."""
    body = stream(api, [*blocks], answer)
    kind = "application/x-ndjson" if api == "ollama" else "text/event-stream"
    return replace(Exchange(api, history(api, texts), body, content_type=kind), **changes)


def in_one_piece(api: str = "anthropic", texts: Iterable[str] = ("Hello",)) -> Exchange:
    """Return an exchange whose response is one JSON document."""
    body = whole(api, [{"type": "text", "text": "Hi"}])
    return Exchange(api, history(api, texts), body, content_type="application/json")


def tainted(told: Exchange, canary: str) -> Exchange:
    """Return an exchange with a canary wherever a secret can stand in the headers or address."""
    secret = dict.fromkeys(SECRET_HEADERS, f"Bearer {canary}")
    url = f"https://{canary}:{canary}@gateway.test{PATHS[told.api]}?key={canary}#{canary}"
    return replace(told, url=url, headers=told.headers | secret, answered=secret)


def rfc_3339(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


def wire_files(told: Exchange, coding: str = "", request_coding: str = "") -> dict[str, bytes]:
    """Return the files of a wire recording, by name."""
    headers = [*told.headers.items()]
    headers += [("Content-Encoding", request_coding)] if request_coding else []
    body = coded(json.dumps(told.request).encode(), request_coding)
    request = {
        "method": told.method,
        "url": told.address,
        "headers": [[*header] for header in headers],
        "body_b64": b64encode(body).decode(),
        "body_truncated": False,
        "ts": "2026-05-01T10:00:00Z",
    }
    meta = {
        "status": told.status,
        "content_type": told.content_type,
        "content_encoding": coding,
        "response_headers": [[*header] for header in told.answered.items()],
        "ts_request": rfc_3339(BEGAN),
        "ts_complete": rfc_3339(ENDED),
    }
    return {
        "request.json": json.dumps(request).encode(),
        "meta.json": json.dumps(meta).encode(),
        "response.sse": coded(told.response, coding),
    }


def coded(data: bytes, coding: str) -> bytes:
    return gzip.compress(data, mtime=0) if coding == "gzip" else data


def log_line(told: Exchange) -> dict[str, Any]:
    """Return a line of an HTTP log: the request decoded, the response as text if it is a stream."""
    try:
        body: dict[str, Any] = {"body": json.loads(told.response)}
    except ValueError:
        body = {"body_raw": told.response.decode()}
    return {
        "request": {
            "timestamp": BEGAN.timestamp(),
            "method": told.method,
            "url": told.address,
            "headers": told.headers,
            "body": told.request,
        },
        "response": {
            "timestamp": ENDED.timestamp(),
            "status_code": told.status,
            "headers": {**told.answered, "Content-Type": told.content_type},
            **body,
        },
        "logged_at": rfc_3339(ENDED),
    }


def as_text(line: dict[str, Any]) -> dict[str, Any]:
    """Return a line of an HTTP log whose request has its body as text."""
    request = line["request"]
    return {**line, "request": {**request, "body": json.dumps(request["body"])}}


def har_entry(told: Exchange) -> dict[str, Any]:
    """Return an entry of a HAR document."""
    headers = [{"name": name, "value": value} for name, value in told.headers.items()]
    answered = [{"name": name, "value": value} for name, value in told.answered.items()]
    return {
        "startedDateTime": rfc_3339(BEGAN),
        "time": ELAPSED_MS,
        "request": {
            "method": told.method,
            "url": told.address,
            "headers": headers,
            "cookies": headers,
            "queryString": headers,
            "postData": {"mimeType": "application/json", "text": json.dumps(told.request)},
        },
        "response": {
            "status": told.status,
            "headers": answered,
            "cookies": answered,
            "content": {"mimeType": told.content_type, "text": told.response.decode()},
        },
    }


def har(*entries: Any) -> dict[str, Any]:
    """Return a HAR document."""
    return {"log": {"version": "1.2", "entries": [*entries]}}


def turn_record(told: Exchange) -> dict[str, Any]:
    """Return the turn record with the raw response."""
    model = {"model": "asked"} if told.api == "gemini" else {}
    return {
        "provider": told.api.split("-", maxsplit=1)[0],
        "request": model | told.request,
        "raw_response": b64encode(told.response).decode(),
        "meta": {"captured_at": rfc_3339(ENDED)},
    }


def read_path(path: Path) -> list[Record]:
    """Read a file, or everything in a folder, as one run does."""
    sources = [source for source in expand([path]) if isinstance(source, Source)]
    paths = tuple(source.path for source in sources if source.path and not source.folder)
    reader = Reader(Options(paths=paths))
    return [
        record
        for number, source in enumerate(sources)
        for record in reader.read(replace(source, number=number))
    ]


def read_files(files: Mapping[str, bytes]) -> list[Record]:
    """Read a folder that holds these files; a name may lead into a folder inside."""
    with tempfile.TemporaryDirectory() as name:
        for file, data in files.items():
            path = Path(name) / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return read_path(Path(name))


def read_values(*values: Any) -> list[Record]:
    """Read a file with a line for each value."""
    return read_files({"a.jsonl": b"".join(json.dumps(value).encode() + b"\n" for value in values)})


def turns_of(records: list[Record]) -> list[Turn]:
    """Return the turns of records that are nothing else."""
    assert all(isinstance(record, Accepted) for record in records), records
    return [record.turn for record in records if isinstance(record, Accepted)]


def chain_of(turn: Turn) -> list[str]:
    return ChainBuilder().build(turn).hashes
