"""`tapes-cli migrate`, called in this process."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from typer.testing import CliRunner

from tapes_cli.cli.migrate import app, plan_lines
from tapes_cli.errors import SchemaError, UsageError
from tapes_cli.store.postgres.migration_plan import DownPlan
from tapes_cli.store.postgres.migrations import load_migrations, migrate_down, status
from tests.support.schema import (
    ANCESTRY,
    CAPTURE_ORDER,
    IMPORT_STATE,
    LATEST,
    NEEDED_INDEXES,
    ORG_KEYS,
    SESSION_TRACKING,
    VERSIONS,
    fingerprint,
    populate,
    query,
    version_rows,
)

if TYPE_CHECKING:
    from typer.testing import Result


def call(dsn: str, *words: str, code: int = 0) -> Result:
    result = CliRunner().invoke(app, [*words, "--dsn", dsn])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.stderr
    return result


def document(text: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    parsed = json.loads(text)
    return parsed["records"], parsed["summary"]


def test_up_prints_what_it_applied_and_then_that_nothing_is_left(empty_database: str) -> None:
    first = call(empty_database, "up", "--verbose")
    assert first.stdout.splitlines() == [f"up    {step}" for step in load_migrations()]
    assert first.stderr.startswith("This is database test_")
    second = call(empty_database, "up")
    assert second.stdout == ""
    assert second.stderr == f"Nothing to do: the schema is at version {LATEST}.\n"
    assert call(empty_database, "up", "--quiet").stderr == ""


def test_up_to_a_version(empty_database: str) -> None:
    call(empty_database, "up", "--to", str(ANCESTRY))
    assert version_rows(empty_database) == [(ANCESTRY, False)]


def test_up_in_json_lines(empty_database: str) -> None:
    lines = call(empty_database, "up", "-o", "jsonl").stdout.splitlines()
    parsed = [json.loads(line) for line in lines]
    assert [line.get("version") for line in parsed] == [*VERSIONS, None]
    assert parsed[0] == {
        "type": "migration",
        "version": VERSIONS[0],
        "name": "baseline",
        "direction": "up",
    }
    assert parsed[-1] == {
        "type": "summary",
        "command": "migrate up",
        "exit_code": 0,
        "current": LATEST,
    }


def test_status_tells_what_is_pending(database: str) -> None:
    migrate_down(database)
    result = call(database, "status")
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines[:-1]] == ["applied"] * (len(VERSIONS) - 1) + [
        "pending"
    ]
    assert lines[-1] == f"The schema is behind: 1 of {len(VERSIONS)} migrations are not applied."
    call(database, "status", "--exit-code", code=1)
    records, summary = document(
        call(database, "status", "--exit-code", "-o", "json", code=1).stdout
    )
    assert [record["applied"] for record in records] == [True] * (len(VERSIONS) - 1) + [False]
    assert summary == {
        "type": "summary",
        "command": "migrate status",
        "exit_code": 1,
        "current": NEEDED_INDEXES,
        "dirty": False,
        "state": "behind",
    }


def test_status_of_a_current_schema_ends_with_zero(database: str) -> None:
    assert call(database, "status", "--exit-code", "--quiet").output == ""


def test_status_of_a_dirty_schema_says_what_to_do(database: str) -> None:
    query(database, "UPDATE schema_migrations SET dirty = true")
    result = call(database, "status", "--exit-code", code=1)
    assert "The schema is dirty" in result.stdout
    assert "dirty = false" in result.stderr


def test_down_shows_what_will_be_lost_and_refuses_without_a_terminal(database: str) -> None:
    populate(database)
    before = fingerprint(database)
    result = CliRunner().invoke(app, ["down", "--to", str(ANCESTRY), "--quiet", "--dsn", database])
    assert isinstance(result.exception, UsageError)
    assert "--yes" in result.exception.hint
    assert result.stderr.splitlines()[1:] == [
        f"  {IMPORT_STATE}_import_state",
        f"  {NEEDED_INDEXES}_needed_indexes",
        f"  {CAPTURE_ORDER}_capture_order",
        f"  {ORG_KEYS}_org_keys",
        f"  {SESSION_TRACKING}_session_tracking",
        "What will be lost:",
        "  3 sessions are lost",
        "  3 hashes are held by several orgs; of each one row remains",
        "  4 nodes are lost by that",
        "  2 nodes lose the reference to a parent that is not stored",
        "  3 nodes forget the org or the session they belong to",
    ]
    assert fingerprint(database) == before


def test_down_with_yes_reports_the_plan_as_json(database: str) -> None:
    populate(database)
    result = call(database, "down", "--steps", "5", "--yes", "--quiet", "-o", "json")
    assert result.stderr == ""
    records, summary = document(result.stdout)
    assert [(record["version"], record["direction"]) for record in records] == [
        (IMPORT_STATE, "down"),
        (NEEDED_INDEXES, "down"),
        (CAPTURE_ORDER, "down"),
        (ORG_KEYS, "down"),
        (SESSION_TRACKING, "down"),
    ]
    assert summary["current"] == ANCESTRY
    assert summary["plan"] == {
        "current": LATEST,
        "target": ANCESTRY,
        "steps": [IMPORT_STATE, NEEDED_INDEXES, CAPTURE_ORDER, ORG_KEYS, SESSION_TRACKING],
        "turns": 0,
        "turns_unmarked": 0,
        "costs_rounded": 0,
        "costs_too_large": 0,
        "values_too_long": 0,
        "captures": 0,
        "session_ids_shared": 0,
        "sessions": 3,
        "shared_hashes": 3,
        "nodes_collapsed": 4,
        "dangling_parents": 2,
        "nodes_unattributed": 3,
        "nodes_dropped": 0,
        "lossless": False,
    }
    assert status(database).current == ANCESTRY


def test_down_to_nothing_and_once_more(database: str) -> None:
    populate(database)
    result = call(database, "down", "--all", "-y")
    assert "  3 sessions are lost\n  9 nodes are lost: every message" in result.stderr
    assert version_rows(database) == []
    again = call(database, "down", "--all", "-y")
    assert again.stderr == "Nothing to do: there is no schema.\n"
    call(database, "redo", "-y")


def test_down_refuses_what_the_older_schema_cannot_hold(database: str) -> None:
    populate(database)
    query(database, "UPDATE sessions SET total_cost_usd = 1e9")
    with pytest.raises(SchemaError, match="cannot hold what is stored"):
        call(database, "down", "--to", str(ORG_KEYS), "--yes")
    assert status(database).current == LATEST


def test_redo_goes_down_and_up(database: str) -> None:
    before = fingerprint(database)
    result = call(database, "redo", "--yes")
    assert result.stdout.splitlines() == [
        f"down  {IMPORT_STATE}_import_state",
        f"up    {IMPORT_STATE}_import_state",
    ]
    assert "Nothing that is stored will be lost." in result.stderr
    assert fingerprint(database) == before


def test_redo_stays_at_its_version(database: str) -> None:
    migrate_down(database, to=SESSION_TRACKING)
    call(database, "redo", "--yes")
    assert status(database).current == SESSION_TRACKING


def test_sql_prints_what_up_would_run(empty_database: str, database: str) -> None:
    printed = call(empty_database, "sql").stdout
    assert query(empty_database, "SELECT to_regclass('schema_migrations')") == [(None,)]
    with psycopg.connect(empty_database, autocommit=True) as conn:
        conn.execute(printed.encode())
    assert fingerprint(empty_database) == fingerprint(database)
    after = call(empty_database, "sql", "up")
    assert after.stdout == ""
    assert "Nothing to do" in after.stderr


def test_sql_prints_what_down_would_run(database: str) -> None:
    printed = call(database, "sql", "down", "--to", str(ANCESTRY)).stdout
    assert status(database).current == LATEST
    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute(printed.encode())
    assert version_rows(database) == [(ANCESTRY, False)]
    assert call(database, "sql", "up", "--to", str(SESSION_TRACKING)).stdout.count("BEGIN;") == 1
    assert call(database, "sql", "down", "--all").stdout.count("COMMIT;") == 2


@pytest.mark.parametrize(
    "words",
    [
        ("sql", "up", "--steps", "1"),
        ("sql", "up", "--all"),
        ("down", "--all", "--steps", "1"),
        ("down", "--to", "1", "--all"),
        ("up", "--to", "1"),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    database: str, words: tuple[str, ...]
) -> None:
    with pytest.raises(UsageError):
        call(database, *words)


def test_every_loss_has_a_line() -> None:
    full = DownPlan(LATEST, 0, (), *range(1000, 1011))
    lines = plan_lines(full)
    assert len(lines) == 12
    assert all(f"{number:,}" in "\n".join(lines) for number in range(1000, 1011))
