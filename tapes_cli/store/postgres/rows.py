"""From turns to the values of rows: claims, digests, clamped counts.

All values are in PostgreSQL's text form.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING

from tapes_cli.store.sanitise import clean_text, to_jsonb

if TYPE_CHECKING:
    from uuid import UUID

    from tapes_cli.model.envelope import Envelope
    from tapes_cli.model.turn import Turn
    from tapes_cli.store.base import ChainedTurn
    from tapes_cli.store.postgres.pipeline import Parameter

_INT4_MAX = 2**31 - 1
_DISTANCE_BITS = 16
_DIGEST_BITS = 47
_MOST_DISTANT = (1 << _DISTANCE_BITS) - 1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EMPTY_METADATA = b"{}"
_BEGINNING_OF_TIME = b"-infinity"  # the capture time of a field that nobody has set
_MOST_TEXTS = 256
_SHORT = 256


class Sanitised:
    """Takes note of whether any value of a turn had to be changed to be stored."""

    __slots__ = ("seen",)

    def __init__(self) -> None:
        self.seen = False

    def text(self, value: str) -> bytes:
        """Return the text as a text column takes it."""
        encoded, changed = _encoded(value) if len(value) <= _SHORT else _encode(value)
        self.seen = self.seen or changed
        return encoded

    def jsonb(self, value: object) -> bytes:
        """Return the JSON value as a jsonb column takes it."""
        clean = to_jsonb(value)
        self.seen = self.seen or clean.changed
        return clean.value.encode()


def _encode(text: str) -> tuple[bytes, bool]:
    clean = clean_text(text)
    return clean.value.encode(), clean.changed


# Roles, models, harnesses: many rows share them.
_encoded = lru_cache(maxsize=4096)(_encode)


def owner_of(turn: ChainedTurn) -> bytes:
    """Return what tells captures of one node apart, apart from the node itself."""
    session = turn.session
    key = (session.harness_id, session.harness_session_id) if session else ("", "")
    captured = turn.turn
    return json.dumps((*key, captured.provider, captured.agent_name, captured.project)).encode()


def claim(owner: bytes, model: str, content: bytes, distance: int) -> int:
    """Return the claim of a capture on a node, by which equal capture times are settled.

    The lower claim wins: the capture in which the node stands nearer to the head (`distance`
    nodes before it), then the one with the lower digest of all that ownership would write.
    """
    digest = blake2b(owner, digest_size=8)
    digest.update(model.encode(errors="surrogatepass"))
    digest.update(content)
    low = int.from_bytes(digest.digest()) >> (64 - _DIGEST_BITS)
    high: int = min(distance, _MOST_DISTANT) << _DIGEST_BITS
    return high | low


def is_nearer(claimed: int, distance: int) -> bool:
    """Tell whether a claim was made from nearer to a head than from this distance."""
    return claimed >> _DIGEST_BITS < min(distance, _MOST_DISTANT)


@dataclass(frozen=True, slots=True)
class Said:
    """What is worked out of a turn once: who owns what it captures, and when that was."""

    owner: bytes
    at: bytes

    @classmethod
    def of(cls, turn: ChainedTurn) -> Said:
        """Return it of a turn."""
        return cls(owner_of(turn), timestamp(turn.turn.captured.at))


class EnvelopeTexts:
    """The text of envelopes, by which they are told apart; that of those seen last is kept."""

    def __init__(self) -> None:
        self._texts: dict[int, tuple[Envelope, str]] = {}

    def of(self, envelope: Envelope) -> str:
        """Return the envelope as text: equal text, equal envelope."""
        known = self._texts.get(id(envelope))
        if known is None or known[0] is not envelope:
            if len(self._texts) >= _MOST_TEXTS:
                self._texts.clear()
            known = self._texts[id(envelope)] = envelope, repr(envelope)
        return known[1]


def turn_claim(captured: Turn, said_of: Said, envelope_text: str) -> int:
    """Return a digest of everything that a turn says of its session and of itself.

    Two captures with equal digests and equal heads write the same rows, so the second one need
    not be looked at. The time of an undated turn is left out: it is ours, not the capture's.
    """
    said = (
        said_of.owner,
        said_of.at if captured.captured.dated else b"",
        captured.request_model,
        captured.response_model,
        captured.stop_reason,
        *_counts(captured),
        envelope_text,
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


def landing(turn: Turn, digest: int, note: Sanitised) -> tuple[Parameter, ...]:
    """Return the values that a head gets when its own turn lands.

    Token columns of `nodes` are 32 bits wide and are clamped; the session's counters take the
    full value.
    """
    counts = _counts(turn)
    tokens = (None if n is None else min(n, _INT4_MAX) for n in counts[:_TOKEN_COLUMNS])
    return (
        note.text(turn.stop_reason) or None,
        *map(_number, (*tokens, *counts[_TOKEN_COLUMNS:])),
        _number(digest),
    )


def _number(value: int | None) -> Parameter:
    return None if value is None else b"%d" % value


def timestamp(at: datetime) -> bytes:
    """Return a time as a timestamptz column takes it."""
    return at.isoformat().encode()


@lru_cache(maxsize=1024)
def uuid_text(value: UUID) -> bytes:
    """Return a UUID as a uuid column takes it."""
    return str(value).encode()


@dataclass(slots=True)
class NodeRow:
    """What is a node's own in its row, with what decides whether the row is needed."""

    hash: str
    claim: int
    values: tuple[Parameter, ...]


