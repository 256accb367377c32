"""Why PostgreSQL refused a turn, in words that hold none of its content."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import psycopg

    from tapes_cli.store.base import ChainedTurn

_INDEX = re.compile(r'index "([^"]+)"')

_INDEX_COLUMNS = """
SELECT i.indrelid::regclass::text, string_agg(a.attname, ', ' ORDER BY a.attnum)
FROM pg_index AS i
JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
WHERE i.indexrelid = to_regclass(%s) AND a.attname <> 'org_id'
GROUP BY i.indrelid
"""

_MEANINGS = {
    "22003": "a number is out of range",
    "22021": "the text is not valid in the database's encoding",
    "22P02": "the text is not valid for the column's type",
    "22P05": "the text holds a character that PostgreSQL cannot store",
    "54000": "the value is too large",
    "54001": "the value is nested too deeply",
}
_SUMS = "sessions.total_input_tokens or sessions.total_output_tokens"


def refusal(conn: psycopg.Connection[Any], error: psycopg.Error, turn: ChainedTurn) -> str:
    """Return one sentence that names the column and the reason.

    The server's own message and context are not repeated: they may quote the value.
    """
    state = error.sqlstate or ""
    meaning = _MEANINGS.get(state, "the value breaks a rule of the schema")
    suffix = f" (SQLSTATE {state})" if state else ""
    return f"PostgreSQL refused {_column(conn, error, turn)}: {meaning}{suffix}"


def _column(conn: psycopg.Connection[Any], error: psycopg.Error, turn: ChainedTurn) -> str:
    message = error.diag.message_primary or ""
    if found := _INDEX.search(message):
        row = conn.execute(_INDEX_COLUMNS, (found.group(1),)).fetchone()
        if row:
            return f"{row[0]} ({row[1]})"
    if error.diag.table_name and error.diag.column_name:
        return f"{error.diag.table_name}.{error.diag.column_name}"
    if "index row" in message:
        return _longest_indexed(turn)
    return _SUMS if error.sqlstate == "22003" else "a value of the turn"


def _longest_indexed(turn: ChainedTurn) -> str:
    """Name the column of the longest value that goes into an index."""
    envelope = turn.envelope
    values = {
        "sessions.harness_id": envelope.harness_id,
        "sessions.harness_session_id": envelope.harness_session_id,
    }
    if envelope.parent is not None:
        values["the parent's sessions.harness_session_id"] = envelope.parent[1]
    return max(values, key=lambda column: len(values[column]))
