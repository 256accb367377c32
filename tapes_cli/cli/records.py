"""The records of the machine output: one JSON object for each thing that became of a record."""

from datetime import datetime
from typing import Any

from tapes_cli.importer.rejects import reject_record
from tapes_cli.importer.settled import Settled, TurnSummary
from tapes_cli.model.records import Incomplete, Location, Record, Rejected, Skipped


def timestamp(moment: datetime) -> str:
    """Return a UTC time as RFC 3339 with a Z."""
    return moment.isoformat().replace("+00:00", "Z")


def located(kind: str, location: Location) -> dict[str, Any]:
    """Return the beginning of a record: its type and its place."""
    return {"type": kind, **placed(location)}


def placed(location: Location) -> dict[str, Any]:
    """Return the place of a record, and the format that was found there."""
    place: dict[str, Any] = {"source": location.source, "line": location.line}
    if location.index is not None:
        place["index"] = location.index
    place["format"] = location.format or None
    return place


def other_record(record: Record) -> dict[str, Any]:
    """Return the record of what is no turn, or of a turn that was rejected."""
    if isinstance(record, Rejected):
        return reject_record(record)
    if isinstance(record, Skipped):
        return {**located("skip", record.location), "code": record.reason.value}
    location = record.location
    found = {**located("incomplete", location), "byte_offset": location.byte_offset}
    return found | ({"code": record.reason.value} if isinstance(record, Incomplete) else {})


def session_record(turn: TurnSummary) -> dict[str, Any] | None:
    """Return the session of a turn, or None for a turn that is stored without one."""
    if turn.session is None:
        return None
    return {
        "org_id": str(turn.session.org_id),
        "harness_id": turn.session.harness_id,
        "harness_session_id": turn.session.harness_session_id,
        "synthetic": turn.synthetic,
    }


def turn_record(settled: Settled) -> dict[str, Any]:
    """Return the record of a turn: its session, its chain root first, time and usage."""
    turn = settled.turn
    return {
        **located("turn", settled.location),
        "provider": turn.provider,
        "session": session_record(turn),
        "chain": turn.chain,
        "captured_at": timestamp(turn.captured_at),
        "usage": {"input_tokens": turn.input_tokens, "output_tokens": turn.output_tokens},
        "sanitised": settled.outcome.sanitised,
        "lossy": turn.lossy,
    }


def outcome_record(settled: Settled) -> dict[str, Any]:
    """Return the record of a turn that was imported, with what became of it."""
    return {
        **turn_record(settled),
        "outcome": settled.outcome.kind.value,
        "new_nodes": settled.outcome.new_nodes,
    }
