"""From turns to rows: the seam, the in-memory store, PostgreSQL, and the embedded server."""
