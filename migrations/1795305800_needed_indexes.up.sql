-- Each new node is entered into every index of `nodes`, each turn moves its session's entries in
-- every index of `sessions`. Those that no query of this program uses go.
--
-- What stays, and the query that needs it:
--   nodes_pkey                (org_id, hash)                     every look-up by hash, every insert
--   nodes_session_idx         (org_id, session_id)               sessions show: nodes a session owns
--   nodes_turn_idx            (org_id, turn_session_id, turn_at) sessions list, show: a session's turns
--   sessions_pkey             (org_id, id)                       references, relatives
--   sessions_harness_uq       the natural key                    every turn
--   sessions_org_lastseen_idx (org_id, last_seen_at DESC)        sessions list, page by page
--   sessions_parent_idx       (org_id, parent_session_id)        sessions show: children

DROP INDEX IF EXISTS node_parent_hash;
DROP INDEX IF EXISTS node_role;
DROP INDEX IF EXISTS node_model;
DROP INDEX IF EXISTS node_provider;
DROP INDEX IF EXISTS node_agent_name;
DROP INDEX IF EXISTS node_role_model;
DROP INDEX IF EXISTS node_project;
DROP INDEX IF EXISTS node_created_at;
DROP INDEX IF EXISTS nodes_hash_idx;
DROP INDEX IF EXISTS sessions_auth_subject_idx;
