"""HTTP traffic logs: a line for each exchange, as loggers write it that sit inside a harness.

`{"request": {"timestamp", "method", "url", "headers", "body"}, "response": {"timestamp",
"status_code", "headers", "body" | "body_raw"}}`. Bodies are without content codings: decoded where
they were JSON, else text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tapes_cli.capture import exchange
from tapes_cli.capture.decode import decode_faithfully, require_exact
from tapes_cli.capture.formats.base import Item, RecordFormat, SkipError
from tapes_cli.capture.headers import Headers, kept_fields
from tapes_cli.model.reasons import Reason
from tapes_cli.model.records import RejectError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tapes_cli.model.json import JSON, JSONObject


def _is_exchange(record: JSONObject) -> bool:
    request = record.get("request")
    return isinstance(request, dict) and "response" in record and _has_address(request)


def _has_address(request: JSONObject) -> bool:
    return "url" in request or "headers" in request


def _items(record: JSONObject) -> Iterator[Item]:
    request, response = record["request"], record["response"]
    call = exchange.called(request.get("method"), request.get("url"), "/request")
    if response is None:
        raise SkipError(Reason.EMPTY_RESPONSE)
    if not isinstance(response, dict):
        raise exchange.invalid("/response", "is not an object")
    exchange.check_status(response.get("status_code"), "/response/status_code")
    headers = Headers.of(request.get("headers"), "/request/headers")
    body = request.get("body")
    data = b""
    if not isinstance(body, dict):
        data = exchange.request_bytes(_text(body, "/request/body"))
        body = exchange.request_object(data)
    answer = _reduced(call, response)
    context = exchange.Context(
        exchange.session_of(call, headers, body),
        headers.agent_name(),
        exchange.dated(exchange.moment(response.get("timestamp"), request.get("timestamp"))),
    )
    if data:
        yield Item(exchange.spliced(call, data, {"response": answer}, context))
    else:
        yield Item(exchange.turn_record(call, body, answer, context))


def _text(body: JSON, pointer: str) -> bytes:
    if body is None:
        return b""
    if not isinstance(body, str):
        raise exchange.invalid(pointer, "is neither an object nor a string")
    return exchange.text_bytes(body)


def _reduced(call: exchange.Call, response: JSONObject) -> JSONObject:
    headers = Headers.of(response.get("headers"), "/response/headers")
    name = "body_raw" if response.get("body") is None else "body"
    body = response.get(name)
    if isinstance(body, dict | list):
        require_exact(body)
        data = exchange.dumped(body)
    else:
        data = _text(body, f"/response/{name}")
    return exchange.reduced(call, exchange.response_body(data), headers.first("content-type"))


def _kept(data: bytes) -> bytes:
    """Return a line without whatever could hold a secret; it can be imported again."""
    try:
        record = decode_faithfully(data)
    except RejectError:
        return b""
    request = kept_fields(record["request"], "timestamp", "method")
    request |= {"url": request.get("url"), "body": record["request"].get("body")}
    response = record["response"]
    if isinstance(response, dict):
        bodies = {name: response[name] for name in ("body", "body_raw") if name in response}
        response = kept_fields(response, "timestamp", "status_code") | bodies
    elif response is not None:
        response = False
    try:
        return exchange.dumped({"request": request, "response": response})
    except RejectError:
        return b""


FORMAT = RecordFormat(
    name="http-log",
    title="line of an HTTP traffic log",
    sign="`request` with `url` or `headers`, and `response`",
    recognises=_is_exchange,
    items=_items,
    kept=_kept,
)
