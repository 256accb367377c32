"""The transaction of a turn: what storing one turn does to `sessions` and `nodes`.

A turn is one transaction of at most three statements:

1. PLACEHOLDER: the parent, where one is named and not yet there, so that it can be referred to;
2. SESSION: the turn's own session, joined field by field with what is stored, its counters moved
   by a turn that lands;
3. NODES: those of the chain that are new, that this capture owns because it is earlier, and the
   head, on which the turn lands.

Each statement joins with what it finds and never depends on the order in which turns arrive, so
`sessions` and `nodes` are a function of the set of turns imported. Only an identical whole turn
(one whose head has landed before) leaves nodes and counters as they are: it counts once.

A turn counts because its head is believed not to have landed. Should another import have landed
it meanwhile, `landings` would become 2, which the schema refuses; the transaction is undone, the
database looked at again, and the turn found to be a duplicate.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from uuid6 import uuid7

from tapes_cli.store.base import ChainedTurn, Outcome, OutcomeKind
from tapes_cli.store.postgres.known import Known, NodeFact, SessionFact
from tapes_cli.store.postgres.rows import (
    NodeRow,
    NodeRows,
    Sanitised,
    landing,
    placeholder_row,
    session_row,
    turn_claim,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from tapes_cli.model.envelope import SessionKey

PLACEHOLDER = """
INSERT INTO sessions AS s (
    org_id, id, harness_id, harness_session_id, started_at, last_seen_at,
    auth_subject, auth_subject_at, auth_subject_own, placeholder
) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, false, true)
ON CONFLICT (org_id, harness_id, harness_session_id) DO UPDATE SET
    started_at = CASE WHEN s.placeholder
        THEN LEAST(s.started_at, EXCLUDED.started_at) ELSE s.started_at END,
    last_seen_at = CASE WHEN s.placeholder
        THEN GREATEST(s.last_seen_at, EXCLUDED.last_seen_at) ELSE s.last_seen_at END,
    auth_subject = CASE WHEN NOT s.auth_subject_own
            AND (EXCLUDED.auth_subject_at, EXCLUDED.auth_subject COLLATE "C")
              > (s.auth_subject_at, s.auth_subject)
        THEN EXCLUDED.auth_subject ELSE s.auth_subject END,
    auth_subject_at = CASE WHEN NOT s.auth_subject_own
        THEN GREATEST(s.auth_subject_at, EXCLUDED.auth_subject_at) ELSE s.auth_subject_at END
WHERE s.placeholder AND (EXCLUDED.started_at < s.started_at
                         OR EXCLUDED.last_seen_at > s.last_seen_at)
   OR NOT s.auth_subject_own AND (EXCLUDED.auth_subject_at, EXCLUDED.auth_subject COLLATE "C")
                               > (s.auth_subject_at, s.auth_subject)
