"""From turns to the values of rows: buckets, claims, digests, clamped counts."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import orjson

from tapes_cli.store.sanitise import Clean, clean_text, to_jsonb

if TYPE_CHECKING:
    from uuid import UUID

    from tapes_cli.model.turn import Turn
    from tapes_cli.store.base import ChainedTurn

_INT4_MAX = 2**31 - 1
_DISTANCE_BITS = 16
_DIGEST_BITS = 47
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EMPTY_METADATA = "{}"
BEGINNING_OF_TIME = "-infinity"
"""The capture time of a field that nobody has set: older than any."""

Row = tuple[Any, ...]


class Sanitised:
    """Takes note of whether any value of a turn had to be changed to be stored."""

    __slots__ = ("seen",)

    def __init__(self) -> None:
        self.seen = False

    def text(self, value: str) -> str:
        """Return the text as a text column takes it."""
        return self._note(clean_text(value))

    def jsonb(self, value: object) -> str:
        """Return the JSON value as a jsonb column takes it."""
        return self._note(to_jsonb(value))

    def _note(self, clean: Clean) -> str:
        self.seen = self.seen or clean.changed
        return clean.value


def owner_of(turn: ChainedTurn) -> bytes:
    """Return what tells captures of one node apart, apart from the node itself."""
    session = turn.session
    key = (session.harness_id, session.harness_session_id) if session else ("", "")
    captured = turn.turn
    return json.dumps((*key, captured.provider, captured.agent_name, captured.project)).encode()


def claim(owner: bytes, model: str, content: str, distance: int) -> int:
    """Return the claim of a capture on a node, by which equal capture times are settled.

    The lower claim wins: the capture in which the node stands nearer to the head (`distance`
    nodes before it), then the one with the lower digest of all that ownership would write.
    """
    digest = blake2b(owner, digest_size=8)
    digest.update(model.encode(errors="surrogatepass"))
    digest.update(content.encode())
    low = int.from_bytes(digest.digest()) >> (64 - _DIGEST_BITS)
    high: int = min(distance, 2**_DISTANCE_BITS - 1) << _DIGEST_BITS
    return high | low


def turn_claim(turn: ChainedTurn) -> int:
    """Return a digest of everything that a turn says of its session and of itself.

    Two captures with equal digests and equal heads write the same rows, so the second one need
    not be looked at. The time of an undated turn is left out: it is ours, not the capture's.
    """
    captured, envelope = turn.turn, turn.envelope
    said = (
        owner_of(turn).hex(),
        captured.captured.at.isoformat() if captured.captured.dated else "",
        captured.request_model.encode(errors="surrogatepass").hex(),
        captured.response_model.encode(errors="surrogatepass").hex(),
        captured.stop_reason.encode(errors="surrogatepass").hex(),
        *_counts(captured),
        repr(envelope),
    )
    digest = blake2b(repr(said).encode(errors="surrogatepass"), digest_size=8)
    return int.from_bytes(digest.digest(), signed=True)


def _counts(turn: Turn) -> tuple[int | None, ...]:
    usage = turn.usage
    return (
        usage.prompt_tokens,
        usage.completion_tokens,
        usage.total_tokens,
        usage.cache_creation_input_tokens,
        usage.cache_read_input_tokens,
        usage.total_duration_ns,
        usage.prompt_duration_ns,
    )


_TOKEN_COLUMNS = 5
_NO_LANDING = (0, None, *([None] * 7), None, None, None)


def landing(turn: ChainedTurn, session_id: UUID | None, digest: int, note: Sanitised) -> Row:
    """Return the values that a head gets when its own turn lands.

    Token columns of `nodes` are 32 bits wide and are clamped; the session's counters take the
    full value.
    """
    counts = _counts(turn.turn)
    tokens = tuple(None if n is None else min(n, _INT4_MAX) for n in counts[:_TOKEN_COLUMNS])
    return (
        1,
        note.text(turn.turn.stop_reason) or None,
        *tokens,
        *counts[_TOKEN_COLUMNS:],
        turn.turn.captured.at,
        session_id,
        digest,
    )


@dataclass(slots=True)
class NodeRow:
    """One row for `nodes`, with what decides whether it is needed."""

    hash: str
    created_at: datetime
    claim: int
    values: Row


class NodeRows:
    """Makes the rows of one turn's nodes."""

    def __init__(self, turn: ChainedTurn, session_id: UUID | None, note: Sanitised) -> None:
        self._turn = turn
        self._session_id = session_id
        self._owner = owner_of(turn)
        self._nodes = turn.chain.nodes
        self._note = note

    def row(self, index: int, landed: Row = _NO_LANDING) -> NodeRow:
        """Return the row of the node at this index of the chain; `landed` for its own turn."""
        node, turn = self._nodes[index], self._turn.turn
        note = self._note
        content = note.jsonb(node.message.content)
        distance = len(self._nodes) - 1 - index
        claimed = claim(self._owner, node.model, content, distance)
        role, model = note.text(node.message.role), note.text(node.model)
        provider, agent = note.text(turn.provider), note.text(turn.agent_name)
        at = turn.captured.at
        values = (
            self._turn.org_id,
            node.hash,
            node.parent_hash or None,
            "message",
            role,
            content,
            _bucket(role, content, model, provider, agent),
            model,
            provider,
            agent,
            note.text(turn.project),
            self._session_id,
            at,
            claimed,
            *landed,
        )
        return NodeRow(node.hash, at, claimed, values)


