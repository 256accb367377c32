-- Sessions, and the org of a node. The same content in two orgs is two rows, so the key of
-- `nodes` becomes (org_id, hash); nodes stored before belong to the nil org and to no session.
-- A reference on parent_hash alone can then no longer be kept.

CREATE TABLE IF NOT EXISTS sessions (
    id                  uuid PRIMARY KEY,
    org_id              uuid NOT NULL,
    auth_subject        text NOT NULL,
    harness_id          text NOT NULL,
    harness_session_id  text NOT NULL,
    name                text,
    cwd                 text,
    harness_version     text,
    parent_session_id   uuid,
    started_at          timestamptz NOT NULL,
    last_seen_at        timestamptz NOT NULL,
    ended_at            timestamptz,
    harness_metadata    jsonb NOT NULL DEFAULT '{}',
    total_input_tokens  bigint NOT NULL DEFAULT 0,
    total_output_tokens bigint NOT NULL DEFAULT 0,
    total_cost_usd      numeric(12, 4) NOT NULL DEFAULT 0,
    turn_count          integer NOT NULL DEFAULT 0,
    CONSTRAINT sessions_harness_uq UNIQUE (org_id, harness_id, harness_session_id),
    CONSTRAINT sessions_parent_session_id_fkey
        FOREIGN KEY (parent_session_id) REFERENCES sessions (id)
);

CREATE INDEX IF NOT EXISTS sessions_org_lastseen_idx  ON sessions (org_id, last_seen_at DESC);
CREATE INDEX IF NOT EXISTS sessions_auth_subject_idx  ON sessions (auth_subject);
CREATE INDEX IF NOT EXISTS sessions_parent_idx        ON sessions (parent_session_id);

ALTER TABLE nodes
    ADD COLUMN IF NOT EXISTS org_id uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
    ADD COLUMN IF NOT EXISTS session_id uuid
        CONSTRAINT nodes_session_id_fkey REFERENCES sessions (id),
    DROP CONSTRAINT IF EXISTS nodes_parent_hash_fkey,
    DROP CONSTRAINT IF EXISTS nodes_pkey,
    ADD CONSTRAINT nodes_pkey PRIMARY KEY (org_id, hash);

CREATE INDEX IF NOT EXISTS nodes_session_idx ON nodes (session_id);
CREATE INDEX IF NOT EXISTS nodes_hash_idx    ON nodes (hash);
