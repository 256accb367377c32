-- What makes the rows a function of the set of turns imported, in whatever order they arrive.
--
-- nodes: the earliest capture that contains a node owns it. `claim` settles equal times: captures
--   nearer to their own head first, then by a digest of the capture.
--   A node whose own turn has landed carries when it was captured (turn_at), the session that
--   counts it (turn_session_id) and a digest of the capture (turn_claim), by which a retry is
--   recognised. A turn lands once: `landings` is 0 for what is known only as history.
-- sessions: the newest capture wins, field by field, so each field keeps the capture time of its
--   value; harness_metadata_at holds microseconds since 1970 for each key. A placeholder borrows
--   its times and subject from its children until a turn of its own arrives.

ALTER TABLE nodes
    ADD COLUMN claim           bigint NOT NULL DEFAULT 0,
    ADD COLUMN landings        smallint NOT NULL DEFAULT 0,
    ADD COLUMN turn_at         timestamptz,
    ADD COLUMN turn_session_id uuid,
    ADD COLUMN turn_claim      bigint;

UPDATE nodes
SET landings = 1, turn_at = created_at, turn_session_id = session_id
WHERE num_nonnulls(stop_reason, prompt_tokens, completion_tokens, total_tokens) > 0;

ALTER TABLE nodes
    ADD CONSTRAINT nodes_turn_lands_once CHECK (landings IN (0, 1)),
    ADD CONSTRAINT nodes_turn_session_id_fkey
        FOREIGN KEY (org_id, turn_session_id) REFERENCES sessions (org_id, id);
CREATE INDEX nodes_turn_idx ON nodes (org_id, turn_session_id, turn_at) WHERE landings = 1;

ALTER TABLE sessions
    ADD COLUMN placeholder         boolean NOT NULL DEFAULT false,
    ADD COLUMN auth_subject_own    boolean NOT NULL DEFAULT true,
    ADD COLUMN auth_subject_at     timestamptz NOT NULL DEFAULT '-infinity',
    ADD COLUMN name_at             timestamptz NOT NULL DEFAULT '-infinity',
    ADD COLUMN cwd_at              timestamptz NOT NULL DEFAULT '-infinity',
    ADD COLUMN harness_version_at  timestamptz NOT NULL DEFAULT '-infinity',
    ADD COLUMN parent_at           timestamptz NOT NULL DEFAULT '-infinity',
    ADD COLUMN parent_key          text,
    ADD COLUMN harness_metadata_at jsonb NOT NULL DEFAULT '{}',
    ALTER COLUMN total_cost_usd TYPE numeric;

UPDATE sessions AS s
SET auth_subject_at    = CASE WHEN auth_subject = ''      THEN '-infinity' ELSE last_seen_at END,
    auth_subject_own   = auth_subject <> '',
    name_at            = CASE WHEN name IS NULL            THEN '-infinity' ELSE last_seen_at END,
    cwd_at             = CASE WHEN cwd IS NULL             THEN '-infinity' ELSE last_seen_at END,
    harness_version_at = CASE WHEN harness_version IS NULL THEN '-infinity' ELSE last_seen_at END,
    parent_at          = CASE WHEN parent_session_id IS NULL THEN '-infinity' ELSE last_seen_at END,
    parent_key         = (SELECT json_build_array(p.harness_id, p.harness_session_id)::text
                          FROM sessions AS p
                          WHERE p.org_id = s.org_id AND p.id = s.parent_session_id),
    harness_metadata   = CASE WHEN jsonb_typeof(harness_metadata) = 'object'
                              THEN harness_metadata ELSE '{}' END,
    harness_metadata_at =
        CASE WHEN jsonb_typeof(harness_metadata) = 'object' THEN
            (SELECT coalesce(jsonb_object_agg(k, (extract(epoch FROM last_seen_at) * 1000000)::bigint), '{}')
             FROM jsonb_object_keys(harness_metadata) AS k)
        ELSE '{}' END,
    placeholder        = turn_count = 0
        AND NOT EXISTS (SELECT FROM nodes AS n WHERE n.org_id = s.org_id AND n.session_id = s.id)
        AND EXISTS (SELECT FROM sessions AS c
                    WHERE c.org_id = s.org_id AND c.parent_session_id = s.id);

-- The entries of `pick` for those keys of `new` that win over `old`: the newer value wins, a blank
-- one never beats another, and equal times are settled by the value's text. `old_at` and `new_at`
-- hold the capture time of each key.
CREATE FUNCTION tapes_winners(pick jsonb, old jsonb, old_at jsonb, new jsonb, new_at jsonb)
RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT coalesce(jsonb_object_agg(k, pick -> k), '{}')
    FROM jsonb_object_keys(new) AS k
    WHERE NOT old ? k
       OR (coalesce(new ->> k, '') ~ '\S', (new_at ->> k)::bigint, (new -> k)::text COLLATE "C")
        > (coalesce(old ->> k, '') ~ '\S', (old_at ->> k)::bigint, (old -> k)::text COLLATE "C")
$$;
