"""What a `down` will lose, counted before anybody is asked.

Each count answers for one migration and says of the rows what that migration's SQL will do to
them: `migrations/<version>_<name>.down.sql` stands beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg

from tapes_cli.errors import SchemaError
from tapes_cli.store.postgres.migration_files import Migration, load_migrations
from tapes_cli.store.postgres.migrations import read_status, resolve_target
from tapes_cli.store.postgres.schema_status import explained

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tapes_cli.store.postgres.connect import PgConnection

_BASELINE = 1776773689
_SESSION_TRACKING = 1779329142
_ORG_KEYS = 1795305600
_CAPTURE_ORDER = 1795305700
_NEEDED_INDEXES = 1795305800
_IMPORT_STATE = 1795305900

# A row of an index takes about 2,700 bytes, as they are stored.
_COUNT_NEEDED_INDEXES = """
    SELECT (SELECT count(*) FROM nodes
            WHERE greatest(
                pg_column_size(role) + coalesce(pg_column_size(model), 0), pg_column_size(model),
                pg_column_size(provider), pg_column_size(agent_name), pg_column_size(project)
            ) > 2600)
         + (SELECT count(*) FROM sessions WHERE pg_column_size(auth_subject) > 2600)
"""

_COUNT_CAPTURE_ORDER = """
    SELECT count(*) FILTER (WHERE landings = 1),
           count(*) FILTER (
               WHERE landings = 1
                 AND num_nonnulls(stop_reason, prompt_tokens, completion_tokens, total_tokens) = 0),
           (SELECT count(*) FROM sessions WHERE total_cost_usd <> round(total_cost_usd, 4)),
           (SELECT count(*) FROM sessions WHERE abs(round(total_cost_usd, 4)) >= 1e8)
    FROM nodes
"""
_CAPTURE_ORDER_COUNTS = ("turns", "turns_unmarked", "costs_rounded", "costs_too_large")
_COUNT_ORG_KEYS = """
    SELECT count(*) FROM (SELECT FROM sessions GROUP BY id HAVING count(*) > 1) AS shared
"""
_COUNT_SESSION_TRACKING = """
    WITH ranked AS (
        SELECT org_id, parent_hash, session_id,
               row_number() OVER (
                   PARTITION BY hash
                   ORDER BY org_id <> '00000000-0000-0000-0000-000000000000', created_at, org_id
               ) AS place
        FROM nodes
    )
    SELECT (SELECT count(*) FROM sessions),
           count(*) FILTER (WHERE place = 2),
           count(*) FILTER (WHERE place > 1),
           count(*) FILTER (
               WHERE place = 1 AND parent_hash IS NOT NULL
                 AND NOT EXISTS (SELECT FROM nodes AS p WHERE p.hash = ranked.parent_hash)),
           count(*) FILTER (
               WHERE place = 1
                 AND (org_id <> '00000000-0000-0000-0000-000000000000'
                      OR session_id IS NOT NULL))
    FROM ranked
