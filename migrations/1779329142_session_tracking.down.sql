-- Destructive: sessions go, and of each hash that several orgs hold one row remains: the nil
-- org's, else the earliest, else the one of the smallest org. `tapes-cli migrate down` counts
-- what will be lost before it asks.

DELETE FROM nodes AS n
USING (
    SELECT org_id, hash,
           row_number() OVER (
               PARTITION BY hash
               ORDER BY org_id <> '00000000-0000-0000-0000-000000000000', created_at, org_id
           ) AS place
    FROM nodes
) AS ranked
WHERE ranked.place > 1 AND n.org_id = ranked.org_id AND n.hash = ranked.hash;

-- A parent that is not there would be refused by the reference that is restored below.
UPDATE nodes AS n
SET parent_hash = NULL
WHERE parent_hash IS NOT NULL
  AND NOT EXISTS (SELECT FROM nodes AS p WHERE p.hash = n.parent_hash);

DROP INDEX IF EXISTS nodes_hash_idx;
DROP INDEX IF EXISTS nodes_session_idx;

ALTER TABLE nodes
    DROP CONSTRAINT IF EXISTS nodes_pkey,
    ADD CONSTRAINT nodes_pkey PRIMARY KEY (hash);

ALTER TABLE nodes
    ADD CONSTRAINT nodes_parent_hash_fkey
        FOREIGN KEY (parent_hash) REFERENCES nodes (hash) ON DELETE SET NULL,
    DROP COLUMN IF EXISTS session_id,
    DROP COLUMN IF EXISTS org_id;

DROP TABLE IF EXISTS sessions;
