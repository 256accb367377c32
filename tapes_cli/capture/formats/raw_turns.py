"""Raw-turns rows: the table in which a capture service keeps what it recorded, exported.

A row made from the wire is a turn. One made from a harness's transcript is none: it holds no
request, and what it says was captured on the wire as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tapes_cli.capture import exchange
from tapes_cli.capture.decode import decode_faithfully, dump, require_exact
from tapes_cli.capture.formats.base import Item, RecordFormat, SkipError
from tapes_cli.model.envelope import NIL_ORG
from tapes_cli.model.reasons import Reason
from tapes_cli.model.records import RejectError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tapes_cli.model.json import JSON, JSONObject

_SAME = ("provider", "agent_name", "raw_response", "raw_response_encoding", "received_at")
_OF_SESSION = ("org_id", "harness_id", "harness_session_id")


def _is_row(record: JSONObject) -> bool:
    return "raw_request" in record


def _items(record: JSONObject) -> Iterator[Item]:
    if record.get("source") == "transcript":
        raise SkipError(Reason.TRANSCRIPT_ROW)
    turn = {name: record[name] for name in _SAME if name in record}
    turn["response"] = _column(record.get("response"))
    turn["meta"] = _column(record.get("meta"))
    turn["session"] = _session(record)
    request = record["raw_request"]
    if not isinstance(request, str):
        yield Item({**turn, "request": request})
        return
    data = exchange.text_bytes(request)
    exchange.request_object(data, "/raw_request")
    require_exact(turn)
    yield Item(b'{"request":%b,%b' % (data, dump(turn)[1:]))


def _column(value: JSON) -> JSON:
    """Return the value of a column. Exports of tables can hold JSON as text."""
    if not isinstance(value, str):
        return value
    try:
        return decode_faithfully(exchange.text_bytes(value))
    except RejectError:
        # It is refused where the turn is.
        return value


def _session(record: JSONObject) -> JSON:
    """Return the session envelope: the row's own, or the one that its columns make, if any.

    In the column, the nil UUID stands for no org.
    """
    envelope = _column(record.get("session_envelope"))
    if envelope is not None:
        return envelope
    made = {name: record[name] for name in _OF_SESSION if record.get(name)}
    if made.get("org_id") == str(NIL_ORG):
        del made["org_id"]
    return made or None


def _kept(data: bytes) -> bytes:
    """Return a row without headers that a service may have kept beside what a turn is made of."""
    if b"header" not in data.lower():
        return data
    try:
        row = decode_faithfully(data)
        return exchange.dumped({n: v for n, v in row.items() if "header" not in n.lower()})
    except RejectError:
        return b""


FORMAT = RecordFormat(
    name="raw-turns",
    title="raw-turns row",
    sign="`raw_request`",
    recognises=_is_row,
    items=_items,
    kept=_kept,
)
