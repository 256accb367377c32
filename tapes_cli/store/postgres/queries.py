"""Reads: sessions, and the nodes of a session's conversations.

Every statement is scoped by org, except where a user may name a session without its org:
`sessions` and `find` span orgs unless one is given. What is sensitive (`auth_subject`,
`harness_metadata`) is never selected.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
from psycopg.rows import class_row

from tapes_cli.errors import DatabaseUnavailableError
from tapes_cli.model.turn import Usage
from tapes_cli.store.postgres.connect import connect
from tapes_cli.store.postgres.migrations import require_current
from tapes_cli.store.postgres.retry import Fault, fault

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    from tapes_cli.model.json import JSON

MOST_CANDIDATES = 11
"""So many sessions at most are found under a part of an id."""

_SELECT: LiteralString = """
SELECT
    s.org_id, s.id, s.harness_id, s.harness_session_id, s.name, s.cwd, s.harness_version,
    s.parent_session_id, s.started_at, s.last_seen_at, s.turn_count, s.total_input_tokens,
    s.total_output_tokens, s.placeholder
FROM sessions AS s
"""

_PAGE: LiteralString = """
ORDER BY s.last_seen_at DESC, s.id DESC
LIMIT %(limit)s
"""

_EXACTLY = """
(s.harness_session_id = %(name)s OR s.id::text = lower(%(name)s))
"""

_PARTLY = """
(starts_with(s.harness_session_id, %(name)s)
 OR right(s.harness_session_id, length(%(name)s)) = %(name)s
 OR starts_with(s.id::text, lower(%(name)s))
 OR right(s.id::text, length(%(name)s)) = lower(%(name)s))
"""

# The session itself is left out: it may be its own parent in a damaged database.
_RELATIVES: LiteralString = """
WHERE s.org_id = %(org)s
  AND (s.id = ANY (%(ids)s) OR s.parent_session_id = %(id)s)
  AND s.id <> %(id)s
ORDER BY s.started_at, s.id
"""

# The planner takes the steps of a walk for wide ones and would read the whole table at each of
# them: LIMIT 1 leaves it no way but to look each node up by its key.

# What the users said first in the conversations that began these sessions: from the head of the
# earliest turn up to the root, then down again to three messages at most.
_OPENINGS = """
WITH RECURSIVE line (id, hash, parent_hash, role, depth) AS (
    SELECT session.id, head.hash, head.parent_hash, head.role, 0
    FROM unnest(%(ids)s::uuid[]) AS session (id)
    CROSS JOIN LATERAL (
        SELECT n.hash, n.parent_hash, n.role
        FROM nodes AS n
        WHERE n.org_id = %(org)s AND n.turn_session_id = session.id AND n.landings = 1
        ORDER BY n.turn_at, n.hash
        LIMIT 1
    ) AS head
  UNION ALL
    SELECT line.id, parent.hash, parent.parent_hash, parent.role, line.depth + 1
    FROM line
    CROSS JOIN LATERAL (
        SELECT n.hash, n.parent_hash, n.role
        FROM nodes AS n
        WHERE n.org_id = %(org)s AND n.hash = line.parent_hash
        LIMIT 1
    ) AS parent
), first_said AS (
    SELECT id, hash, row_number() OVER (PARTITION BY id ORDER BY depth DESC) AS place
    FROM line
    WHERE role = 'user'
)
SELECT f.id, jsonb_path_query_array(n.content, '$[*] ? (@.type == "text").text')
FROM first_said AS f
CROSS JOIN LATERAL (
    SELECT n.content FROM nodes AS n WHERE n.org_id = %(org)s AND n.hash = f.hash LIMIT 1
) AS n
WHERE f.place <= 3
ORDER BY f.id, f.place
"""

# From every node that the session owns or has its turns on, up to the roots; each node once.
_CONVERSATION = """
WITH RECURSIVE line (hash, parent_hash) AS (
    SELECT n.hash, n.parent_hash
    FROM nodes AS n
    WHERE n.org_id = %(org)s
      AND ((n.turn_session_id = %(id)s AND n.landings = 1) OR n.session_id = %(id)s)
  UNION
    SELECT parent.hash, parent.parent_hash
    FROM line
    CROSS JOIN LATERAL (
        SELECT n.hash, n.parent_hash
        FROM nodes AS n
        WHERE n.org_id = %(org)s AND n.hash = line.parent_hash
        LIMIT 1
    ) AS parent
)
SELECT n.hash, n.parent_hash, coalesce(n.role, ''), n.content, coalesce(n.model, ''),
       n.created_at, n.session_id, n.landings = 1, n.turn_at, n.turn_session_id,
       coalesce(n.stop_reason, ''), n.prompt_tokens, n.completion_tokens, n.total_tokens,
       n.cache_creation_input_tokens, n.cache_read_input_tokens, n.total_duration_ns,
       n.prompt_duration_ns
