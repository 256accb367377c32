"""Turns made for tests, and the rows they leave behind, made comparable."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from tapes_cli.merkle.chain import ChainBuilder
from tapes_cli.model.blocks import Message
from tapes_cli.model.envelope import Envelope
from tapes_cli.model.history import History
from tapes_cli.model.turn import CaptureTime, Turn, Usage
from tapes_cli.store.base import ChainedTurn

if TYPE_CHECKING:
    from collections.abc import Sequence

    import psycopg

EPOCH = datetime(2025, 1, 1, tzinfo=UTC)


def text(role: str, words: str) -> Message:
    """Return a message of one text block."""
    return Message(role, [{"type": "text", "text": words}])


def moment(seconds: int) -> CaptureTime:
    """Return a capture time so many seconds after the tests' epoch."""
    return CaptureTime(EPOCH + timedelta(seconds=seconds))


def make_turn(
    words: Sequence[str],
    at: int = 0,
    envelope: Envelope | None = None,
    usage: Usage | None = None,
    **fields: Any,
) -> ChainedTurn:
    """Return a turn whose messages say these words, user first; the last one is the response."""
    *history, answer = words
    turn = Turn(
        provider="anthropic",
        history=History([text(("user", "assistant")[i % 2], w) for i, w in enumerate(history)]),
        response=text("assistant", answer),
        captured=moment(at),
        request_model="asked",
        response_model="answered",
        stop_reason="end_turn",
        usage=usage or Usage(prompt_tokens=10, completion_tokens=3, total_tokens=13),
        envelope=envelope,
        **fields,
    )
    return ChainedTurn.of(turn, ChainBuilder().build(turn))


def session(session_id: str = "s1", **fields: Any) -> Envelope:
    """Return an envelope of the harness `claude`."""
    return Envelope(harness_id="claude", harness_session_id=session_id, **fields)


def rows(conn: psycopg.Connection[Any]) -> dict[str, list[dict[str, Any]]]:
    """Return every row of both tables, with session ids replaced by natural keys.

    The ids are random by design; everything else has to be a function of the turns imported.
    """
    sessions = [row[0] for row in conn.execute("SELECT to_jsonb(s) FROM sessions AS s")]
    nodes = [row[0] for row in conn.execute("SELECT to_jsonb(n) FROM nodes AS n")]
    names = {
        s["id"]: f"{s['org_id']}/{s['harness_id']}/{s['harness_session_id']}" for s in sessions
    }

    def named(row: dict[str, Any]) -> dict[str, Any]:
        return {c: names.get(v, v) if isinstance(v, str) else v for c, v in row.items()}

    return {
        "sessions": sorted(map(named, sessions), key=str),
        "nodes": sorted(map(named, nodes), key=str),
    }
