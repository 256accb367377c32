-- Messages as a Merkle DAG: a node's key is the hash of what it says and of what came before.

CREATE TABLE IF NOT EXISTS nodes (
    hash                        text PRIMARY KEY,
    bucket                      jsonb,
    type                        text,
    role                        text,
    content                     jsonb,
    model                       text,
    provider                    text,
    agent_name                  text,
    stop_reason                 text,
    prompt_tokens               integer,
    completion_tokens           integer,
    total_tokens                integer,
    cache_creation_input_tokens integer,
    cache_read_input_tokens     integer,
    total_duration_ns           bigint,
    prompt_duration_ns          bigint,
    project                     text,
    created_at                  timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    parent_hash                 text,
    CONSTRAINT nodes_parent_hash_fkey
        FOREIGN KEY (parent_hash) REFERENCES nodes (hash) ON DELETE SET NULL
);

CREATE INDEX IF NOT EXISTS node_parent_hash ON nodes (parent_hash);
CREATE INDEX IF NOT EXISTS node_role        ON nodes (role);
CREATE INDEX IF NOT EXISTS node_model       ON nodes (model);
CREATE INDEX IF NOT EXISTS node_provider    ON nodes (provider);
CREATE INDEX IF NOT EXISTS node_agent_name  ON nodes (agent_name);
CREATE INDEX IF NOT EXISTS node_role_model  ON nodes (role, model);
CREATE INDEX IF NOT EXISTS node_project     ON nodes (project);
CREATE INDEX IF NOT EXISTS node_created_at  ON nodes (created_at);
