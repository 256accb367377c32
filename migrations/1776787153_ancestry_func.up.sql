-- From each given node up to its root, nearest first. `depth` counts from 0 at the given node;
-- the walk ends after `input_max_depth` steps.

CREATE OR REPLACE FUNCTION ancestry_chains_rows(input_hashes text[], input_max_depth integer)
RETURNS TABLE (
    start_hash                  text,
    hash                        text,
    parent_hash                 text,
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
    created_at                  timestamptz,
    depth                       integer,
    has_usage                   boolean
)
LANGUAGE sql STABLE
AS $$
    WITH RECURSIVE line (start_hash, hash, parent_hash, depth) AS (
        SELECT n.hash, n.hash, n.parent_hash, 0
        FROM nodes AS n
        WHERE n.hash = ANY (input_hashes)
      UNION ALL
        SELECT line.start_hash, n.hash, n.parent_hash, line.depth + 1
        FROM line
        JOIN nodes AS n ON n.hash = line.parent_hash
        WHERE line.depth < input_max_depth
    )
    SELECT line.start_hash, n.hash, n.parent_hash, n.bucket, n.type, n.role, n.content, n.model,
           n.provider, n.agent_name, n.stop_reason, n.prompt_tokens, n.completion_tokens,
           n.total_tokens, n.cache_creation_input_tokens, n.cache_read_input_tokens,
           n.total_duration_ns, n.prompt_duration_ns, n.project, n.created_at, line.depth,
           num_nonnulls(n.prompt_tokens, n.completion_tokens, n.total_tokens,
                        n.cache_creation_input_tokens, n.cache_read_input_tokens,
                        n.total_duration_ns, n.prompt_duration_ns) > 0
    FROM line
    JOIN nodes AS n ON n.hash = line.hash
$$;
