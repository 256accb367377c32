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

from dataclasses import dataclass, field, replace
from functools import lru_cache
from operator import attrgetter
from typing import TYPE_CHECKING

from uuid6 import uuid7

from tapes_cli.store.base import ChainedTurn, Outcome, OutcomeKind
from tapes_cli.store.postgres.known import Known, NodeFact, SessionFact
from tapes_cli.store.postgres.rows import (
    NodeRow,
    NodeRows,
    Sanitised,
    counters,
    is_nearer,
    landing,
    placeholder_row,
    session_row,
    turn_claim,
    uuid_text,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tapes_cli.model.envelope import SessionKey
    from tapes_cli.store.postgres.pipeline import Answer, Parameter, Statement

PLACEHOLDER = """
INSERT INTO sessions AS s (
    org_id, id, harness_id, harness_session_id, started_at, last_seen_at,
    auth_subject, auth_subject_at, auth_subject_own, placeholder
) VALUES ($1, $2, $3, $4, $5, $5, $6, $7, false, true)
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
    $1, $2, $3, $4, $5, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19,
    $20, $21, $22
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
RETURNING CASE WHEN xmax = 0 THEN 'new' ELSE turn_count::text END
"""

# What each column of a new row is given: `$n` are values that all rows of a turn have, {n} those
# that are a row's own.
_KEY = {
    "org_id": "$1::uuid",
    "hash": "{0}::text",
    "parent_hash": "{1}::text",
    "type": "'message'",
    "role": "{2}::text",
}
_OWNED = {
    "content": "{3}::jsonb",
    "bucket": "jsonb_build_object('type', 'message', 'role', {2}::text, 'content', {3}::jsonb,"
    " 'model', {4}::text, 'provider', $2::text, 'agent_name', $3::text)",
    "model": "{4}::text",
    "provider": "$2::text",
    "agent_name": "$3::text",
    "project": "$4::text",
    "session_id": "$5::uuid",
    "created_at": "$6::timestamptz",
    "claim": "{5}::bigint",
}
_LANDED = {
    "landings": "1",
    "stop_reason": "{6}::text",
    "prompt_tokens": "{7}::integer",
    "completion_tokens": "{8}::integer",
    "total_tokens": "{9}::integer",
    "cache_creation_input_tokens": "{10}::integer",
    "cache_read_input_tokens": "{11}::integer",
    "total_duration_ns": "{12}::bigint",
    "prompt_duration_ns": "{13}::bigint",
    "turn_at": "$6::timestamptz",
    "turn_session_id": "$5::uuid",
    "turn_claim": "{14}::bigint",
}
_NOT_LANDED = {"landings": "0"}
_COLUMNS = (*_KEY, *_OWNED, *_LANDED)
_SHARED_VALUES = 6
_OWN_VALUES = 6
_LANDING_VALUES = 9
_EARLIER = "(EXCLUDED.created_at, EXCLUDED.claim) < (n.created_at, n.claim)"

_MOST_ROWS_WITH_HEAD = 8
_ROWS_OF_HISTORY = (64, 16, 4, 1)
"""So many statements at most are prepared, and few are needed for a long history."""


@lru_cache(maxsize=256)
def nodes_statement(rows: int, head: int | None) -> str:
    """Return NODES for so many rows; `head` is the place of the head's among them, if it is there.

    The earlier capture owns the node; the turn that lands brings stop reason, usage and time;
    landing twice breaks the check on `landings`.
    """
    values = []
    first = _SHARED_VALUES + 1
    for index in range(rows):
        given = _KEY | _OWNED | (_LANDED if index == head else _NOT_LANDED)
        own = _OWN_VALUES + (_LANDING_VALUES if index == head else 0)
        places = [f"${first + i}" for i in range(own)]
        values.append(", ".join(given.get(c, "NULL").format(*places) for c in _COLUMNS))
        first += own
    owned = (f"{c} = CASE WHEN {_EARLIER} THEN EXCLUDED.{c} ELSE n.{c} END" for c in _OWNED)
    landed = (
        f"{c} = CASE WHEN EXCLUDED.landings = 1 THEN EXCLUDED.{c} ELSE n.{c} END"
        for c in list(_LANDED)[1:]
    )
    # Column names and placeholders are the constants above; values are always parameters.
    return f"""
INSERT INTO nodes AS n ({", ".join(_COLUMNS)})
VALUES {", ".join(f"({row})" for row in values)}
ON CONFLICT (org_id, hash) DO UPDATE SET
    landings = n.landings + EXCLUDED.landings,
    {", ".join((*owned, *landed))}
WHERE {_EARLIER} OR EXCLUDED.landings = 1
RETURNING CASE WHEN xmax = 0 THEN 'new' END
"""  # noqa: S608


@dataclass(slots=True)
class Transaction:
    """The statements of one turn's transaction, and the outcome once it is committed.

    Attributes:
        outcome: what is believed to come of it.
        statements: in their order.
        first_turn: whether the turn is believed to be the first of a session that counts.
    """

    outcome: Outcome
    statements: list[Statement] = field(default_factory=list)
    first_turn: bool = False

    def outcome_by(self, answers: Sequence[Answer]) -> Outcome:
        """Return the outcome by what the statements said: others may have been faster.

        SESSION says whether its row is new, else how many turns it has, NODES which rows are new.
        """
        outcome = self.outcome
        new_nodes, new_session = 0, outcome.new_session
        for statement, rows in answers:
            if statement is SESSION:
                stored = outcome.kind is OutcomeKind.STORED
                first = rows == [b"1"] and self.first_turn if stored else outcome.new_session
                new_session = rows == [b"new"] or first
            else:
                new_nodes += rows.count(b"new")
        return replace(outcome, new_nodes=new_nodes, new_session=new_session)


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
        self._chain = turn.chain
        self._facts = known.nodes[turn.org_id]
        self._note = Sanitised()
        self._transaction = Transaction(Outcome(OutcomeKind.DUPLICATE))

    def plan(self) -> Transaction:
        head = self._facts.get(self._chain.head.hash)
        digest = turn_claim(self._turn, self._known.envelope_texts.of(self._turn.envelope))
        landed = head is not None and head.landed
        if landed and head is not None and (head.turn_claim == digest or self._tells_nothing()):
            return self._transaction
        session_id, new_session = self._session(counts=not landed)
        self._transaction.first_turn = new_session
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

    def _session(self, *, counts: bool) -> tuple[bytes | None, bool]:
        """Take steps 3, 4 and 6: parent, session, counters. Return the id, and if it is new."""
        turn = self._turn
        if turn.session is None:
            return None, False
        parent_id = self._parent(turn.parent) if turn.parent else None
        fact = self._known.sessions.get(turn.session)
        session_id = fact.id if fact else uuid_text(uuid7())
        borrows = not turn.envelope.auth_subject.strip() and (fact is None or fact.borrower)
        self._known.sessions[turn.session] = SessionFact(
            session_id, placeholder=False, borrower=borrows
        )
        row = session_row(turn, (session_id, parent_id), self._note)
        self._add(SESSION, (*row, *counters(turn.turn, counts=counts)))
        return session_id, fact is None or fact.placeholder

    def _parent(self, parent: SessionKey) -> bytes:
        fact = self._known.sessions.get(parent) or SessionFact(
            uuid_text(uuid7()), placeholder=True, borrower=True
        )
        if fact.borrower:
            self._add(PLACEHOLDER, placeholder_row(self._turn, fact.id, self._note))
            self._known.sessions[parent] = fact
        return fact.id

    def _insert_nodes(self, session_id: bytes | None, digest: int) -> int:
        """Take step 5: nodes that are new, taken over or landed on. Return how many are new."""
        rows = NodeRows(self._turn, session_id, self._note)
        head = len(self._chain) - 1
        first = head - self._known.unsettled(self._turn)
        needed = [rows.row(i) for i in range(first, head) if self._is_needed(rows, i)]
        needed.append(rows.row(head))
        new_nodes = sum(row.hash not in self._facts for row in needed)
        for row in needed:
            self._believe(row)
        self._believe_landed(digest)
        landed = landing(self._turn.turn, digest, self._note)
        for part in _in_parts(needed):
            self._add_nodes(rows.shared, part, landed)
        return new_nodes

    def _is_needed(self, rows: NodeRows, index: int) -> bool:
        fact = self._facts.get(self._chain.hash_at(index))
        if fact is None:
            return True
        at = self._turn.turn.captured.at
        if at != fact.created_at:
            return at < fact.created_at
        if is_nearer(fact.claim, len(self._chain) - 1 - index):
            return False
        return rows.row(index).claim < fact.claim

    def _believe(self, row: NodeRow) -> None:
        fact, at = self._facts.get(row.hash), self._turn.turn.captured.at
        if fact is None:
            self._facts[row.hash] = NodeFact(at, row.claim, landed=False, turn_claim=None)
        elif (at, row.claim) < (fact.created_at, fact.claim):
            self._facts[row.hash] = fact._replace(created_at=at, claim=row.claim)

    def _believe_landed(self, digest: int) -> None:
        head = self._chain.head.hash
        fact = self._facts.get(head)
        assert fact is not None  # noqa: S101  # believed a moment ago
        self._facts[head] = fact._replace(landed=True, turn_claim=digest)

    def _add_nodes(
        self, shared: Sequence[Parameter], rows: list[NodeRow], landed: Sequence[Parameter]
    ) -> None:
        values = [*shared]
        place = None
        for index, row in enumerate(rows):
            values += row.values
            if row.hash == self._chain.head.hash:
                place = index
                values += landed
        self._add(nodes_statement(len(rows), place), values)

    def _add(self, statement: str, values: Sequence[Parameter]) -> None:
        self._transaction.statements.append((statement, values))


def _in_parts(rows: list[NodeRow]) -> Iterator[list[NodeRow]]:
    """Yield the rows in as many parts as there are to be statements; the last row is the head's.

    One order for everybody, so that two imports of one history cannot wait for each other.
    """
    head = rows[-1].hash
    ordered = sorted(rows, key=attrgetter("hash"))
    if len(rows) <= _MOST_ROWS_WITH_HEAD:
        yield ordered
        return
    before = [row for row in ordered if row.hash < head]
    yield from _history_parts(before)
    yield [rows[-1]]
    yield from _history_parts(ordered[len(before) + 1 :])


def _history_parts(rows: list[NodeRow]) -> Iterator[list[NodeRow]]:
    start = 0
    for size in _ROWS_OF_HISTORY:
        while len(rows) - start >= size:
            yield rows[start : start + size]
            start += size
