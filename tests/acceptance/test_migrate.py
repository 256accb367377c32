"""`tapes-cli migrate`, as the installed command."""

from __future__ import annotations

import os
import pty
import subprocess
from typing import TYPE_CHECKING

import pytest
from psycopg.conninfo import make_conninfo

from tests.support.command import COMMAND, environment, tapes
from tests.support.schema import (
    LATEST,
    NEEDED_INDEXES,
    VERSIONS,
    fingerprint,
    populate,
    query,
    version_rows,
)

if TYPE_CHECKING:
    from pathlib import Path


def answer(dsn: str, reply: str) -> tuple[int, str]:
    """Run `down` on a terminal and type the reply; give the exit status and what it shows."""
    terminal, far_end = pty.openpty()
    process = subprocess.Popen(
        [COMMAND, "migrate", "down", "--dsn", dsn],
        stdin=far_end,
        stdout=far_end,
        stderr=far_end,
        env=environment(),
    )
    os.close(far_end)
    os.write(terminal, reply.encode())
    shown = b""
    try:
        while chunk := os.read(terminal, 4096):
            shown += chunk
    except OSError:
        pass  # Linux reports the end of a terminal as an error.
    os.close(terminal)
    return process.wait(), shown.decode()


def test_up_status_down_and_up_again(empty_database: str) -> None:
    missing = tapes("migrate", "status", "--exit-code", "--dsn", empty_database)
    assert (missing.status, missing.out.count("pending")) == (1, len(VERSIONS))
    assert tapes("migrate", "up", env={"TAPES_DSN": empty_database}).status == 0
    before = fingerprint(empty_database)
    populate(empty_database)
    assert tapes("migrate", "up", "--dsn", empty_database).out == ""
    refused = tapes("migrate", "down", "--all", "--dsn", empty_database)
    assert refused.status == 2
    assert "3 sessions are lost" in refused.err
    assert "Add --yes." in refused.err
    assert fingerprint(empty_database) == before
    done = tapes("migrate", "down", "--all", "--yes", "--dsn", empty_database, "-o", "jsonl")
    assert done.status == 0
    assert done.summary["plan"]["nodes_dropped"] == 5
    assert tapes("migrate", "up", "--dsn", empty_database).status == 0
    assert fingerprint(empty_database) == before
    assert tapes("migrate", "status", "--exit-code", "--dsn", empty_database).status == 0


@pytest.mark.parametrize(
    ("reply", "version"), [("n\n", LATEST), ("\n", LATEST), ("y\n", NEEDED_INDEXES)]
)
def test_down_asks_on_a_terminal(database: str, reply: str, version: int) -> None:
    code, shown = answer(database, reply)
    assert code == 0
    assert "Nothing that is stored will be lost." in shown
    assert "Undo it?" in shown
    assert version_rows(database) == [(version, False)]


def test_a_server_that_is_not_there_is_one_sentence_without_the_password() -> None:
    dsn = "postgresql://ann:open-sesame@127.0.0.1:1/tapes"
    result = tapes("migrate", "up", "--dsn", dsn)
    assert result.status == 5
    assert result.out == ""
    assert result.err.startswith(
        "Error: Cannot connect to database tapes at 127.0.0.1:1 as ann: no server listens there."
    )
    assert "sesame" not in result.err
    assert "Traceback" not in result.err


def test_a_schema_made_by_others_ends_with_six(database: str) -> None:
    query(database, "UPDATE schema_migrations SET version = 1780956959")
    result = tapes("migrate", "up", "--dsn", make_conninfo(database, password="open-sesame"))
    assert result.status == 6
    assert "which this tapes-cli does not know" in result.err
    assert "sesame" not in result.err


def test_the_embedded_database_needs_no_dsn(reachable_path: Path) -> None:
    first = tapes("migrate", "up", "--data-dir", str(reachable_path))
    assert first.out.count("up ") == len(VERSIONS)
    again = tapes("migrate", "status", "--exit-code", "--data-dir", str(reachable_path))
    assert again.status == 0
    assert "The schema is current." in again.out
