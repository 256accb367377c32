"""Raw responses: the provider's own body, as a record holds it encoded, or an exchange plain."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tapes_cli.capture.bodies import decode_body, from_base64, parse_codings
from tapes_cli.model.reasons import Reason
from tapes_cli.model.records import RejectError

if TYPE_CHECKING:
    from tapes_cli.capture.bodies import Body
    from tapes_cli.capture.providers.base import Provider
    from tapes_cli.model.json import JSON, JSONObject

_BODY = "/raw_response"
_ENCODING = "/raw_response_encoding"
# The body is base64 always; some recorders say so among the codings.
_BASE64 = "base64"


def reduce_raw(record: JSONObject, provider: Provider) -> JSONObject:
    """Return the reduced response of a record that holds the raw one.

    Args:
        record: `raw_response` is the body as base64, `raw_response_encoding` the content codings
            that it still has: a list, or text as in an HTTP header.
        provider: who answered.

    Raises:
        RejectError: the body cannot be decoded, or see `Provider.reduce`.
    """
    codings = parse_codings(
        _codings(record.get("raw_response_encoding")), Reason.RESPONSE_DECODE, _ENCODING
    )
    body = decode_body(_body(record.get("raw_response")), codings, Reason.RESPONSE_DECODE, _BODY)
    return reduce_body(provider, body, _BODY)


def reduce_body(provider: Provider, body: Body, pointer: str, content_type: str = "") -> JSONObject:
    """Return the reduced response that a body holds, and note in it if the body was cut short.

    Args:
        provider: who answered.
        body: what there is of it, without content codings.
        pointer: where it stands in the record.
        content_type: what the response says that it is.

    Raises:
        RejectError: see `Provider.reduce`.
    """
    try:
        reduced = provider.reduce(body.data, content_type)
    except RejectError as error:
        raise RejectError(error.reason, error.message, pointer) from None
    if body.cut_short:
        reduced["extra"] = {**reduced.get("extra", {}), "cut_short": True}
    return reduced


def _body(text: JSON) -> bytes:
    if not isinstance(text, str):
        raise RejectError(Reason.RESPONSE_DECODE, "raw_response is not a string", _BODY)
    return from_base64(text, Reason.RESPONSE_DECODE, _BODY)


def _codings(value: JSON) -> list[str]:
    codings = [] if value is None else value if isinstance(value, list) else [value]
    if not all(isinstance(coding, str) for coding in codings):
        raise RejectError(
            Reason.RESPONSE_DECODE,
            "raw_response_encoding is neither a string nor a list of strings",
            _ENCODING,
        )
    names = [name for coding in codings for name in coding.split(",")]
    return [name for name in names if name.strip().lower() != _BASE64]
