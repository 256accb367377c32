"""The records of the machine output: one JSON object for each thing that became of a record."""

from datetime import datetime
from typing import Any

from tapes_cli.importer.rejects import reject_record
from tapes_cli.model.records import Location, Record, Rejected, Skipped
from tapes_cli.store.base import ChainedTurn, Outcome


def timestamp(moment: datetime) -> str:
    """Return a UTC time as RFC 3339 with a Z."""
    return moment.isoformat().replace("+00:00", "Z")


def located(kind: str, location: Location) -> dict[str, Any]:
    """Return the beginning of a record: its type and its place."""
    record: dict[str, Any] = {"type": kind, "source": location.source, "line": location.line}
    if location.index is not None:
        record["index"] = location.index
    return record


def other_record(record: Record) -> dict[str, Any]:
    """Return the record of what is no turn, or of a turn that was rejected."""
    if isinstance(record, Rejected):
        return reject_record(record)
    if isinstance(record, Skipped):
        return {**located("skip", record.location), "code": record.reason.value}
    location = record.location
    return {**located("incomplete", location), "byte_offset": location.byte_offset}


def session_record(turn: ChainedTurn) -> dict[str, Any] | None:
    """Return the session of a turn, or None for a turn that is stored without one."""
    if turn.session is None:
        return None
    return {
        "org_id": str(turn.session.org_id),
        "harness_id": turn.session.harness_id,
        "harness_session_id": turn.session.harness_session_id,
        "synthetic": turn.envelope.synthetic,
    }


def turn_record(turn: ChainedTurn, location: Location) -> dict[str, Any]:
    """Return the record of a turn: its session, its chain root first, time and usage."""
    captured = turn.turn
    return {
        **located("turn", location),
        "provider": captured.provider,
        "session": session_record(turn),
        "chain": turn.chain.hashes,
        "captured_at": timestamp(captured.captured.at),
        "usage": {
            "input_tokens": captured.usage.prompt_tokens or 0,
            "output_tokens": captured.usage.completion_tokens or 0,
        },
    }


def outcome_record(turn: ChainedTurn, location: Location, outcome: Outcome) -> dict[str, Any]:
    """Return the record of a turn that was imported, with what became of it."""
    return {
        **turn_record(turn, location),
        "sanitised": outcome.sanitised,
        "outcome": outcome.kind.value,
        "new_nodes": outcome.new_nodes,
    }
