"""A recorded HTTP exchange with a provider, and the turn record that it makes.

Captures that hold exchanges differ in where the parts stand. What the parts mean is the same, and
is written here. The order of checks is that of the capture specification: where the request went,
the status of the response, the bodies.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from tapes_cli.capture.bodies import Body, decode_body
from tapes_cli.capture.decode import decode, decode_faithfully, dump, too_deep
from tapes_cli.capture.formats.base import SkipError
from tapes_cli.capture.providers.paths import is_provider_path, provider_for_path
from tapes_cli.capture.providers.raw_response import reduce_body
from tapes_cli.capture.times import parse_time
from tapes_cli.model.reasons import Reason
from tapes_cli.model.records import RejectError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tapes_cli.capture.headers import Headers
    from tapes_cli.capture.providers import Provider
    from tapes_cli.model.json import JSON, JSONObject

_OK = 200
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CLAUDE_SESSION = re.compile(
    r".*_session_([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})", re.IGNORECASE | re.DOTALL
)
_UNREADABLE = frozenset({Reason.NOT_JSON, Reason.NOT_UTF8})


@dataclass(frozen=True, slots=True)
class Call:
    """Whom a request asked for an answer; and the model, if the address names it."""

    provider: Provider
    model: str = ""


@dataclass(frozen=True, slots=True)
class Context:
    """What surrounds a request and its response: the session, the agent's name, `meta`."""

    session: JSONObject | None = None
    agent_name: str = ""
    meta: JSONObject = field(default_factory=dict)

    def fields(self) -> JSONObject:
        """Return the fields of a turn record that say it."""
        return {
            "session": self.session,
            "meta": self.meta,
            **({"agent_name": self.agent_name} if self.agent_name else {}),
        }


def called(method: JSON, url: JSON, pointer: str) -> Call:
    """Return whom a request asked.

    Args:
        method: the HTTP method; without one, the request was a POST.
        url: the address, or its path.
        pointer: where the request stands in the record.

    Raises:
        RejectError: a field is missing or has the wrong type.
        SkipError: the request is no turn, or did not go to a supported provider.
    """
    if not isinstance(url, str):
        raise invalid(f"{pointer}/url", "is not a string")
    if method is not None and not isinstance(method, str):
        raise invalid(f"{pointer}/method", "is not a string")
    found = provider_for_path(url)
    if found is None:
        known = is_provider_path(url)
        raise SkipError(Reason.NON_TURN_REQUEST if known else Reason.UNKNOWN_PROVIDER)
    if method is not None and method.upper() != "POST":
        raise SkipError(Reason.NON_TURN_REQUEST)
    return Call(*found)


def check_status(status: JSON, pointer: str) -> None:
    """Check that a response has the status 200.

    Raises:
        RejectError: there is no status.
        SkipError: it is another one.
    """
    if type(status) is not int:
        raise invalid(pointer, "is not an integer")
    if status != _OK:
        raise SkipError(Reason.UPSTREAM_STATUS)


def text_bytes(text: str) -> bytes:
    """Return the bytes of a body that stands as text in a record.

    Half a character (a lone surrogate) becomes the escape that stands for it in JSON.
    """
    return text.encode("utf-8", "backslashreplace")


def request_bytes(data: bytes, codings: Sequence[str] | str = ()) -> bytes:
    """Return the body of a request without its content codings.

    Raises:
        RejectError: there is none, or it cannot be decoded to its end.
    """
    pointer = "/request/body"
    if not data:
        raise RejectError(Reason.REQUEST_DECODE, "the request has no body", pointer)
    body = decode_body(data, codings, Reason.REQUEST_DECODE, pointer)
    if body.cut_short:
        raise RejectError(Reason.REQUEST_DECODE, "the request's body is cut short", pointer)
    return body.data


def request_object(data: bytes, pointer: str = "/request/body") -> JSONObject:
    """Return the decoded body of a request. It is checked to be one JSON object and no more.

    Args:
        data: the body.
        pointer: where it stands in the record.

    Raises:
        RejectError: it is not.
    """
    try:
        value = decode(data)
    except RejectError as error:
        if error.reason not in _UNREADABLE:
            raise
        value = None
    if not isinstance(value, dict):
        raise RejectError(Reason.REQUEST_DECODE, "the request's body is not a JSON object", pointer)
    return value


