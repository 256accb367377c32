"""Disks that are full: under the tables, under the log of the server, under the rejects file."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from tapes_cli.errors import DatabaseUnavailableError
from tapes_cli.store.embedded.binaries import installed_binaries
from tests.support.corpus import Corpus, places_of
from tests.support.faults import (
    Rows,
    Run,
    Server,
    adds_up,
    completes,
    eventually,
    fill,
    missing,
    rows_of,
    run_import,
    small_disk,
    stored,
)
from tests.support.importing import How, import_here

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.command import Result

pytestmark = pytest.mark.faults


@pytest.fixture
def disk(reachable_path: Path) -> Iterator[Path]:
    """Give a disk that is soon full."""
    with small_disk(reachable_path / "disk", "24m") as made:
        yield made


def _ended_truly(done: Result) -> None:
    assert done.status == 5, done.err
    assert (done.summary["status"], done.summary["exit_code"]) == ("failed", 5)
    adds_up(done)


def test_a_full_disk_under_the_tables_is_named(
    server: Server, disk: Path, captures: Corpus, expected: Rows
) -> None:
    owner = server.data.stat()
    os.chown(disk, owner.st_uid, owner.st_gid)
    server.run(f"CREATE TABLESPACE small LOCATION '{disk}'")
    with server.database(tablespace="small") as dsn:
        ballast = fill(disk, leaving=2 << 20)
        done = run_import(dsn, captures.folder, "-v", "--retry-for", "1")
        _ended_truly(done)
        assert "the server's disk is full (SQLSTATE 53100)" in done.err
        assert 0 < stored(done) < captures.turns
        ballast.unlink()
        assert missing(dsn, done) == []
        completes(dsn, captures.folder, expected)
    server.run("DROP TABLESPACE small")


def test_room_that_is_made_in_time_lets_the_run_go_on(
    server: Server, disk: Path, captures: Corpus, expected: Rows
) -> None:
    owner = server.data.stat()
    os.chown(disk, owner.st_uid, owner.st_gid)
    server.run(f"CREATE TABLESPACE small LOCATION '{disk}'")
    with server.database(tablespace="small") as dsn:
        ballast = fill(disk, leaving=1 << 20)
        before = server.log.count("No space left on device")
        with Run(dsn, captures.folder, "--workers", "2") as run:
            eventually(
                lambda: server.log.count("No space left on device") > before or not run.lives(),
                "a full disk",
            )
            ballast.unlink()
            done = run.result()
        assert done.status == 0, done.err
        assert rows_of(dsn) == expected
    server.run("DROP TABLESPACE small")


@pytest.fixture
def cramped(reachable_path: Path, disk: Path) -> Iterator[Server]:
    """Give a server whose log has a small disk of its own."""
    binaries = installed_binaries()
    assert binaries is not None
    resize = binaries.directory / "pg_resetwal"
    if not resize.exists():
        pytest.skip("no pg_resetwal")
    server = Server(reachable_path / "cramped")
    server.stop()
    owner = server.data.stat()
    # Segments of 1 MB instead of 16: what is left of the last one is soon used up.
    subprocess.run(
        [resize, "--wal-segsize=1", "-D", server.data],
        user=owner.st_uid,
        group=owner.st_gid,
        extra_groups=[],
        cwd="/",
        check=True,
        capture_output=True,
    )
    shutil.copytree(server.data / "pg_wal", disk / "wal")
    shutil.rmtree(server.data / "pg_wal")
    (server.data / "pg_wal").symlink_to(disk / "wal")
    for path in (disk / "wal", *(disk / "wal").rglob("*")):
        os.chown(path, owner.st_uid, owner.st_gid)
    server.start()
    yield server
    with suppress(DatabaseUnavailableError):
        server.stop()


def test_a_full_disk_under_the_log_loses_nothing(
    cramped: Server, disk: Path, captures: Corpus, expected: Rows
) -> None:
    with cramped.database() as dsn:
        with Run(dsn, captures.folder, "-v", "--retry-for", "1") as run:
            run.wait_for_turns(1)
            ballast = fill(disk)
            done = run.result()
        _ended_truly(done)
        assert "No space left on device" in cramped.log
        ballast.unlink()
        cramped.start()
        assert missing(dsn, done) == []
        completes(dsn, captures.folder, expected)


def _kept(rejects: Path) -> tuple[list[dict[str, Any]], int]:
    """Return the rejects, and how many lines are none because the disk had no room for them."""
    kept: list[dict[str, Any]] = []
    cut_short = 0
    for text in rejects.read_text().splitlines():
        try:
            kept.append(json.loads(text))
        except json.JSONDecodeError:
            cut_short += 1
    return kept, cut_short


@pytest.mark.parametrize("workers", ["1", "2"])
def test_no_capture_is_done_whose_rejects_were_not_kept(
    server: Server, disk: Path, spoiled: Corpus, expected: Rows, workers: str
) -> None:
    rejects = disk / "rejects.jsonl"
    ballast = fill(disk, leaving=1 << 12)
    with server.database() as dsn:
        done = run_import(dsn, spoiled.folder, "-v", "--rejects", rejects, "--workers", workers)
        assert done.status == 2
        assert "No space left on device" in done.err
        adds_up(done)
        assert missing(dsn, done) == []
        ballast.unlink()
        how = How(workers=int(workers), rejects=rejects)
        assert import_here(dsn, [spoiled.folder], how).report.exit_code == 3
        assert rows_of(dsn) == expected
    kept, cut_short = _kept(rejects)
    assert cut_short <= 1
    assert places_of(kept) == spoiled.bad


def test_rejects_that_nobody_takes_end_the_run_with_its_accounts(
    dsn: str, spoiled: Corpus, expected: Rows
) -> None:
    done = run_import(dsn, spoiled.folder, "-v", "--rejects", "/dev/full")
    assert done.status == 2
    assert "/dev/full" in done.err
    adds_up(done)
    assert missing(dsn, done) == []
    completes(dsn, spoiled.folder, expected, exit_code=3)
