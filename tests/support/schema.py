"""A populated database of two orgs, and what a schema looks like from outside."""

from __future__ import annotations

from typing import Any, LiteralString
from uuid import UUID

import psycopg

BASELINE = 1776773689
ANCESTRY = 1776787153
SESSION_TRACKING = 1779329142
ORG_KEYS = 1795305600
CAPTURE_ORDER = 1795305700
NEEDED_INDEXES = 1795305800
IMPORT_STATE = 1795305900
LATEST = IMPORT_STATE
VERSIONS = (
    BASELINE,
    ANCESTRY,
    SESSION_TRACKING,
    ORG_KEYS,
    CAPTURE_ORDER,
    NEEDED_INDEXES,
    IMPORT_STATE,
)

NIL = UUID(int=0)
ORG_A = UUID(int=0xA)
ORG_B = UUID(int=0xB)
PARENT, CHILD, OTHER = UUID(int=1), UUID(int=2), UUID(int=3)

_SESSIONS = [
    (PARENT, ORG_A, "subject-a", "claude", "s-1", None, "2026-05-01T00:00:00Z", "0.1234"),
    (CHILD, ORG_A, "subject-a", "claude", "s-2", PARENT, "2026-05-02T00:00:00Z", "0"),
    (OTHER, ORG_B, "subject-b", "codex", "s-1", None, "2026-05-03T00:00:00Z", "0"),
]
# Three hashes are held by several orgs, four rows too many; the parents of h3 and h5 are missing.
_NODES = [
    (NIL, "h1", None, None, None),
    (ORG_A, "h1", None, PARENT, None),
    (ORG_B, "h1", None, OTHER, None),
    (ORG_A, "h2", "h1", PARENT, "end_turn"),
    (ORG_B, "h2", "h1", OTHER, None),
    (ORG_A, "h3", "gone", CHILD, None),
    (ORG_B, "h3", "gone", OTHER, None),
    (NIL, "h4", "h2", None, None),
    (ORG_B, "h5", "nowhere", OTHER, None),
]


# In the session that did the counting: what it counted is to be seen once this is answered.
FLUSH_COUNTERS: LiteralString = "SELECT pg_stat_force_next_flush()"


def populate(dsn: str) -> None:
    """Store sessions and nodes, at any version from `SESSION_TRACKING` on."""
    with psycopg.connect(dsn) as conn:
        conn.cursor().executemany(
            "INSERT INTO sessions (id, org_id, auth_subject, harness_id, harness_session_id,"
            " parent_session_id, started_at, last_seen_at, total_cost_usd, harness_metadata)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, '{\"k\": 1}')",
            [(*row[:7], row[6], row[7]) for row in _SESSIONS],
        )
        conn.cursor().executemany(
            "INSERT INTO nodes (org_id, hash, parent_hash, session_id, stop_reason, content,"
            " created_at) VALUES (%s, %s, %s, %s, %s, '[]', '2026-05-01T00:00:00Z')",
            _NODES,
        )


def populate_baseline(dsn: str) -> None:
    """Store a chain of two nodes, at a version before `SESSION_TRACKING`."""
    with psycopg.connect(dsn) as conn:
        conn.execute(
            "INSERT INTO nodes (hash, parent_hash, stop_reason, created_at) VALUES"
            " ('h1', NULL, NULL, '2026-05-01T00:00:00Z'),"
            " ('h2', 'h1', 'end_turn', '2026-05-02T00:00:00Z')"
        )


def populate_widely(dsn: str) -> None:
    """Store 2,000 sessions and 8,000 nodes in each of two orgs, at the newest version.

    Enough of them that no query is better off reading a whole table, once it is known how many
    there are. Every tenth session has nine children; each holds a conversation of two turns.
    """
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(
            """
            INSERT INTO sessions (org_id, id, auth_subject, harness_id, harness_session_id,
                                  parent_session_id, started_at, last_seen_at, turn_count)
            SELECT org, lpad(to_hex(n), 32, '0')::uuid, 'subject-' || mod(n, 7), 'claude',
                   's-' || n,
                   CASE WHEN mod(n, 10) > 0 THEN lpad(to_hex(n - mod(n, 10)), 32, '0')::uuid END,
                   now() - n * interval '1 minute', now() - n * interval '1 minute', 2
            FROM unnest(%s::uuid[]) AS org, generate_series(10, 2009) AS n
            """,
            [[ORG_A, ORG_B]],
        )
        conn.execute(
            """
            INSERT INTO nodes (org_id, hash, parent_hash, type, role, model, provider, agent_name,
                               content, session_id, created_at,
                               landings, stop_reason, turn_at, turn_session_id)
            SELECT s.org_id, md5(s.id || '/' || n),
                   CASE WHEN n > 1 THEN md5(s.id || '/' || n - 1) END,
                   'message', CASE WHEN answers THEN 'assistant' ELSE 'user' END,
                   'model-' || n, 'anthropic', 'agent',
                   '[{"type": "text", "text": "words"}]', s.id, s.last_seen_at,
                   answers::int, CASE WHEN answers THEN 'end_turn' END,
                   CASE WHEN answers THEN s.last_seen_at END, CASE WHEN answers THEN s.id END
            FROM sessions AS s,
                 (VALUES (1, false), (2, true), (3, false), (4, true)) AS message (n, answers)
            """
        )
        conn.execute("ANALYZE sessions, nodes")
        conn.execute(FLUSH_COUNTERS)


def query(dsn: str, sql: str) -> list[tuple[Any, ...]]:
    """Run one statement in a connection of its own, and return its rows, if it has any."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        cursor = conn.execute(sql.encode())
        return cursor.fetchall() if cursor.description else []


def version_rows(dsn: str) -> list[tuple[Any, ...]]:
    """Return what the version table holds."""
    return query(dsn, "SELECT version, dirty FROM schema_migrations")


def fingerprint(dsn: str) -> set[tuple[Any, ...]]:
    """Describe every column, constraint, index and function of the schema but the version table."""
    return set(
        query(
            dsn,
            """
            SELECT 'column', c.relname, a.attname, format_type(a.atttypid, a.atttypmod),
                   a.attnotnull::text, coalesce(pg_get_expr(d.adbin, d.adrelid), '')
            FROM pg_attribute AS a
            JOIN pg_class AS c ON c.oid = a.attrelid AND c.relkind = 'r'
            LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
            WHERE c.relnamespace = 'public'::regnamespace AND c.relname <> 'schema_migrations'
              AND a.attnum > 0 AND NOT a.attisdropped
          UNION ALL
            SELECT 'constraint', c.relname, o.conname, pg_get_constraintdef(o.oid), '', ''
            FROM pg_constraint AS o
            JOIN pg_class AS c ON c.oid = o.conrelid
            WHERE o.connamespace = 'public'::regnamespace AND o.contype <> 'n'
              AND c.relname <> 'schema_migrations'
          UNION ALL
            SELECT 'index', tablename, indexname, indexdef, '', ''
            FROM pg_indexes WHERE schemaname = 'public' AND tablename <> 'schema_migrations'
          UNION ALL
            SELECT 'function', '', proname, pg_get_functiondef(oid), '', ''
            FROM pg_proc WHERE pronamespace = 'public'::regnamespace
            """,
        )
    )
