"""HAR documents: HTTP archives, as browsers and recording proxies export them.

`{"log": {"entries": [{"startedDateTime", "time", "request", "response"}, …]}}`. The field names
are those of version 1.2 of the format. The content of a response is without content codings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tapes_cli.capture import exchange
from tapes_cli.capture.bodies import from_base64
from tapes_cli.capture.decode import decode_faithfully, dump
from tapes_cli.capture.formats.base import Item, RecordFormat, SkipError, Unusable
from tapes_cli.capture.headers import Headers, kept_fields
from tapes_cli.capture.times import MAX_ELAPSED_SECONDS
from tapes_cli.model.reasons import Reason
from tapes_cli.model.records import RejectError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tapes_cli.model.json import JSON, JSONObject

_BODY = ("text", "encoding", "mimeType")


def _is_archive(record: JSONObject) -> bool:
    log = record.get("log")
    return isinstance(log, dict) and "entries" in log


def _items(record: JSONObject) -> Iterator[Item | Unusable]:
    entries = record["log"]["entries"]
    if not isinstance(entries, list):
        raise exchange.invalid("/log/entries", "is not a list")
    for index, entry in enumerate(entries):
        try:
            yield Item(_record(entry), index)
        except SkipError as error:
            yield Unusable(error, index)
        except RejectError as error:
            yield Unusable(error, index, dump(_document([_kept_entry(entry)])))


def _record(entry: JSON) -> bytes:
    """Return the turn record of an entry.

    Raises:
        RejectError: a field is missing or has the wrong type, or a body cannot be decoded.
        SkipError: it is no turn.
    """
    if not isinstance(entry, dict):
        raise exchange.invalid("/entry", "is not an object")
    request, response = _member(entry, "request"), _member(entry, "response")
    call = exchange.called(request.get("method"), request.get("url"), "/request")
    exchange.check_status(response.get("status"), "/response/status")
    headers = Headers.of(request.get("headers"), "/request/headers")
    data = _request_body(request, headers)
    body = exchange.request_object(data)
    content = _member(response, "content", "/response")
    answer = exchange.reduced(
        call,
        exchange.response_body(_bytes(content, Reason.RESPONSE_DECODE, "/response/content")),
        content["mimeType"] if isinstance(content.get("mimeType"), str) else "",
    )
    context = exchange.Context(
        exchange.session_of(call, headers, body),
        headers.agent_name(),
        _meta(entry),
    )
    return exchange.spliced(call, data, {"response": answer}, context)


def _member(value: JSONObject, name: str, pointer: str = "") -> JSONObject:
    member = value.get(name)
    if not isinstance(member, dict):
        raise exchange.invalid(f"{pointer}/{name}", "is not an object")
    return member


def _request_body(request: JSONObject, headers: Headers) -> bytes:
    if request.get("postData") is None:
        return exchange.request_bytes(b"")
    posted = _member(request, "postData", "/request")
    if posted.get("params") and not posted.get("text"):
        # A form.
        raise SkipError(Reason.NON_TURN_REQUEST)
    data = _bytes(posted, Reason.REQUEST_DECODE, "/request/postData")
    # Recorders differ in whether they take the content codings off.
    plain = data.lstrip(b" \t\r\n").startswith(b"{")
    return exchange.request_bytes(data, "" if plain else headers.joined("content-encoding"))


def _bytes(body: JSONObject, reason: Reason, pointer: str) -> bytes:
    """Return the bytes of a body, empty if there are none."""
    text = body.get("text")
    if text is None:
        return b""
    if not isinstance(text, str):
        raise exchange.invalid(f"{pointer}/text", "is not a string")
    if body.get("encoding") == "base64":
        return from_base64(text, reason, f"{pointer}/text")
    return exchange.text_bytes(text)


def _meta(entry: JSONObject) -> JSONObject:
    began: JSON = entry.get("startedDateTime")
    elapsed: JSON = entry.get("time")
    # In milliseconds; where it is not known, it is -1 or null.
    number = isinstance(elapsed, int | float) and not isinstance(elapsed, bool)
    if number and 0 < elapsed <= MAX_ELAPSED_SECONDS * 1000:
        return {"ts_request": exchange.moment(began), "elapsed_seconds": elapsed / 1000}
    return exchange.dated(exchange.moment(began))


def _document(entries: list[JSON]) -> JSONObject:
    return {"log": {"version": "1.2", "entries": entries}}


def _kept(data: bytes) -> bytes:
    """Return a document without whatever could hold a secret; it can be imported again."""
    try:
        entries = decode_faithfully(data)["log"]["entries"]
    except RejectError:
        return b""
    if not isinstance(entries, list):
        return dump({"log": {"entries": None}})
    return dump(_document([_kept_entry(entry) for entry in entries]))


def _kept_entry(entry: JSON) -> JSON:
    if not isinstance(entry, dict):
        return None
    kept = kept_fields(entry, "startedDateTime", "time")
    for name, field, body in (("request", "method", "postData"), ("response", "status", "content")):
        said = entry.get(name)
        if isinstance(said, dict):
            kept[name] = kept_fields(said, field)
            if isinstance(said.get(body), dict):
                kept[name][body] = kept_fields(said[body], *_BODY)
    return kept


FORMAT = RecordFormat(
    name="har",
    title="HAR document",
    sign="`log` with `entries`",
    recognises=_is_archive,
    items=_items,
    kept=_kept,
)
