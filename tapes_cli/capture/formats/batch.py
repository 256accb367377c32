"""Batches: `{"turns": [turn record, …]}`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tapes_cli.capture.formats.base import Item, RecordFormat
from tapes_cli.model.reasons import Reason
from tapes_cli.model.records import RejectError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tapes_cli.model.json import JSONObject


def _is_batch(record: JSONObject) -> bool:
    return isinstance(record.get("turns"), list)


def _items(record: JSONObject) -> Iterator[Item]:
    turns = record["turns"]
    if not turns:
        raise RejectError(Reason.BATCH_EMPTY, "turns is empty", "/turns")
    return (Item(turn, index) for index, turn in enumerate(turns))


def _has_turns(record: JSONObject) -> bool:
    return "turns" in record


def _no_list(_record: JSONObject) -> Iterator[Item]:
    raise RejectError(Reason.BATCH_INVALID, "turns is not a list", "/turns")


FORMAT = RecordFormat(
    name="batch",
    title="batch of turn records",
    sign="a list `turns`",
    recognises=_is_batch,
    items=_items,
)

MALFORMED = RecordFormat(
    name="malformed-batch",
    title="malformed batch",
    sign="`turns` that is no list",
    recognises=_has_turns,
    items=_no_list,
)
"""To be asked last: `turns` may be an extra field of something else."""