FROM line
CROSS JOIN LATERAL (
    SELECT * FROM nodes AS n WHERE n.org_id = %(org)s AND n.hash = line.hash LIMIT 1
) AS n
"""


@dataclass(frozen=True, slots=True)
class SessionRow:
    """A row of `sessions`, without what is sensitive.

    A placeholder stands for a parent that a child has named and that has no turn yet.
    """

    org_id: UUID
    id: UUID
    harness_id: str
    harness_session_id: str
    name: str | None
    cwd: str | None
    harness_version: str | None
    parent_session_id: UUID | None
    started_at: datetime
    last_seen_at: datetime
    turn_count: int
    total_input_tokens: int
    total_output_tokens: int
    placeholder: bool


@dataclass(frozen=True, slots=True)
class LandedTurn:
    """A turn that has landed on a node, its head.

    `at` is its capture time (UTC), `session_id` the session that counts it.
    """

    at: datetime | None
    session_id: UUID | None
    stop_reason: str
    usage: Usage


@dataclass(frozen=True, slots=True)
class NodeRow:
    """A row of `nodes`: a message in its place.

    `session_id` is the session that owns it: of all that have it, the one captured first.
    `parent_hash` is None at a root.
    """

    hash: str
    parent_hash: str | None
    role: str
    content: JSON
    model: str
    created_at: datetime
    session_id: UUID | None
    turn: LandedTurn | None


@dataclass(frozen=True, slots=True)
class SessionFilter:
    """Which sessions to list; what is None does not matter.

    `since` is inclusive, `until` exclusive; both are about the last activity. `after` is where
    the page before ended: last activity and id.
    """

    org_id: UUID | None = None
    harness_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    after: tuple[datetime, UUID] | None = None

    def following(self, row: SessionRow) -> SessionFilter:
        """Return the filter for what comes after this row."""
        return replace(self, after=(row.last_seen_at, row.id))


_CONDITIONS: dict[str, LiteralString] = {
    "org_id": "s.org_id = %(org_id)s",
    "harness_id": "s.harness_id = %(harness_id)s",
    "since": "s.last_seen_at >= %(since)s",
    "until": "s.last_seen_at < %(until)s",
    "after": "(s.last_seen_at, s.id) < (%(after_at)s, %(after_id)s)",
}


def _conditions(chosen: SessionFilter) -> tuple[LiteralString, dict[str, Any]]:
    given = {name: value for name in _CONDITIONS if (value := getattr(chosen, name)) is not None}
    where: LiteralString = " AND ".join([_CONDITIONS[name] for name in given]) or "true"
    if chosen.after:
        given["after_at"], given["after_id"] = given.pop("after")
    return where, given


class Queries:
    """Reads through one connection, all of it from one moment of the database."""

    def __init__(self, conn: psycopg.Connection[Any]) -> None:
        self._conn = conn

    def sessions(self, chosen: SessionFilter, limit: int) -> list[SessionRow]:
        """Return so many sessions, the newest activity first. Spans orgs unless one is given."""
        where, values = _conditions(chosen)
        return self._session_rows(f"{_SELECT} WHERE {where} {_PAGE}", {**values, "limit": limit})

    def find(self, name: str, chosen: SessionFilter) -> list[SessionRow]:
        """Return the sessions that a name may mean, at most `MOST_CANDIDATES`.

        The name is an id or a harness session id; only if no session has it, the beginning or
        the end of one. Spans orgs unless one is given.
        """
        where, values = _conditions(chosen)
        for match in (_EXACTLY, _PARTLY):
            found = self._session_rows(
                f"{_SELECT} WHERE {where} AND {match} {_PAGE}",
                {**values, "name": name, "limit": MOST_CANDIDATES},
            )
            if found:
                return found
        return []

    def relatives(self, session: SessionRow, ids: Iterable[UUID]) -> list[SessionRow]:
        """Return the session's children and the sessions with these ids, in the same org."""
        return self._session_rows(
            _SELECT + _RELATIVES, {"org": session.org_id, "id": session.id, "ids": list(ids)}
        )

    def openings(self, org_id: UUID, ids: Sequence[UUID]) -> dict[UUID, list[str]]:
        """Return the first texts that users said in these sessions of an org, in their order.

        Texts of three messages at most, as they are stored. Sessions without turns are left out.
        """
        said: dict[UUID, list[str]] = {}
        for session_id, texts in self._conn.execute(_OPENINGS, {"org": org_id, "ids": list(ids)}):
            said.setdefault(session_id, []).extend(t for t in texts or () if isinstance(t, str))
        return said

    def conversation(self, session: SessionRow) -> list[NodeRow]:
        """Return all nodes of the session's conversations, histories included, in no order."""
        cursor = self._conn.execute(_CONVERSATION, {"org": session.org_id, "id": session.id})
        return [_node(row) for row in cursor]

    def _session_rows(self, query: LiteralString, values: Mapping[str, Any]) -> list[SessionRow]:
        with self._conn.cursor(row_factory=class_row(SessionRow)) as cursor:
            return cursor.execute(query, values).fetchall()


def _node(row: Sequence[Any]) -> NodeRow:
    address, parent, role, content, model, created_at, session_id, landed = row[:8]
    at, counted_by, stop_reason, *usage = row[8:]
    turn = LandedTurn(at, counted_by, stop_reason, Usage(*usage)) if landed else None
    return NodeRow(address, parent, role, content, model, created_at, session_id, turn)


@contextmanager
def open_queries(dsn: str, origin: str = "") -> Iterator[Queries]:
    """Connect, check the schema, and give the reads of one snapshot.

    `origin` says where the DSN came from (`settings.Connection.origin`).

    Raises:
        SchemaError: the schema is not the one that this program knows. Nothing is migrated.
        DatabaseUnavailableError: the database cannot be reached, was lost, or may not be read.
    """
    with connect(dsn) as conn:
        require_current(conn, origin=origin)
        conn.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        conn.read_only = True
        try:
            with conn.transaction():
                yield Queries(conn)
        except psycopg.errors.InsufficientPrivilege as error:
            raise DatabaseUnavailableError(
                "This user may not read the tables `sessions` and `nodes`.",
                hint="Grant it SELECT on both, or name another user.",
            ) from error
        except psycopg.Error as error:
            if fault(error) not in {Fault.CONNECTION, Fault.TRANSIENT}:
                raise
            raise DatabaseUnavailableError(
                "The database was lost while it was read.", hint="Run the command again."
            ) from error
