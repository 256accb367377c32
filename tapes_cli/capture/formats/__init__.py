"""Capture formats, one module each. A record's format is found by its keys, never by a name."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tapes_cli.capture.formats import batch, refused, rejects, turn_records
from tapes_cli.capture.formats.base import Format, Item
from tapes_cli.model.reasons import Reason
from tapes_cli.model.records import RejectError

if TYPE_CHECKING:
    from tapes_cli.model.json import JSONObject

__all__ = ["FORMATS", "Format", "Item", "detect"]

FORMATS = (
    rejects.FORMAT,
    batch.FORMAT,
    turn_records.FORMAT,
    *refused.FORMATS,
    turn_records.MALFORMED,
    batch.MALFORMED,
)
"""In the order in which they are asked; the first that recognises a record has it."""

_KEYS_SHOWN = 5
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,39}")


def detect(record: JSONObject) -> Format:
    """Return the format of a record.

    Raises:
        RejectError: with `UNRECOGNISED`, naming the first keys of the record.
    """
    for candidate in FORMATS:
        if candidate.recognises(record):
            return candidate
    if not record:
        raise RejectError(Reason.UNRECOGNISED, "the record is empty")
    keys = ", ".join(_shown(key) for key in list(record)[:_KEYS_SHOWN])
    more = ", …" if len(record) > _KEYS_SHOWN else ""
    raise RejectError(
        Reason.UNRECOGNISED, f"no known capture format has a record with the keys {keys}{more}"
    )


def _shown(key: str) -> str:
    """Return a key that reads like the name of a field; anything else may be content."""
    return key if _NAME.fullmatch(key) else "…"