"""

SESSION = """
INSERT INTO sessions AS s (
    org_id, id, harness_id, harness_session_id, started_at, last_seen_at,
    auth_subject, auth_subject_own, auth_subject_at, name, name_at, cwd, cwd_at,
    harness_version, harness_version_at, parent_session_id, parent_key, parent_at,
    harness_metadata, harness_metadata_at, turn_count, total_input_tokens, total_output_tokens
) VALUES (
    $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20,
    $21, $22, $23
)
ON CONFLICT (org_id, harness_id, harness_session_id) DO UPDATE SET
    placeholder = false,
    started_at = CASE WHEN s.placeholder
        THEN EXCLUDED.started_at ELSE LEAST(s.started_at, EXCLUDED.started_at) END,
    last_seen_at = CASE WHEN s.placeholder
        THEN EXCLUDED.last_seen_at ELSE GREATEST(s.last_seen_at, EXCLUDED.last_seen_at) END,
    auth_subject = CASE WHEN (EXCLUDED.auth_subject_own, EXCLUDED.auth_subject_at,
                              EXCLUDED.auth_subject COLLATE "C")
                           > (s.auth_subject_own, s.auth_subject_at, s.auth_subject)
        THEN EXCLUDED.auth_subject ELSE s.auth_subject END,
    auth_subject_at = CASE WHEN (EXCLUDED.auth_subject_own, EXCLUDED.auth_subject_at)
                              > (s.auth_subject_own, s.auth_subject_at)
        THEN EXCLUDED.auth_subject_at ELSE s.auth_subject_at END,
    auth_subject_own = s.auth_subject_own OR EXCLUDED.auth_subject_own,
    name = CASE WHEN (EXCLUDED.name_at, EXCLUDED.name COLLATE "C") > (s.name_at, s.name)
        THEN EXCLUDED.name ELSE s.name END,
    name_at = GREATEST(s.name_at, EXCLUDED.name_at),
    cwd = CASE WHEN (EXCLUDED.cwd_at, EXCLUDED.cwd COLLATE "C") > (s.cwd_at, s.cwd)
        THEN EXCLUDED.cwd ELSE s.cwd END,
    cwd_at = GREATEST(s.cwd_at, EXCLUDED.cwd_at),
    harness_version = CASE WHEN (EXCLUDED.harness_version_at, EXCLUDED.harness_version COLLATE "C")
                              > (s.harness_version_at, s.harness_version)
        THEN EXCLUDED.harness_version ELSE s.harness_version END,
    harness_version_at = GREATEST(s.harness_version_at, EXCLUDED.harness_version_at),
    parent_session_id = CASE WHEN (EXCLUDED.parent_at, EXCLUDED.parent_key COLLATE "C")
                                > (s.parent_at, s.parent_key)
        THEN EXCLUDED.parent_session_id ELSE s.parent_session_id END,
    parent_key = CASE WHEN (EXCLUDED.parent_at, EXCLUDED.parent_key COLLATE "C")
                         > (s.parent_at, s.parent_key)
        THEN EXCLUDED.parent_key ELSE s.parent_key END,
    parent_at = GREATEST(s.parent_at, EXCLUDED.parent_at),
    harness_metadata = CASE WHEN EXCLUDED.harness_metadata = '{}' THEN s.harness_metadata
        ELSE s.harness_metadata || tapes_winners(
            EXCLUDED.harness_metadata, s.harness_metadata, s.harness_metadata_at,
            EXCLUDED.harness_metadata, EXCLUDED.harness_metadata_at) END,
    harness_metadata_at = CASE WHEN EXCLUDED.harness_metadata = '{}' THEN s.harness_metadata_at
        ELSE s.harness_metadata_at || tapes_winners(
            EXCLUDED.harness_metadata_at, s.harness_metadata, s.harness_metadata_at,
            EXCLUDED.harness_metadata, EXCLUDED.harness_metadata_at) END,
    turn_count = s.turn_count + EXCLUDED.turn_count,
    total_input_tokens = s.total_input_tokens + EXCLUDED.total_input_tokens,
    total_output_tokens = s.total_output_tokens + EXCLUDED.total_output_tokens
"""

_KEY = ("org_id", "hash", "parent_hash", "type", "role")
_OWNED = (
    "content",
    "bucket",
    "model",
    "provider",
    "agent_name",
    "project",
    "session_id",
    "created_at",
    "claim",
)
_LANDED = (
    "landings",
    "stop_reason",
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "cache_creation_input_tokens",
    "cache_read_input_tokens",
    "total_duration_ns",
    "prompt_duration_ns",
    "turn_at",
    "turn_session_id",
    "turn_claim",
)
_EARLIER = "(EXCLUDED.created_at, EXCLUDED.claim) < (n.created_at, n.claim)"
_MOST_ROWS = 1000


@lru_cache(maxsize=256)
def nodes_statement(rows: int) -> str:
    """Return NODES for so many rows.

    The earlier capture owns the node; the turn that lands brings stop reason, usage and time;
    landing twice breaks the check on `landings`.
    """
    columns = (*_KEY, *_OWNED, *_LANDED)
    width = len(columns)
    values = (
        f"({', '.join(f'${first + i}' for i in range(1, width + 1))})"
        for first in range(0, rows * width, width)
    )
    owned = (f"{c} = CASE WHEN {_EARLIER} THEN EXCLUDED.{c} ELSE n.{c} END" for c in _OWNED)
    landed = (
        f"{c} = CASE WHEN EXCLUDED.landings = 1 THEN EXCLUDED.{c} ELSE n.{c} END"
        for c in _LANDED[1:]
    )
    # Column names and placeholders are the constants above; values are always parameters.
    return f"""
INSERT INTO nodes AS n ({", ".join(columns)})
VALUES {", ".join(values)}
ON CONFLICT (org_id, hash) DO UPDATE SET
    landings = n.landings + EXCLUDED.landings,
    {", ".join((*owned, *landed))}
WHERE {_EARLIER} OR EXCLUDED.landings = 1
"""  # noqa: S608


@dataclass(slots=True)
class Transaction:
    """The statements of one turn's transaction, and the outcome once it is committed."""

    outcome: Outcome
    statements: list[tuple[str, Sequence[Any]]] = field(default_factory=list)


def plan(turn: ChainedTurn, known: Known) -> Transaction:
    """Decide what a turn does to the database, by what is believed to be stored.

    The beliefs are moved on as if the transaction had been committed: the next turn of the
    session is planned on top of it.
    """
    return _Planner(turn, known).plan()


