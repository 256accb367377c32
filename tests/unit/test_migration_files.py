"""Migration files: pairs, versions, and what the SQL must not hold."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import tapes_cli
from tapes_cli.errors import SchemaError
from tapes_cli.store.postgres.migration_files import (
    Direction,
    Migration,
    load_migrations,
    record_version,
    script,
)

REPOSITORY = Path(tapes_cli.__file__).parent.parent


def write(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).write_text(f"SELECT '{name}';")
    return folder


def test_the_first_three_are_those_of_the_reference_service() -> None:
    assert [str(migration) for migration in load_migrations()][:3] == [
        "1776773689_baseline",
        "1776787153_ancestry_func",
        "1779329142_session_tracking",
    ]


@pytest.mark.parametrize("migration", load_migrations(), ids=str)
@pytest.mark.parametrize("direction", Direction)
def test_no_file_leaves_its_transaction(migration: Migration, direction: Direction) -> None:
    sql = migration.sql(direction)
    assert sql.strip()
    ends = re.compile(
        r"^\s*(BEGIN|START\s+TRANSACTION|COMMIT|ROLLBACK|END)\b[^;\n]*;|\bCONCURRENTLY\b|^\s*\\",
        re.IGNORECASE | re.MULTILINE,
    )
    assert not ends.search(sql)
    assert "schema_migrations" not in sql


def test_files_are_read_in_the_order_of_their_versions(tmp_path: Path) -> None:
    write(tmp_path, "10_b.up.sql", "10_b.down.sql", "9_a.up.sql", "9_a.down.sql", "README.md")
    assert load_migrations(tmp_path) == [
        Migration(9, "a", "SELECT '9_a.up.sql';", "SELECT '9_a.down.sql';"),
        Migration(10, "b", "SELECT '10_b.up.sql';", "SELECT '10_b.down.sql';"),
    ]


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        ([], "no migrations"),
        (["1_a.up.sql"], "Migration 1 has no down file"),
        (["1_a.down.sql"], "Migration 1 has no up file"),
        (["1_a.up.sql", "1_a.down.sql", "1_b.up.sql", "1_b.down.sql"], "has the same version"),
        (["1_a.up.sql", "01_a.up.sql", "1_a.down.sql"], "has the same version"),
        (["1_a.up.sql", "1_b.down.sql"], "is called a one way and b the other"),
        (["1_a.sql"], r"1_a\.sql: a migration is called"),
        (["1-a.up.sql"], r"1-a\.up\.sql: a migration is called"),
    ],
)
def test_a_broken_set_of_files_is_refused(tmp_path: Path, names: list[str], complaint: str) -> None:
    with pytest.raises(SchemaError, match=complaint):
        load_migrations(write(tmp_path, *names))


def test_files_can_come_from_an_archive(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        archive.writestr("sql/1_a.up.sql", "SELECT 1;")
        archive.writestr("sql/1_a.down.sql", "SELECT 2;")
    with zipfile.ZipFile(tmp_path / "archive.zip") as archive:
        found = load_migrations(zipfile.Path(archive, "sql/"))
    assert found == [Migration(1, "a", "SELECT 1;", "SELECT 2;")]


def test_an_installed_package_carries_its_own(tmp_path: Path) -> None:
    shutil.copytree(
        REPOSITORY / "tapes_cli", tmp_path / "tapes_cli", ignore=shutil.ignore_patterns("*.pyc")
    )
    inside = tmp_path / "tapes_cli" / "migrations"
    inside.mkdir(exist_ok=True)
    write(inside, "7_only.up.sql", "7_only.down.sql")
    code = (
        "from tapes_cli.store.postgres.migration_files import load_migrations\n"
        "print(*load_migrations())"
    )
    printed = subprocess.check_output(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={},  # A measurement of coverage shall not follow into the copy.
        text=True,
    )
    assert "7_only" in printed.split()


def test_the_version_table_keeps_one_row_or_none() -> None:
    assert record_version(None) == "DELETE FROM schema_migrations;"
    assert record_version(7).splitlines() == [
        "DELETE FROM schema_migrations;",
        "INSERT INTO schema_migrations (version, dirty) VALUES (7, false);",
    ]


def test_a_script_records_each_version_in_its_transaction() -> None:
    first, second = Migration(1, "a", "UP 1", "DOWN 1"), Migration(2, "b", "UP 2", "DOWN 2")
    up = script([first, second], Direction.UP, None)
    assert re.findall(r"UP \d|VALUES \(\d|BEGIN|COMMIT", up) == [
        *("BEGIN", "UP 1", "VALUES (1", "COMMIT"),
        *("BEGIN", "UP 2", "VALUES (2", "COMMIT"),
    ]
    down = script([second, first], Direction.DOWN, None)
    assert re.findall(r"DOWN \d|VALUES \(\d|BEGIN|COMMIT", down) == [
        *("BEGIN", "DOWN 2", "VALUES (1", "COMMIT"),
        *("BEGIN", "DOWN 1", "COMMIT"),
    ]
    assert "CREATE TABLE" in up
    assert "CREATE TABLE" not in down
