CREATE INDEX IF NOT EXISTS node_parent_hash ON nodes (org_id, parent_hash);
CREATE INDEX IF NOT EXISTS node_role        ON nodes (role);
CREATE INDEX IF NOT EXISTS node_model       ON nodes (model);
CREATE INDEX IF NOT EXISTS node_provider    ON nodes (provider);
CREATE INDEX IF NOT EXISTS node_agent_name  ON nodes (agent_name);
CREATE INDEX IF NOT EXISTS node_role_model  ON nodes (role, model);
CREATE INDEX IF NOT EXISTS node_project     ON nodes (project);
CREATE INDEX IF NOT EXISTS node_created_at  ON nodes (created_at);
CREATE INDEX IF NOT EXISTS nodes_hash_idx   ON nodes (hash);

CREATE INDEX IF NOT EXISTS sessions_auth_subject_idx ON sessions (auth_subject);