def _bucket(role: str, content: str, model: str, provider: str, agent: str) -> str:
    head = orjson.dumps(
        {"type": "message", "role": role, "model": model, "provider": provider, "agent_name": agent}
    ).decode()
    return f'{head[:-1]},"content":{content}}}'


def session_row(turn: ChainedTurn, ids: tuple[UUID, UUID | None], note: Sanitised) -> Row:
    """Return the values of the turn's own session, without its counters.

    `ids` are the session's and, where a parent is named, the parent's.
    """
    assert turn.session is not None  # noqa: S101  # the caller stores turns with a session here
    envelope, at = turn.envelope, turn.turn.captured.at
    metadata = envelope.harness_metadata
    micros = (at - _EPOCH) // timedelta(microseconds=1)
    parent = turn.parent

    def field(value: str) -> tuple[str | None, datetime | str]:
        return (note.text(value), at) if value.strip() else (None, BEGINNING_OF_TIME)

    subject, subject_at = field(envelope.auth_subject)
    return (
        *_natural_key(turn, ids[0], note),
        at,
        at,
        subject or "",
        subject is not None,
        subject_at,
        *field(envelope.name),
        *field(envelope.cwd),
        *field(envelope.harness_version),
        ids[1],
        *field(json.dumps((parent.harness_id, parent.harness_session_id)) if parent else ""),
        note.jsonb(metadata) if metadata else _EMPTY_METADATA,
        note.jsonb(dict.fromkeys(metadata, micros)) if metadata else _EMPTY_METADATA,
    )


def _natural_key(turn: ChainedTurn, session_id: UUID, note: Sanitised) -> Row:
    key, envelope = turn.session, turn.envelope
    assert key is not None  # noqa: S101  # as above
    note.text(envelope.harness_id)
    note.text(envelope.harness_session_id)
    return (key.org_id, session_id, key.harness_id, key.harness_session_id)


def placeholder_row(turn: ChainedTurn, parent_id: UUID, note: Sanitised) -> Row:
    """Return the values of the row that stands for a parent until its own first turn lands."""
    assert turn.parent is not None  # noqa: S101  # the caller has looked
    at, subject = turn.turn.captured.at, turn.envelope.auth_subject
    given = bool(subject.strip())
    return (
        turn.parent.org_id,
        parent_id,
        turn.parent.harness_id,
        turn.parent.harness_session_id,
        at,
        at,
        note.text(subject) if given else "",
        at if given else BEGINNING_OF_TIME,
    )
