"""Rejects files: records that were not stored, each with the reason, to be tried again.

A line holds the record's own bytes as `record` where they were JSON, else as `record_text`, else
as `record_base64`; after a fix the file is imported like any other capture.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING

from tapes_cli.capture.decode import decode_exact, dump, require_exact
from tapes_cli.capture.formats.base import Item, RecordFormat
from tapes_cli.model.reasons import Reason
from tapes_cli.model.records import RejectError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tapes_cli.model.json import JSON, JSONObject

_BODIES = frozenset({"record", "record_text", "record_base64"})


def _is_reject(record: JSONObject) -> bool:
    return record.get("type") == "reject" and "code" in record and bool(record.keys() & _BODIES)


def _items(record: JSONObject) -> Iterator[Item]:
    inner: JSON = record
    # A record that is rejected twice is wrapped twice.
    while isinstance(inner, dict) and _is_reject(inner):
        inner = _record(inner)
    if not isinstance(inner, dict):
        raise RejectError(Reason.NOT_OBJECT, "the rejected record is not an object", "/record")
    require_exact(inner)
    yield Item(dump(inner))


def _record(record: JSONObject) -> JSON:
    if "record" in record:
        if record["record"] is None:
            raise RejectError(
                Reason.RECORD_INVALID,
                "the rejected record was not kept, since it was too large, unreadable, or may hold "
                "credentials; import its source again",
                "/record",
            )
        return record["record"]
    if isinstance(text := record.get("record_text"), str):
        return decode_exact(text.encode(errors="surrogatepass"))
    try:
        return decode_exact(base64.b64decode(record["record_base64"], validate=True))
    except (binascii.Error, TypeError, ValueError, KeyError):
        raise RejectError(
            Reason.RECORD_INVALID, "the rejected record is not valid base64", "/record_base64"
        ) from None


FORMAT = RecordFormat(
    name="rejects",
    title="line of a rejects file",
    sign='`type` "reject", `code` and the record',
    recognises=_is_reject,
    items=_items,
)
