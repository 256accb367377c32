"""Several imports into one database at once."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import psycopg

from tests.support.captures import line, record
from tests.support.command import COMMAND, environment, tapes
from tests.support.turns import rows

if TYPE_CHECKING:
    from pathlib import Path

_SESSIONS = 12
_TURNS = 25
_IMPORTS = 3


def _conversations() -> str:
    """Return turns of sessions that grow side by side, and share their first question."""
    lines = []
    for turn in range(1, _TURNS + 1):
        for number in range(_SESSIONS):
            said = [f"session {number}, message {i}" for i in range(1, 2 * turn - 1)]
            messages = [
                {"role": ("user", "assistant")[i % 2], "content": words}
                for i, words in enumerate(["the same question", *said])
            ]
            request = {"model": "m", "messages": messages}
            answer = f"session {number}, message {2 * turn - 1}"
            envelope = {
                "harness_id": "claude",
                "harness_session_id": f"s{number}",
                "parent_harness_session_id": f"s{(number + 1) % _SESSIONS}",
                "name": f"turn {turn}",
            }
            captured = {"captured_at": f"2026-03-02T09:{turn:02}:{number:02}Z"}
            lines.append(
                line(record(answer=answer, request=request, session=envelope, meta=captured))
            )
    return "".join(lines)


def test_imports_at_once_leave_the_rows_of_one(
    database: str, empty_database: str, tmp_path: Path
) -> None:
    capture = tmp_path / "capture.jsonl"
    capture.write_text(_conversations())
    alone = tapes("import", "--migrate", "--dsn", empty_database, "-o", "jsonl", capture)
    command = (COMMAND, "import", "-q", "--lock", "none", "--no-checkpoint")
    started = [
        subprocess.Popen(
            [*command, "--dsn", database, "-o", "jsonl", str(capture)],
            stdout=subprocess.PIPE,
            env=environment(),
        )
        for _ in range(_IMPORTS)
    ]
    summaries: list[dict[str, Any]] = [
        json.loads(p.communicate()[0].splitlines()[-1]) for p in started
    ]
    assert [s["exit_code"] for s in summaries] == [0] * _IMPORTS
    assert sum(s["records"]["stored"] for s in summaries) == alone.summary["records"]["stored"]
    assert sum(s["records"]["duplicate"] for s in summaries) == (_IMPORTS - 1) * _SESSIONS * _TURNS
    with psycopg.connect(database) as together, psycopg.connect(empty_database) as single:
        assert rows(together) == rows(single)
