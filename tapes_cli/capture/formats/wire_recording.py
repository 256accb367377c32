"""Wire recordings: a folder for each exchange, as a recording proxy writes it.

`request.json` has the request, its body as base64; `response.sse` is the response's body as it was
sent, still with its content codings; `meta.json` has the status, the type of the content, times.
"""

from __future__ import annotations

import stat
from base64 import b64encode
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tapes_cli.capture import exchange
from tapes_cli.capture.bodies import MAX_BODY_BYTES, from_base64
from tapes_cli.capture.decode import decode
from tapes_cli.capture.formats.base import Draft, FolderFormat, SkipError, refused
from tapes_cli.capture.headers import Headers
from tapes_cli.capture.sources import describe
from tapes_cli.capture.values import CUT_SHORT
from tapes_cli.model.reasons import Reason
from tapes_cli.model.records import Incomplete, RejectError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tapes_cli.capture.formats.base import Capture, Found
    from tapes_cli.model.json import JSON, JSONObject

_REQUEST = "request.json"
_META = "meta.json"
_RESPONSES = (
    "response.sse",
    "response.json",
    "response.ndjson",
    "response.txt",
    "response.bin",
    "response.body",
)

# Headers come on top of the body.
_SLACK_BYTES = 4 << 20
_MOST_BYTES = {
    _REQUEST: MAX_BODY_BYTES // 3 * 4 + _SLACK_BYTES,
    _META: _SLACK_BYTES,
}


class _UnfinishedError(Exception):
    """A file is no JSON: it may be one that somebody is still writing."""


@dataclass(frozen=True, slots=True)
class _Recording:
    """What a folder holds of a turn; the response is not decoded yet.

    Attributes:
        call: whom the request asked.
        request: the body of the request, decoded.
        context: what surrounds it.
        response: the body of the response, as it was sent.
        codings: its content codings.
        content_type: what the response says that the body is.
    """

    call: exchange.Call
    request: bytes
    context: exchange.Context
    response: bytes
    codings: str
    content_type: str

    def record(self) -> bytes:
        """Return the turn record.

        Raises:
            RejectError: the response cannot be decoded or reduced.
            SkipError: it holds nothing.
        """
        body = exchange.response_body(self.response, self.codings)
        response = exchange.reduced(self.call, body, self.content_type)
        return exchange.spliced(self.call, self.request, {"response": response}, self.context)

    def raw(self) -> bytes:
        """Return a turn record with the response as it was sent, which can be imported again."""
        response = {
            "raw_response": b64encode(self.response).decode(),
            "raw_response_encoding": self.codings,
        }
        return exchange.spliced(self.call, self.request, response, self.context)


def _read(capture: Capture) -> Iterator[Found]:
    location = capture.at(1)
    if capture.path is None:
        return
    try:
        recording = _recording(capture.path)
    except _UnfinishedError as error:
        if capture.finished:
            unreadable = RejectError(Reason.EXCHANGE_INVALID, f"{error} is not a JSON object")
            yield refused(location, unreadable, b"")
        else:
            yield Incomplete(location, reason=Reason.INCOMPLETE_RECORDING)
        return
    except (RejectError, SkipError) as error:
        yield refused(location, error, b"")
        return
    try:
        record = recording.record()
    except SkipError as error:
        yield refused(location, error, b"")
    except RejectError as error:
        yield refused(location, error, recording.raw())
    else:
        size = len(recording.request) + len(recording.response)
        yield Draft(location, record, lambda: record, size)


def _recording(folder: Path) -> _Recording:
    """Return what a folder holds.

    Raises:
        RejectError: a file cannot be read or decoded, or a field is missing.
        SkipError: it holds no turn.
        _UnfinishedError: a file is no JSON.
    """
    request, meta = _object(folder, _REQUEST), _object(folder, _META)
    call = exchange.called(request.get("method"), request.get("url"), "/request")
    exchange.check_status(meta.get("status"), "/meta/status")
    headers = Headers.of(request.get("headers"), "/request/headers")
    answered = Headers.of(meta.get("response_headers"), "/meta/response_headers")
    body = _request_body(request, headers)
    exchange.request_object(body)
    return _Recording(
        call,
        body,
        exchange.Context(
            headers.session(), headers.agent_name(), _turn_meta(folder, request, meta)
        ),
        _response(folder),
        _said(meta, "content_encoding") or answered.joined("content-encoding"),
        _said(meta, "content_type") or answered.first("content-type"),
    )


def _request_body(request: JSONObject, headers: Headers) -> bytes:
    if request.get("body_truncated") not in (None, False):
        raise RejectError(
            Reason.REQUEST_DECODE, "the request's body was not recorded to its end", "/request"
        )
    encoded = request.get("body_b64")
    if encoded is None:
        encoded = ""
    if not isinstance(encoded, str):
        raise exchange.invalid("/request/body_b64", "is not a string")
    return exchange.request_bytes(
        from_base64(encoded, Reason.REQUEST_DECODE, "/request/body_b64"),
        headers.joined("content-encoding"),
    )


def _turn_meta(folder: Path, request: JSONObject, meta: JSONObject) -> JSONObject:
    began = meta.get("ts_request")
    captured_at = exchange.moment(meta.get("ts_complete"), began, request.get("ts"))
    told = exchange.dated(captured_at, request_id=folder.name)
    return {**told, "ts_request": began} if isinstance(began, str) else told


def _said(meta: JSONObject, name: str) -> str:
    value = meta.get(name)
    if value is not None and not isinstance(value, str):
        raise exchange.invalid(f"/meta/{name}", "is not a string")
    return value or ""


def _response(folder: Path) -> bytes:
    """Return the body of the response, empty if there is none."""
    for name in _RESPONSES:
        data = _contents(folder / name, MAX_BODY_BYTES)
        if data is not None:
            return data
    return b""


def _object(folder: Path, name: str) -> JSONObject:
    data = _contents(folder / name, _MOST_BYTES[name])
    if data is None:
        raise RejectError(Reason.SOURCE_UNREADABLE, f"{name} is gone")
    try:
        value: JSON = decode(data)
    except RejectError as error:
        if error.reason not in CUT_SHORT:
            raise
        value = None
    if not isinstance(value, dict):
        raise _UnfinishedError(name)
    return value


def _contents(path: Path, most: int) -> bytes | None:
    """Return what a file holds, or None if there is none.

    Raises:
        RejectError: it cannot be read, or is larger than `most` bytes.
    """
    try:
        status = path.stat()
        # To open a pipe would wait for somebody to write to it.
        if not stat.S_ISREG(status.st_mode):
            raise RejectError(Reason.SOURCE_UNREADABLE, f"{path.name} is no regular file")
        size = status.st_size
        if size <= most:
            with path.open("rb") as stream:
                data = stream.read(size + 1)
            size = len(data)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RejectError(
            Reason.SOURCE_UNREADABLE, f"{path.name} cannot be read: {describe(error)}"
        ) from None
    if size > most:
        raise RejectError(Reason.BODY_TOO_LARGE, f"{path.name} is larger than {most >> 20} MiB")
    return data


FORMAT = FolderFormat(
    name="wire-recording",
    title="wire recording",
    sign="a folder with `request.json` and `meta.json`",
    recognises=lambda record: record.keys() >= {"method", "url", "body_b64"},
    files=frozenset({_REQUEST, _META}),
    optional=frozenset(_RESPONSES),
    read=_read,
)
