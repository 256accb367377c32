"""`tapes-cli db`, as the installed command."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import psycopg
import pytest

from tapes_cli.store.embedded import EmbeddedServer
from tests.support.command import tapes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def data_dir(reachable_base: Path) -> Iterator[Path]:
    """Give a data directory whose database was created and does not run."""
    directory = reachable_base / "db"
    server = EmbeddedServer(directory, settings={"fsync": "off"})
    server.attach().close()
    yield directory
    server.stop(force=True)


def test_start_url_status_stop(data_dir: Path) -> None:
    started = tapes("db", "start", "--data-dir", data_dir)
    assert started.status == 0
    assert started.err == "The embedded database runs until `tapes-cli db stop`.\n"
    dsn = started.out.strip()
    with psycopg.connect(dsn) as connection:
        assert connection.execute("SELECT current_database()").fetchone() == ("tapes",)
    assert tapes("db", "url", env={"TAPES_DATA_DIR": str(data_dir)}).out == started.out

    shown = tapes("db", "status", "--data-dir", data_dir)
    assert "running until `tapes-cli db stop`, pid " in shown.out
    assert dsn in shown.out

    stopped = tapes("db", "stop", "--data-dir", data_dir)
    assert (stopped.status, stopped.out) == (0, "")
    assert stopped.err == "The embedded database is stopped.\n"
    again = tapes("db", "stop", "--data-dir", data_dir)
    assert (again.status, again.err) == (0, "The embedded database was not running.\n")


def test_status_for_machines(data_dir: Path) -> None:
    found, summary = tapes("db", "status", "-o", "jsonl", "--data-dir", data_dir).records
    assert found == {
        "type": "db_status",
        "data_dir": str(data_dir),
        "initialised": True,
        "running": False,
        "pid": None,
        "version": 18,
        "dsn": None,
        "socket_dir": None,
        "kept": False,
        "binaries_version": found["binaries_version"],
    }
    assert summary == {"type": "summary", "command": "db status", "exit_code": 0}
    document = json.loads(tapes("db", "status", "-o", "json", "--data-dir", data_dir).out)
    assert document == {"records": [found], "summary": summary}


def test_status_of_nothing_creates_nothing(reachable_path: Path) -> None:
    shown = tapes("db", "status", "--data-dir", reachable_path / "none")
    assert shown.status == 0
    assert "not created yet" in shown.out
    assert "not running" in shown.out
    assert not (reachable_path / "none").exists()


def test_there_is_no_url_while_it_does_not_run(data_dir: Path) -> None:
    asked = tapes("db", "url", "--data-dir", data_dir)
    assert (asked.status, asked.out) == (5, "")
    assert "tapes-cli db start" in asked.err


def test_stop_while_it_is_in_use(data_dir: Path) -> None:
    server = EmbeddedServer(data_dir)
    with server.attach():
        assert "while a command uses it" in tapes("db", "status", "--data-dir", data_dir).out
        waiting = tapes("db", "stop", "--data-dir", data_dir)
        assert waiting.status == 0
        assert "it stops when the last command that uses it ends" in waiting.err
        assert server.status().running
        forced = tapes("db", "stop", "--force", "--quiet", "--data-dir", data_dir)
        assert (forced.status, forced.err) == (0, "")
        assert not server.status().running


def test_psql_gets_its_arguments_and_gives_its_status(data_dir: Path) -> None:
    done = tapes("db", "psql", "--data-dir", data_dir, "--", "-XAtc", "SELECT 6 * 7")
    assert (done.status, done.out, done.err) == (0, "42\n", "")
    piped = tapes("db", "psql", "--data-dir", data_dir, "--", "-XAt", stdin="SELECT 'ü'")
    assert (piped.status, piped.out) == (0, "ü\n")
    script = "DO $$ BEGIN RAISE 'no'; END $$"
    failed = tapes(
        "db", "psql", "--data-dir", data_dir, "--", "-X", "-v", "ON_ERROR_STOP=1", "-f", "-",
        stdin=script,
    )  # fmt: skip
    assert failed.status == 3
    assert not EmbeddedServer(data_dir).status().running


def test_psql_that_is_killed(data_dir: Path) -> None:
    done = tapes("db", "psql", "--data-dir", data_dir, "--", "-X", stdin="\\! kill -TERM $PPID\n")
    assert done.status == 143


def test_a_directory_that_cannot_be_used(reachable_path: Path) -> None:
    (reachable_path / "file").touch()
    failed = tapes("db", "start", "--data-dir", reachable_path / "file")
    assert failed.status == 5
    assert failed.err.startswith("Error: The embedded database in ")
    assert "Traceback" not in failed.err


def test_help_names_every_command() -> None:
    shown = tapes("db", "--help")
    assert shown.status == 0
    for command in ("start", "stop", "status", "url", "psql"):
        assert f"\n  {command} " in shown.out
