"""Captures that change, move or vanish while they are read."""

from __future__ import annotations

import os
import shutil
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.support.corpus import turns_of
from tests.support.faults import Rows, Run, Server, adds_up, completes, rows_of, run_import
from tests.support.importing import import_here
from tests.support.proxy import proxied

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.command import Result

pytestmark = pytest.mark.faults

# A file of which not all is read when the first of it is stored, and one that is read after it.
_SESSIONS, _TURNS = 36, 44
_LATER = 40

_NO_PRIVILEGES = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a folder of two captures."""
    made = tmp_path / "captures"
    made.mkdir()
    lines = turns_of(_SESSIONS, _TURNS)
    (made / "a.jsonl").write_text("".join(lines))
    (made / "b.jsonl").write_text("".join(turns_of(_LATER, 1)[_SESSIONS:]))
    return made


@pytest.fixture
def expect(server: Server) -> Callable[[Path], Rows]:
    """Give a function that returns what an undisturbed import of a folder leaves."""

    def rows_after(folder: Path) -> Rows:
        with server.database() as dsn:
            import_here(dsn, [folder])
            return rows_of(dsn)

    return rows_after


@contextmanager
def _reading(dsn: str, folder: Path, workers: str) -> Iterator[Run]:
    """Give an import that has read a part of the first file, and is stopped for the block."""
    with Run(dsn, folder, "--workers", workers) as run:
        run.wait_for_turns(1)
        run.send_all(signal.SIGSTOP)
        assert run.lives()
        try:
            yield run
        finally:
            run.send_all(signal.SIGCONT)


def _ended(run: Run, *statuses: int) -> Result:
    run.send_all(signal.SIGCONT)
    done = run.result()
    assert done.status in statuses, done.err
    adds_up(done)
    return done


@pytest.mark.parametrize(("size", "workers"), [("shorter", "2"), ("longer", "1")])
def test_a_file_that_is_copied_and_truncated(
    dsn: str, folder: Path, expect: Callable[[Path], Rows], size: str, workers: str
) -> None:
    turns = 6 if size == "shorter" else 60
    with _reading(dsn, folder, workers) as run:
        shutil.copy(folder / "a.jsonl", folder / "a.jsonl.1")
        os.truncate(folder / "a.jsonl", 0)
        # The same file has other records now, perhaps in the middle of a line that is read.
        (folder / "a.jsonl").write_text("".join(turns_of(20, turns, first=_TURNS)))
        _ended(run, 0, 3)
    completes(dsn, folder, expect(folder))


def test_a_file_that_is_replaced(
    dsn: str, folder: Path, expect: Callable[[Path], Rows], tmp_path: Path
) -> None:
    with _reading(dsn, folder, "1") as run:
        new = tmp_path / "new"
        new.write_text("".join(turns_of(3, 60)))
        shutil.copy(folder / "a.jsonl", tmp_path / "old")
        new.rename(folder / "a.jsonl")
        # Who has opened the file reads what it was to its end.
        _ended(run, 0)
    shutil.move(tmp_path / "old", folder / "old")
    expected = expect(folder)
    (folder / "old").unlink()
    completes(dsn, folder, expected)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_file_that_grows(
    dsn: str, folder: Path, expect: Callable[[Path], Rows], workers: str
) -> None:
    more = "".join(turns_of(_SESSIONS, 2, first=_TURNS))
    half = len(more) * 3 // 5
    with _reading(dsn, folder, workers) as run, (folder / "a.jsonl").open("a") as file:
        file.write(more[:half])
        file.flush()
        _ended(run, 0)
        file.write(more[half:])
    completes(dsn, folder, expect(folder))


def test_a_folder_that_vanishes_and_comes_back(
    dsn: str, folder: Path, expect: Callable[[Path], Rows], tmp_path: Path
) -> None:
    with _reading(dsn, folder, "1") as run:
        shutil.copytree(folder, tmp_path / "copy")
        shutil.rmtree(folder)
        done = _ended(run, 3)
    assert done.summary["reasons"] == {"source_unreadable": 1}
    assert done.summary["records"]["stored"] == _SESSIONS * _TURNS
    gone = run_import(dsn, folder)
    assert (gone.status, "no such file or folder" in gone.err) == (2, True)
    (tmp_path / "copy").rename(folder)
    completes(dsn, folder, expect(folder))


def test_what_may_not_be_read_is_named_and_read_once_it_may(
    server: Server,
    dsn: str,
    folder: Path,
    expect: Callable[[Path], Rows],
    reachable_path: Path,
) -> None:
    before: tuple[str, ...] = ()
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("root reads everything, and cannot be kept from it here")
        before = _NO_PRIVILEGES
    closed = folder / "aa"
    closed.mkdir()
    (closed / "c.jsonl").write_text("".join(turns_of(50, 1)[_LATER:]))
    expected = expect(folder)
    closed.chmod(0)
    (folder / "a.jsonl").chmod(0)
    try:
        # Without its privileges, root does not get through to the server either.
        with proxied(reachable_path / "p", server.socket) as proxy:
            done = run_import(proxy.dsn(dsn), folder, before=before)
    finally:
        closed.chmod(0o700)
        (folder / "a.jsonl").chmod(0o600)
    assert done.status == 3
    rejects = [(r["source"], r["message"]) for r in done.records if r["type"] == "reject"]
    refused = [f"{folder}/a.jsonl", str(closed)]
    assert rejects == [(path, "permission denied") for path in refused]
    assert done.summary["records"]["stored"] == _LATER - _SESSIONS
    completes(dsn, folder, expected)