class _Planner:
    """Goes through the steps of one turn's transaction."""

    def __init__(self, turn: ChainedTurn, known: Known) -> None:
        self._turn = turn
        self._known = known
        self._nodes = turn.chain.nodes
        self._facts = known.nodes[turn.org_id]
        self._note = Sanitised()
        self._transaction = Transaction(Outcome(OutcomeKind.DUPLICATE))

    def plan(self) -> Transaction:
        head = self._facts.get(self._nodes[-1].hash)
        digest = turn_claim(self._turn)
        landed = head is not None and head.landed
        if landed and head is not None and (head.turn_claim == digest or self._tells_nothing()):
            return self._transaction
        session_id, new_session = self._session(counts=not landed)
        kind, new_nodes = OutcomeKind.DUPLICATE, 0
        if not landed:
            kind, new_nodes = OutcomeKind.STORED, self._insert_nodes(session_id, digest)
        self._transaction.outcome = Outcome(kind, new_nodes, new_session, self._note.seen)
        return self._transaction

    def _tells_nothing(self) -> bool:
        """Tell whether a duplicate has no time of its own, so that nothing it says is newer."""
        session = self._turn.session
        fact = self._known.sessions.get(session) if session else None
        return not self._turn.turn.captured.dated and fact is not None and not fact.placeholder

    def _session(self, *, counts: bool) -> tuple[UUID | None, bool]:
        """Take steps 3, 4 and 6: parent, session, counters. Return the id, and if it is new."""
        turn = self._turn
        if turn.session is None:
            return None, False
        parent_id = self._parent(turn.parent) if turn.parent else None
        fact = self._known.sessions.get(turn.session)
        session_id = fact.id if fact else uuid7()
        borrows = not turn.envelope.auth_subject.strip() and (fact is None or fact.borrower)
        self._known.sessions[turn.session] = SessionFact(
            session_id, placeholder=False, borrower=borrows
        )
        usage = turn.turn.usage
        counters = (1, usage.prompt_tokens or 0, usage.completion_tokens or 0)
        row = session_row(turn, (session_id, parent_id), self._note)
        self._add(SESSION, (*row, *(counters if counts else (0, 0, 0))))
        return session_id, fact is None or fact.placeholder

    def _parent(self, parent: SessionKey) -> UUID:
        fact = self._known.sessions.get(parent) or SessionFact(
            uuid7(), placeholder=True, borrower=True
        )
        if fact.borrower:
            self._add(PLACEHOLDER, placeholder_row(self._turn, fact.id, self._note))
            self._known.sessions[parent] = fact
        return fact.id

    def _insert_nodes(self, session_id: UUID | None, digest: int) -> int:
        """Take step 5: nodes that are new, taken over or landed on. Return how many are new."""
        rows = NodeRows(self._turn, session_id, self._note)
        head = len(self._nodes) - 1
        first = head - self._known.unsettled(self._turn)
        needed = [rows.row(i) for i in range(first, head) if self._is_needed(rows, i)]
        needed.append(rows.row(head, landing(self._turn, session_id, digest, self._note)))
        new_nodes = sum(row.hash not in self._facts for row in needed)
        for row in needed:
            self._believe(row)
        self._believe_landed(digest)
        # One order for everybody, so that two imports of one history cannot wait for each other.
        needed.sort(key=lambda row: row.hash)
        for start in range(0, len(needed), _MOST_ROWS):
            part = needed[start : start + _MOST_ROWS]
            self._add(nodes_statement(len(part)), [v for row in part for v in row.values])
        return new_nodes

    def _is_needed(self, rows: NodeRows, index: int) -> bool:
        fact = self._facts.get(self._nodes[index].hash)
        if fact is None:
            return True
        at = self._turn.turn.captured.at
        if at != fact.created_at:
            return at < fact.created_at
        return rows.row(index).claim < fact.claim

    def _believe(self, row: NodeRow) -> None:
        fact = self._facts.get(row.hash)
        if fact is None:
            self._facts[row.hash] = NodeFact(
                row.created_at, row.claim, landed=False, turn_claim=None
            )
        elif (row.created_at, row.claim) < (fact.created_at, fact.claim):
            self._facts[row.hash] = fact._replace(created_at=row.created_at, claim=row.claim)

    def _believe_landed(self, digest: int) -> None:
        head = self._nodes[-1].hash
        self._facts[head] = self._facts[head]._replace(landed=True, turn_claim=digest)

    def _add(self, statement: str, values: Sequence[Any]) -> None:
        self._transaction.statements.append((statement, values))
