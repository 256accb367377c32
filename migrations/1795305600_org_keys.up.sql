-- Org in every key and every reference: no row can point into another org, every lookup is
-- scoped by org, and both tables can be distributed by org_id.

ALTER TABLE nodes    DROP CONSTRAINT IF EXISTS nodes_session_id_fkey;
ALTER TABLE sessions DROP CONSTRAINT IF EXISTS sessions_parent_session_id_fkey;
ALTER TABLE sessions
    DROP CONSTRAINT IF EXISTS sessions_pkey,
    ADD CONSTRAINT sessions_pkey PRIMARY KEY (org_id, id);
ALTER TABLE sessions
    ADD CONSTRAINT sessions_parent_session_id_fkey
        FOREIGN KEY (org_id, parent_session_id) REFERENCES sessions (org_id, id);
ALTER TABLE nodes
    ADD CONSTRAINT nodes_session_id_fkey
        FOREIGN KEY (org_id, session_id) REFERENCES sessions (org_id, id);

DROP INDEX IF EXISTS sessions_parent_idx;
CREATE INDEX sessions_parent_idx ON sessions (org_id, parent_session_id);
DROP INDEX IF EXISTS nodes_session_idx;
CREATE INDEX nodes_session_idx ON nodes (org_id, session_id);
DROP INDEX IF EXISTS node_parent_hash;
CREATE INDEX node_parent_hash ON nodes (org_id, parent_hash);

-- The walk to the root, within one org.
DROP FUNCTION IF EXISTS ancestry_chains_rows(text[], integer);
CREATE FUNCTION ancestry_chains_rows(
    input_org uuid, input_hashes text[], input_max_depth integer
)
RETURNS TABLE (start_hash text, hash text, parent_hash text, depth integer)
LANGUAGE sql STABLE
AS $$
    WITH RECURSIVE line (start_hash, hash, parent_hash, depth) AS (
        SELECT n.hash, n.hash, n.parent_hash, 0
        FROM nodes AS n
        WHERE n.org_id = input_org AND n.hash = ANY (input_hashes)
      UNION ALL
        SELECT line.start_hash, n.hash, n.parent_hash, line.depth + 1
        FROM line
        -- One row by key: a plain join tempts the planner to hash the whole table at each step.
        CROSS JOIN LATERAL (
            SELECT p.hash, p.parent_hash
            FROM nodes AS p
            WHERE p.org_id = input_org AND p.hash = line.parent_hash
            LIMIT 1
        ) AS n
        WHERE line.depth < input_max_depth
    )
    SELECT line.start_hash, line.hash, line.parent_hash, line.depth FROM line
$$;
