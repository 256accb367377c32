"""Formats that are recognised in order to say what they are; none of them is imported."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from tapes_cli.capture.formats.base import Format
from tapes_cli.model.reasons import Reason
from tapes_cli.model.records import RejectError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tapes_cli.model.json import JSONObject

_TRANSCRIPT_KEYS = frozenset({"sessionId", "leafUuid", "isSnapshotUpdate"})


def _unsupported(name: str, recognises: Callable[[JSONObject], bool]) -> Format:
    def refuse(_record: JSONObject) -> NoReturn:
        raise RejectError(
            Reason.FORMAT_UNSUPPORTED, f"the record is a {name}, which this version does not import"
        )

    return Format(name, recognises, refuse)


def _refuse_export(_record: JSONObject) -> NoReturn:
    raise RejectError(
        Reason.DERIVED_EXPORT, "the record is a derived export, which holds no requests"
    )


def _is_transcript(record: JSONObject) -> bool:
    if "sessionId" in record and ("uuid" in record or "message" in record):
        return True
    # Titles, summaries and snapshots of files stand between the messages.
    return "type" in record and bool(record.keys() & _TRANSCRIPT_KEYS)


def _is_traffic(record: JSONObject) -> bool:
    request = record.get("request")
    return (
        isinstance(request, dict)
        and "response" in record
        and bool({"url", "headers"} & set(request))
    )


FORMATS = (
    _unsupported("raw-turns row", lambda record: "raw_request" in record),
    Format("derived export", lambda record: record.keys() >= {"schema", "traces"}, _refuse_export),
    _unsupported("Codex rollout line", lambda record: record.keys() >= {"type", "payload"}),
    _unsupported("Claude Code transcript line", _is_transcript),
    _unsupported("line of an HTTP traffic log", _is_traffic),
)
