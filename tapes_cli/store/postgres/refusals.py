"""Why PostgreSQL refused a turn, in words that hold none of its content."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import psycopg

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


def refusal(conn: psycopg.Connection[Any], error: psycopg.Error) -> str:
    """Return one sentence that names the column and the reason.

    The server's own message and context are not repeated: they may quote the value.
    """
    state = error.sqlstate or ""
    meaning = _MEANINGS.get(state, "the value breaks a rule of the schema")
    suffix = f" (SQLSTATE {state})" if state else ""
    return f"PostgreSQL refused {_column(conn, error)}: {meaning}{suffix}"


def _column(conn: psycopg.Connection[Any], error: psycopg.Error) -> str:
    if found := _INDEX.search(error.diag.message_primary or ""):
        row = conn.execute(_INDEX_COLUMNS, (found.group(1),)).fetchone()
        if row:
            return f"{row[0]} ({row[1]})"
    if error.diag.table_name and error.diag.column_name:
        return f"{error.diag.table_name}.{error.diag.column_name}"
    return _SUMS if error.sqlstate == "22003" else "a value of the turn"