def response_body(data: bytes, codings: Sequence[str] | str = ()) -> Body:
    """Return the body of a response without its content codings, as far as it goes.

    Raises:
        RejectError: it cannot be decoded.
        SkipError: there is none.
    """
    if not data:
        raise SkipError(Reason.EMPTY_RESPONSE)
    return decode_body(data, codings, Reason.RESPONSE_DECODE, "/response/body")


def reduced(call: Call, body: Body, content_type: str = "") -> JSONObject:
    """Return the reduced response that a body holds.

    Raises:
        RejectError: see `Provider.reduce`.
        SkipError: the provider answered nothing.
    """
    try:
        return reduce_body(call.provider, body, "/response/body", content_type)
    except RejectError as error:
        if error.reason is Reason.EMPTY_RESPONSE:
            raise SkipError(error.reason) from None
        raise


def turn_record(call: Call, request: JSONObject, response: JSONObject, context: Context) -> JSON:
    """Return the turn record of an exchange, decoded. The lists in the request stay the same."""
    if call.model:
        request = {"model": call.model, **request}
    record = {"provider": call.provider.name, "request": request, "response": response}
    return {**record, **context.fields()}


def spliced(call: Call, request: bytes, response: JSONObject, context: Context) -> bytes:
    """Return the bytes of the turn record of an exchange.

    The request's own bytes are in it, so that what a session sends again is recognised.

    Args:
        call: whom the request asked.
        request: the body, which `request_object` has checked.
        response: the reduced response, as `{"response": …}`; or the fields of a raw one.
        context: what surrounds it.

    Raises:
        RejectError: the response is nested too deeply.
    """
    if call.model:
        rest = request.strip(b" \t\r\n")[1:]
        comma = b"" if rest.lstrip(b" \t\r\n") == b"}" else b","
        request = b'{"model":%b%b%b' % (dump(call.model), comma, rest)
    fields = dumped({**response, **context.fields()})
    return b'{"provider":%b,"request":%b,%b' % (dump(call.provider.name), request, fields[1:])


def dumped(value: JSON) -> bytes:
    """Return the bytes of a decoded value. See `dump`.

    Raises:
        RejectError: it is nested too deeply.
    """
    try:
        return dump(value)
    except RecursionError:
        raise too_deep() from None


def session_of(call: Call, headers: Headers, request: JSONObject) -> JSONObject | None:
    """Return the session envelope of an exchange, or None if it has none.

    Headers that name no session leave it to Claude Code's own, and add what else they say.
    """
    told = headers.session()
    if call.provider.name != "anthropic" or (told and "harness_session_id" in told):
        return told
    own = _claude_session(request)
    return {**(told or {}), **own} if own else told


def _claude_session(request: JSONObject) -> JSONObject | None:
    """Return the session that Claude Code names in its requests.

    Up to version 2.1.77, `metadata.user_id` ends with its id; from then on it is a JSON object.
    """
    metadata = request.get("metadata")
    user = metadata.get("user_id") if isinstance(metadata, dict) else None
    if not isinstance(user, str):
        return None
    if match := _CLAUDE_SESSION.fullmatch(user):
        return {"harness_id": "claude", "harness_session_id": match[1]}
    try:
        told = decode_faithfully(text_bytes(user))
    except RejectError:
        return None
    session_id = told.get("session_id") if isinstance(told, dict) else None
    if not isinstance(session_id, str) or not session_id:
        return None
    return {"harness_id": "claude", "harness_session_id": session_id}


def moment(*times: JSON) -> str:
    """Return the first of several times that is one, as RFC 3339 text, or nothing.

    Each may be RFC 3339 text or a number of seconds since 1970.
    """
    for value in times:
        found = _seconds(value) if type(value) in (int, float) else parse_time(value)
        if found is not None:
            return rfc_3339(found)
    return ""


def rfc_3339(at: datetime) -> str:
    """Return a time (UTC) as RFC 3339 text."""
    return at.isoformat().replace("+00:00", "Z")


def _seconds(value: float) -> datetime | None:
    try:
        return _EPOCH + timedelta(seconds=value) if value > 0 else None
    except (OverflowError, ValueError):
        return None


def dated(captured_at: str, **meta: JSON) -> JSONObject:
    """Return the `meta` of a turn record, with the capture time if it is known."""
    return {**meta, "captured_at": captured_at} if captured_at else meta


def invalid(pointer: str, what: str) -> RejectError:
    """Return the reject of an exchange whose field at `pointer` is `what`, as "is missing"."""
    return RejectError(Reason.EXCHANGE_INVALID, f"{_name(pointer)} {what}", pointer)


def _name(pointer: str) -> str:
    return pointer[1:].replace("/", ".")
