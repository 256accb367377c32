"""The physical floor: parse every line, and COPY what is new of each turn in a transaction.

No hashing, no sessions, no validation: rows of the right size go into a copy of `nodes` with the
same indexes. Each COPY is a transaction of its own, with no words around it; commits do not wait
for the disk, but for one at the end.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any
from uuid import UUID

import orjson
import psycopg

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_ORG = UUID(int=0)
_COPY = (
    "COPY floor_nodes (org_id, hash, parent_hash, type, role, content, bucket, model, provider,"
    " agent_name, project, created_at) FROM STDIN"
)


def seconds(dsn: str, capture: Path) -> float:
    """Return how long the floor takes for this capture."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("DROP TABLE IF EXISTS floor_nodes")
        conn.execute("CREATE TABLE floor_nodes (LIKE nodes INCLUDING ALL)")
        started = time.perf_counter()
        conn.execute("SET synchronous_commit = off")
        with capture.open("rb") as lines:
            for number, line in enumerate(lines):
                with conn.cursor() as cursor, cursor.copy(_COPY) as copy:
                    for row in _new_rows(number, orjson.loads(line)):
                        copy.write_row(row)
        conn.execute("SET synchronous_commit = on")
        conn.execute("SELECT pg_logical_emit_message(true, 'floor', '')")
        taken = time.perf_counter() - started
        conn.execute("DROP TABLE floor_nodes")
    return taken


def _new_rows(number: int, record: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
    """Yield the last message of the request, and the response."""
    question, answer = record["request"]["messages"][-1], record["response"]["message"]
    for part, message in enumerate((question, answer)):
        content = orjson.dumps(message["content"]).decode()
        address = f"{number:032x}{part:032x}"
        bucket = orjson.dumps({"role": message["role"], "content": message["content"]}).decode()
        yield (
            *(_ORG, address, f"{number - 1:064x}", "message", message["role"], content, bucket),
            *("m", "anthropic", "claude", "", record["meta"]["captured_at"]),
        )
