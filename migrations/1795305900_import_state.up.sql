-- What an import remembers for the next one. No turn depends on it: without a row, a capture is
-- read from its beginning, and what is stored already is found there.
--
-- import_sources: how far a capture was read. `id` is a digest of host, location and reading,
--   since a path may be longer than an index row. `lines` and `byte_offset` are where the next
--   reading begins, NULL where the format can only be read from the beginning; `head` and `tail`
--   are digests of the first bytes and of those before that place, by which a capture that was
--   rewritten is told from one that has grown. `final` says that reading it again, unchanged, will
--   say the same.
-- import_leases: who is importing. A lease that was not renewed for `seconds` is free.

CREATE TABLE import_sources (
    id          bytea PRIMARY KEY,
    host        text NOT NULL,
    location    text NOT NULL,
    reading     text NOT NULL,
    device      numeric(20) NOT NULL,
    inode       numeric(20) NOT NULL,
    size        bigint NOT NULL,
    mtime_ns    bigint NOT NULL,
    format      text NOT NULL,
    lines       bigint,
    byte_offset bigint,
    head        bytea,
    tail        bytea,
    final       boolean NOT NULL,
    version     text NOT NULL,
    turns       bigint NOT NULL,
    rejected    bigint NOT NULL,
    skipped     bigint NOT NULL,
    incomplete  bigint NOT NULL,
    read_at     timestamptz NOT NULL,
    CHECK (num_nonnulls(lines, byte_offset, head, tail) IN (0, 4))
);
CREATE INDEX import_sources_inode_idx ON import_sources (inode);

CREATE TABLE import_leases (
    name       text PRIMARY KEY,
    holder     uuid NOT NULL,
    host       text NOT NULL,
    pid        integer NOT NULL,
    process    text NOT NULL,
    started_at timestamptz NOT NULL,
    renewed_at timestamptz NOT NULL,
    seconds    integer NOT NULL
);
