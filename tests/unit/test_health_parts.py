"""What is made of answers that a healthy server and a healthy machine do not give."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tapes_cli.errors import DatabaseUnavailableError
from tapes_cli.inspection.health import Verdict, database, exit_status, machine
from tapes_cli.inspection.health.check import amount, failed, ok, skipped, warning
from tapes_cli.store.embedded import EmbeddedServer, binaries
from tapes_cli.store.postgres.health import (
    Connections,
    Disk,
    LeaseRow,
    LongTransaction,
    Rights,
    Server,
)

if TYPE_CHECKING:
    from pathlib import Path

    from tapes_cli.inspection.health import Check

GOOD = Server(180006, "18.6", "UTF8", in_recovery=False, read_only=False)
SINCE = datetime(2026, 5, 1, 3, 0, tzinfo=UTC)
HOLDER = LeaseRow("night", 4711, SINCE, expired=False)


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def outcome(check: Check) -> tuple[Verdict, int]:
    """Return the verdict; whatever is not ok says what to do, and only that does."""
    assert bool(check.remedy) is (check.verdict in {Verdict.WARNING, Verdict.FAILED})
    return check.verdict, check.exit_status


def test_the_first_check_that_failed_decides() -> None:
    checks = [ok("a", ""), warning("b", "", ""), skipped("c", "")]
    assert exit_status(checks) == 0
    checks.append(failed("d", "", "", DatabaseUnavailableError))
    assert exit_status(checks) == 5
    assert exit_status([replace(checks[-1], exit_status=6), *checks]) == 6


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (8_123_000, "8.1 MB"),
        (84 * 10**9, "84 GB"),
        (10**19, "10000 PB"),
    ],
)
def test_bytes_as_people_read_them(count: int, text: str) -> None:
    assert amount(count) == text


def test_servers() -> None:
    assert outcome(database.judge_server("s", GOOD)) == (Verdict.OK, 0)
    old = replace(GOOD, version=130022, version_text="13.22")
    assert outcome(database.judge_server("s", old)) == (Verdict.FAILED, 1)
    assert "13.22" in database.judge_server("s", old).found
    assert outcome(database.judge_server("s", replace(GOOD, version=140000)))[0] is Verdict.OK
    standby = database.judge_server("s", replace(GOOD, in_recovery=True, read_only=True))
    assert outcome(standby) == (Verdict.FAILED, 5)
    assert "target_session_attrs" in standby.remedy


def test_settings_that_hurt() -> None:
    harmless = {"statement_timeout": "5000", "fsync": "on", "synchronous_commit": "remote_write"}
    assert outcome(database.judge_settings("s", harmless)) == (Verdict.OK, 0)
    assert outcome(database.judge_settings("s", {})) == (Verdict.OK, 0)
    for name, value in (
        ("statement_timeout", "4999"),
        ("transaction_timeout", "1"),
        ("fsync", "off"),
        ("full_page_writes", "off"),
        ("synchronous_commit", "off"),
    ):
        found = database.judge_settings("s", harmless | {name: value})
        assert outcome(found) == (Verdict.WARNING, 0)
        assert name in found.found
        assert name in found.remedy
        assert ("power failure" in found.found) is (value == "off")


def test_connections_that_are_left() -> None:
    assert outcome(database.judge_connections("c", Connections(87, 97))) == (Verdict.OK, 0)
    assert outcome(database.judge_connections("c", Connections(88, 97))) == (Verdict.WARNING, 0)


def test_free_disk_of_the_server() -> None:
    place = Disk(8_000_000, "/data")
    assert outcome(database.judge_disk("d", place, 10**9))[0] is Verdict.OK
    assert outcome(database.judge_disk("d", place, 10**9 - 1))[0] is Verdict.WARNING
    hidden = database.judge_disk("d", Disk(None, None), None)
    assert (hidden.verdict, hidden.found) == (Verdict.OK, "free disk not visible from here")


def test_who_imports() -> None:
    gone = replace(HOLDER, pid=4712, expired=True)
    assert database.judge_leases("l", []).found == "free"
    held = database.judge_leases("l", [gone, HOLDER])
    assert outcome(held) == (Verdict.OK, 0)
    assert held.found == "held by process 4711 on night, since 2026-05-01 03:00:00 UTC"
    left = database.judge_leases("l", [gone])
    assert outcome(left) == (Verdict.WARNING, 0)
    assert "4712" in left.found
    assert "takes it over" in left.remedy


def test_who_is_waited_for() -> None:
    assert outcome(database.judge_transactions("t", []))[0] is Verdict.OK
    found = database.judge_transactions(
        "t", [LongTransaction(17, "psql", 61), LongTransaction(18, "", 60)]
    )
    assert outcome(found) == (Verdict.WARNING, 0)
    assert "process 17 (psql) for 61 s; process 18 (without a name) for 60 s" in found.found


def test_missing_rights_are_grouped() -> None:
    missing = {"sessions": ("UPDATE",), "nodes": ("UPDATE",), "import_leases": ("DELETE",)}
    rights = Rights("ann", (), "public", may_create=False, tables=tuple(missing), missing=missing)
    found = database.judge_rights("r", rights, pending=True)
    assert outcome(found) == (Verdict.FAILED, 5)
    assert found.found == "ann lacks UPDATE on sessions, nodes; DELETE on import_leases"
    assert "GRANT UPDATE ON sessions, nodes TO ann; GRANT DELETE" in found.remedy


def test_a_search_path_that_leads_nowhere() -> None:
    rights = Rights("ann", (), None, may_create=False, tables=(), missing={})
    found = database.judge_rights("r", rights, pending=True)
    assert outcome(found) == (Verdict.WARNING, 0)
    assert "search_path" in found.found


def look(folder: Path, *, embedded: bool = True) -> Check:
    return machine.check_data_directory(folder, embedded=embedded)


def test_a_directory_is_not_made(tmp_path: Path) -> None:
    found = look(tmp_path / "a" / "b")
    assert outcome(found) == (Verdict.OK, 0)
    assert "is made when it is needed" in found.found
    assert list(tmp_path.iterdir()) == []
    assert "is made" not in look(tmp_path).found


def test_something_else_in_the_place_of_a_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "rejects").touch()
    (tmp_path / "nowhere").symlink_to("gone")
    for place in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / "nowhere", tmp_path):
        found = look(place)
        assert outcome(found) == (Verdict.FAILED, 2)
        assert "is not a directory" in found.found


def test_a_server_elsewhere_can_do_without_a_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    found = look(tmp_path / "file", embedded=False)
    assert outcome(found) == (Verdict.WARNING, 0)
    assert "--rejects" in found.remedy


def test_a_directory_that_may_not_be_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Root may write everywhere.
    monkeypatch.setattr("os.access", lambda *_: False)
    found = look(tmp_path / "data")
    assert outcome(found) == (Verdict.FAILED, 2)
    assert f"{tmp_path} may not be written to" in found.found


def test_a_directory_that_cannot_be_looked_at(tmp_path: Path) -> None:
    found = look(tmp_path / ("x" * 300))
    assert outcome(found) == (Verdict.FAILED, 2)
    assert "File name too long" in found.found


def test_nobody_has_no_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(_option: Path | None) -> Path:
        raise DatabaseUnavailableError("User id 5 has no home directory.", hint="Set it.")

    monkeypatch.setattr("tapes_cli.settings.data_dir", nowhere)
    found = machine.check_data_directory(None, embedded=True)
    assert outcome(found) == (Verdict.FAILED, 2)
    assert found.found == "User id 5 has no home directory"
    assert outcome(machine.look_at_embedded_server(None).check) == (Verdict.FAILED, 5)


@pytest.mark.parametrize(
    ("free", "expected"),
    [
        (10**9, (Verdict.OK, 0)),
        (10**9 - 1, (Verdict.WARNING, 0)),
        (10**8, (Verdict.WARNING, 0)),
        (10**8 - 1, (Verdict.FAILED, 2)),
    ],
)
def test_free_disk(
    free: int, expected: tuple[Verdict, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _place: Usage(10**12, 10**12 - free, free))
    assert outcome(look(tmp_path / "data")) == expected


@pytest.mark.parametrize(
    ("data", "rejects", "verdict"),
    [
        (0o700, 0o700, Verdict.OK),
        (0o711, 0o700, Verdict.OK),
        (0o755, 0o700, Verdict.OK),
        (0o775, 0o700, Verdict.WARNING),
        (0o702, 0o700, Verdict.WARNING),
        (0o700, 0o750, Verdict.WARNING),
        (0o700, 0o701, Verdict.WARNING),
    ],
)
def test_what_is_open_to_others(data: int, rejects: int, verdict: Verdict, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    (folder / "rejects").mkdir(parents=True)
    (folder / "rejects").chmod(rejects)
    folder.chmod(data)
    found = look(folder)
    assert found.verdict is verdict
    assert ("chmod" in found.remedy) is (verdict is Verdict.WARNING)


def test_data_of_another_postgresql(reachable_path: Path) -> None:
    data = reachable_path / "postgres" / "data"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("13\n")
    looked = machine.look_at_embedded_server(reachable_path)
    assert (outcome(looked.check), looked.dsn) == ((Verdict.FAILED, 5), None)
    assert "created by PostgreSQL 13" in looked.check.found
    assert "pg_dump" in looked.check.remedy


def test_something_else_where_the_data_should_be(reachable_path: Path) -> None:
    (reachable_path / "postgres" / "data" / "other").mkdir(parents=True)
    looked = machine.look_at_embedded_server(reachable_path)
    assert outcome(looked.check) == (Verdict.FAILED, 5)
    assert "holds no PostgreSQL database" in looked.check.found


def test_no_programs(reachable_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binaries, "_places", list)
    looked = machine.look_at_embedded_server(reachable_path)
    assert outcome(looked.check) == (Verdict.FAILED, 5)
    assert "--dsn" in looked.check.remedy


def test_a_server_that_is_not_there_yet(
    reachable_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = EmbeddedServer(reachable_path).status()
    monkeypatch.setattr(EmbeddedServer, "status", lambda _server: replace(status, running=True))
    looked = machine.look_at_embedded_server(reachable_path)
    assert (outcome(looked.check), looked.dsn) == ((Verdict.WARNING, 0), None)
    assert str(status.log) in looked.check.found