"""
_SESSION_TRACKING_COUNTS = (
    "sessions",
    "shared_hashes",
    "nodes_collapsed",
    "dangling_parents",
    "nodes_unattributed",
)
_COUNT_IMPORT_STATE = "SELECT count(*) FROM import_sources"
_COUNT_NODES = "SELECT count(*) FROM nodes"


@dataclass(frozen=True, slots=True)
class DownPlan:
    """What undoing migrations will do, counted in rows.

    Attributes:
        current: the version the schema is at, or None before the first migration.
        target: the version that will remain, `NO_SCHEMA` for none.
        steps: what will be undone, newest first.
        turns: turns whose capture time and counting session are forgotten.
        turns_unmarked: those of them that migrating up again cannot tell from mere history,
            because neither stop reason nor usage marks them.
        costs_rounded: sessions whose cost is cut to four decimals.
        costs_too_large: sessions whose cost the older column cannot hold.
        values_too_long: rows with a value that an older index cannot hold.
        captures: captures that the next import reads from their beginning.
        session_ids_shared: session ids that two orgs use, where the older key allows one.
        sessions: sessions that are lost.
        shared_hashes: hashes that several orgs hold, of which one row each remains.
        nodes_collapsed: rows that are lost by that.
        dangling_parents: remaining nodes whose parent is not stored and becomes NULL.
        nodes_unattributed: remaining nodes that forget their org or session.
        nodes_dropped: nodes lost because their table goes, after all of the above.
    """

    current: int | None
    target: int
    steps: tuple[Migration, ...]
    turns: int = 0
    turns_unmarked: int = 0
    costs_rounded: int = 0
    costs_too_large: int = 0
    values_too_long: int = 0
    captures: int = 0
    session_ids_shared: int = 0
    sessions: int = 0
    shared_hashes: int = 0
    nodes_collapsed: int = 0
    dangling_parents: int = 0
    nodes_unattributed: int = 0
    nodes_dropped: int = 0

    @property
    def lossless(self) -> bool:
        """Whether nothing that is stored will be lost; what was read can be read again."""
        return not any(
            (
                self.turns,
                self.costs_rounded,
                self.sessions,
                self.nodes_collapsed,
                self.dangling_parents,
                self.nodes_unattributed,
                self.nodes_dropped,
            )
        )

    @property
    def possible(self) -> bool:
        """Whether the older schema can hold what remains."""
        return not (self.costs_too_large or self.values_too_long or self.session_ids_shared)


def plan_down(
    conn: PgConnection,
    target: int | None = None,
    *,
    steps: int | None = None,
    migrations: Sequence[Migration] | None = None,
) -> DownPlan:
    """Count what a `down` would lose, all from one snapshot. Changes nothing.

    Args:
        conn: a connection outside any transaction.
        target: the version that is to remain, or `NO_SCHEMA`; None goes by `steps`.
        steps: how many migrations to undo; one if neither this nor `target` is given.
        migrations: what would be undone; None for those of this program.

    Raises:
        SchemaError: the schema is ahead or dirty, or its tables are not what its version says.
        UsageError: `steps` is not positive, or `target` is unknown or newer than the schema.
        MigrationLockedError: somebody is migrating it at the moment.
        DatabaseUnavailableError: the connection was lost.
    """
    known = migrations or load_migrations()
    found = read_status(conn, known)
    remaining = resolve_target(found, steps, target)
    undone = tuple(step for step in reversed(found.applied) if step.version > remaining)
    with explained(conn, None), conn.transaction():
        conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        try:
            counts = _count(conn, {step.version for step in undone})
        except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn) as error:
            raise SchemaError(
                f"The tables are not those of version {found.current}, at which the schema is.",
                hint="Somebody changed them by hand; it cannot be told what would be lost.",
            ) from error
    return DownPlan(found.current, remaining, undone, **counts)


def _count(conn: PgConnection, undone: set[int]) -> dict[str, int]:
    counts: dict[str, int] = {}
    if _IMPORT_STATE in undone:
        counts |= _row(conn, _COUNT_IMPORT_STATE, ("captures",))
    if _NEEDED_INDEXES in undone:
        counts |= _row(conn, _COUNT_NEEDED_INDEXES, ("values_too_long",))
    if _CAPTURE_ORDER in undone:
        counts |= _row(conn, _COUNT_CAPTURE_ORDER, _CAPTURE_ORDER_COUNTS)
    if _ORG_KEYS in undone:
        counts |= _row(conn, _COUNT_ORG_KEYS, ("session_ids_shared",))
    if _SESSION_TRACKING in undone:
        counts |= _row(conn, _COUNT_SESSION_TRACKING, _SESSION_TRACKING_COUNTS)
    if _BASELINE in undone:
        total = _row(conn, _COUNT_NODES, ("nodes",))["nodes"]
        counts["nodes_dropped"] = total - counts.get("nodes_collapsed", 0)
    return counts


def _row(conn: PgConnection, query: str, names: Sequence[str]) -> dict[str, int]:
    row = conn.execute(query.encode()).fetchone()
    return dict(zip(names, row or (), strict=True))
