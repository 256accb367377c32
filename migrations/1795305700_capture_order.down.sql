-- The rows keep their content; what is lost is which nodes are turns of their own beyond what
-- stop reason and usage tell, and the capture times of session fields.

DROP FUNCTION IF EXISTS tapes_winners(jsonb, jsonb, jsonb, jsonb, jsonb);

ALTER TABLE sessions
    DROP COLUMN placeholder,
    DROP COLUMN auth_subject_own,
    DROP COLUMN auth_subject_at,
    DROP COLUMN name_at,
    DROP COLUMN cwd_at,
    DROP COLUMN harness_version_at,
    DROP COLUMN parent_at,
    DROP COLUMN parent_key,
    DROP COLUMN harness_metadata_at,
    ALTER COLUMN total_cost_usd TYPE numeric(12, 4);

DROP INDEX IF EXISTS nodes_turn_idx;
ALTER TABLE nodes
    DROP CONSTRAINT nodes_turn_lands_once,
    DROP COLUMN claim,
    DROP COLUMN landings,
    DROP COLUMN turn_at,
    DROP COLUMN turn_session_id,
    DROP COLUMN turn_claim;
