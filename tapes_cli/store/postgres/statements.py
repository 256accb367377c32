"""The SQL of a turn's transaction. What each statement is for stands in `ingest`."""

from __future__ import annotations

from functools import lru_cache

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

INSERT_SESSION = """
INSERT INTO sessions AS s (
    org_id, id, harness_id, harness_session_id, started_at, last_seen_at,
    auth_subject, auth_subject_own, auth_subject_at, name, name_at, cwd, cwd_at,
    harness_version, harness_version_at, parent_session_id, parent_key, parent_at,
    harness_metadata, harness_metadata_at, turn_count, total_input_tokens, total_output_tokens
) VALUES (
    $1, $2, $3, $4, $5, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19,
    $20, $21, $22
)
"""
"""A session that is believed to be new; it fails if another import was faster."""

JOIN_SESSION = f"""{INSERT_SESSION}
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
    harness_metadata = CASE WHEN EXCLUDED.harness_metadata = '{{}}' THEN s.harness_metadata
        ELSE s.harness_metadata || tapes_winners(
            EXCLUDED.harness_metadata, s.harness_metadata, s.harness_metadata_at,
            EXCLUDED.harness_metadata, EXCLUDED.harness_metadata_at) END,
    harness_metadata_at = CASE WHEN EXCLUDED.harness_metadata = '{{}}' THEN s.harness_metadata_at
        ELSE s.harness_metadata_at || tapes_winners(
            EXCLUDED.harness_metadata_at, s.harness_metadata, s.harness_metadata_at,
            EXCLUDED.harness_metadata, EXCLUDED.harness_metadata_at) END,
    turn_count = s.turn_count + EXCLUDED.turn_count,
    total_input_tokens = s.total_input_tokens + EXCLUDED.total_input_tokens,
    total_output_tokens = s.total_output_tokens + EXCLUDED.total_output_tokens
RETURNING CASE WHEN xmax = 0 THEN 'new' ELSE turn_count::text END
"""
"""A session that may be there, joined field by field; says if it is new, else its turns."""

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


@lru_cache(maxsize=256)
def insert_nodes(rows: int, head: int | None) -> str:
    """Return the statement for nodes that are believed to be new; it fails if one is not.

    Args:
        rows: how many.
        head: the place of the turn's head among them, if it is there.
    """
    values = []
    first = _SHARED_VALUES + 1
    for index in range(rows):
        given = _KEY | _OWNED | (_LANDED if index == head else _NOT_LANDED)
        own = _OWN_VALUES + (_LANDING_VALUES if index == head else 0)
        places = [f"${first + i}" for i in range(own)]
        values.append(", ".join(given.get(c, "NULL").format(*places) for c in _COLUMNS))
        first += own
    # Column names and placeholders are the constants above; values are always parameters.
    return f"""
INSERT INTO nodes AS n ({", ".join(_COLUMNS)})
VALUES {", ".join(f"({row})" for row in values)}
"""  # noqa: S608


@lru_cache(maxsize=256)
def join_nodes(rows: int, head: int | None) -> str:
    """Return the statement for nodes that may be there; it says which are new.

    The earlier capture owns the node; the turn that lands brings stop reason, usage and time;
    landing twice breaks the check on `landings`. See `insert_nodes`.
    """
    owned = (f"{c} = CASE WHEN {_EARLIER} THEN EXCLUDED.{c} ELSE n.{c} END" for c in _OWNED)
    landed = (
        f"{c} = CASE WHEN EXCLUDED.landings = 1 THEN EXCLUDED.{c} ELSE n.{c} END"
        for c in list(_LANDED)[1:]
    )
    return f"""{insert_nodes(rows, head)}
ON CONFLICT (org_id, hash) DO UPDATE SET
    landings = n.landings + EXCLUDED.landings,
    {", ".join((*owned, *landed))}
WHERE {_EARLIER} OR EXCLUDED.landings = 1
RETURNING CASE WHEN xmax = 0 THEN 'new' END
"""