class NodeRows:
    """Makes the rows of one turn's nodes.

    Attributes:
        shared: the values that all of them have: org, provider, agent, project, session, time.
    """

    def __init__(
        self, turn: ChainedTurn, session_id: bytes | None, said: Said, note: Sanitised
    ) -> None:
        captured = turn.turn
        self._chain = turn.chain
        self._owner = said.owner
        self._note = note
        self.shared: tuple[Parameter, ...] = (
            uuid_text(turn.org_id),
            note.text(captured.provider),
            note.text(captured.agent_name),
            note.text(captured.project),
            session_id,
            said.at,
        )

    def row(self, index: int) -> NodeRow:
        """Return the row of the node at this index of the chain."""
        node, note = self._chain.node(index), self._note
        content = note.jsonb(node.message.content)
        claimed = claim(self._owner, node.model, content, len(self._chain) - 1 - index)
        values = (
            node.hash.encode(),
            node.parent_hash.encode() or None,
            note.text(node.message.role),
            content,
            note.text(node.model),
            _number(claimed),
        )
        return NodeRow(node.hash, claimed, values)


def session_row(
    turn: ChainedTurn, ids: tuple[bytes, bytes | None], at: bytes, note: Sanitised
) -> tuple[Parameter, ...]:
    """Return the values of the turn's own session, without its counters.

    `ids` are the session's and, where a parent is named, the parent's.
    """
    assert turn.session is not None  # noqa: S101  # the caller stores turns with a session here
    envelope, captured, parent = turn.envelope, turn.turn.captured.at, turn.parent
    metadata = envelope.harness_metadata

    def field(value: str) -> tuple[Parameter, Parameter]:
        return (note.text(value), at) if value.strip() else (None, _BEGINNING_OF_TIME)

    subject, subject_at = field(envelope.auth_subject)
    micros = (captured - _EPOCH) // timedelta(microseconds=1) if metadata else 0
    return (
        *_natural_key(turn, ids[0], note),
        at,
        subject or b"",
        b"f" if subject is None else b"t",
        subject_at,
        *field(envelope.name),
        *field(envelope.cwd),
        *field(envelope.harness_version),
        ids[1],
        *field(json.dumps((parent.harness_id, parent.harness_session_id)) if parent else ""),
        note.jsonb(metadata) if metadata else _EMPTY_METADATA,
        note.jsonb(dict.fromkeys(metadata, micros)) if metadata else _EMPTY_METADATA,
    )


def counters(turn: Turn, *, counts: bool) -> tuple[Parameter, ...]:
    """Return what a turn adds to the counters of its session, if it counts."""
    usage = turn.usage
    added = (1, usage.prompt_tokens or 0, usage.completion_tokens or 0) if counts else (0, 0, 0)
    return tuple(map(_number, added))


def _natural_key(turn: ChainedTurn, session_id: bytes, note: Sanitised) -> tuple[Parameter, ...]:
    key, envelope = turn.session, turn.envelope
    assert key is not None  # noqa: S101  # as above
    note.text(envelope.harness_id)
    note.text(envelope.harness_session_id)
    return (
        uuid_text(key.org_id),
        session_id,
        key.harness_id.encode(),
        key.harness_session_id.encode(),
    )


def placeholder_row(
    turn: ChainedTurn, parent_id: bytes, at: bytes, note: Sanitised
) -> tuple[Parameter, ...]:
    """Return the values of the row that stands for a parent until its own first turn lands."""
    parent = turn.parent
    assert parent is not None  # noqa: S101  # the caller has looked
    subject = turn.envelope.auth_subject
    given = bool(subject.strip())
    return (
        uuid_text(parent.org_id),
        parent_id,
        parent.harness_id.encode(),
        parent.harness_session_id.encode(),
        at,
        note.text(subject) if given else b"",
        at if given else _BEGINNING_OF_TIME,
    )
