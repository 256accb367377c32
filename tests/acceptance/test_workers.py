"""`--workers`: rows and report are those of one process, whatever happens to the others."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import time
from itertools import chain
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.support.captures import line, record
from tests.support.command import COMMAND, Result, environment, tapes
from tests.support.turns import rows

_SESSIONS = 7
_TURNS = 12


def _turn(session: int, turn: int, **changes: Any) -> dict[str, Any]:
    """Return a turn of a session that re-sends its whole history."""
    said = [f"session {session}, message {i}" for i in range(2 * turn)]
    messages = [
        {"role": ("user", "assistant")[i % 2], "content": words}
        for i, words in enumerate([*said, f"session {session}, message {2 * turn}"])
    ]
    return (
        record(
            answer=f"session {session}, message {2 * turn + 1}",
            request={"model": "m", "messages": messages},
            session={
                "harness_id": "claude",
                "harness_session_id": f"s{session}",
                "parent_harness_session_id": f"s{session + 1}",
            },
            meta={"captured_at": f"2026-03-02T{turn:02}:{session:02}:00Z"},
        )
        | changes
    )


def _archive(folder: Path) -> Path:
    """Write what archives are made of: sessions over several files, archives, and bad lines."""
    folder.mkdir()
    turns = [[line(_turn(s, t)) for s in range(_SESSIONS)] for t in range(_TURNS)]
    bad = ["{oops\n", line(_turn(1, 3, provider="nobody")), line({"turns": []}), "[1]\n"]
    (folder / "a.jsonl").write_text("".join(turns[0] + bad[:2] + turns[1] + turns[2]))
    (folder / "b.jsonl.gz").write_bytes(gzip.compress("".join(chain(*turns[3:6])).encode()))
    (folder / "c.jsonl").write_text("".join(chain(bad[2:], *turns[6:9], turns[0])))
    batch = line({"turns": [json.loads(text) for text in turns[9]]})
    (folder / "d.jsonl").write_text("".join([batch, *turns[10], *turns[11], '{"provider": "an']))
    alone = [line(record(f"alone {i}", session=None)) for i in range(9)]
    (folder / "e.jsonl").write_text("".join(alone))
    (folder / "f.jsonl.gz").write_bytes(gzip.compress("".join(alone).encode())[:-9])
    (folder / "g.jsonl").write_text("")
    return folder


def _rows(dsn: str) -> dict[str, list[dict[str, Any]]]:
    with psycopg.connect(dsn) as conn:
        return rows(conn)


def _told(result: Result) -> list[dict[str, Any]]:
    """Return the records on stdout, without what the clock says."""
    timed = ("seconds", "turns_per_second")
    return [{k: v for k, v in r.items() if k not in timed} for r in result.records]


@pytest.mark.parametrize("workers", ["2", "3", "5"])
def test_rows_and_report_do_not_depend_on_the_workers(
    database: str, empty_database: str, tmp_path: Path, workers: str
) -> None:
    archive = _archive(tmp_path / "archive")
    common = ("import", "-o", "jsonl", "--verbose", archive)
    alone = tapes(*common, "--workers", "1", "--dsn", empty_database, "--migrate")
    shared = tapes(*common, "--workers", workers, "--dsn", database)
    assert alone.status == shared.status == 3
    assert shared.summary["records"]["stored"] == _SESSIONS * _TURNS + 9
    assert _rows(database) == _rows(empty_database)
    # The same bytes in another file may be found there first: stored or duplicate by turns.
    assert _without_outcome(_told(shared)) == _sorted_by_place(_without_outcome(_told(alone)))
    again = tapes(*common, "--workers", workers, "--dsn", database)
    assert again.summary["records"]["stored"] == 0
    assert _rows(database) == _rows(empty_database)


def _without_outcome(told: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in r.items() if k not in {"outcome", "new_nodes"}} for r in told]


def _sorted_by_place(told: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what one process told as it came, in the order of the input; the summary last."""
    *entries, summary = told
    return [
        *sorted(entries, key=lambda r: (r["source"], r["line"], r.get("index", -1))),
        summary,
    ]


def test_rejects_of_all_workers_are_kept(database: str, tmp_path: Path) -> None:
    archive = _archive(tmp_path / "archive")
    kept = tmp_path / "rejects.jsonl"
    done = tapes("import", "--workers", "3", "--rejects", kept, "--dsn", database, archive)
    assert done.status == 3
    lines = map(json.loads, kept.read_text().splitlines())
    assert [(Path(r["source"]).name, r["line"]) for r in lines] == [
        ("a.jsonl", 8),
        ("a.jsonl", 9),
        ("c.jsonl", 1),
        ("c.jsonl", 2),
        ("f.jsonl.gz", 10),
    ]


def test_strict_stops_all_workers(database: str, tmp_path: Path) -> None:
    archive = _archive(tmp_path / "archive")
    done = tapes("import", "--workers", "2", "--strict", "-o", "jsonl", "--dsn", database, archive)
    assert done.status == 4
    assert done.summary["status"] == "stopped"
    _adds_up(done.summary)


def _adds_up(summary: dict[str, Any]) -> None:
    records = summary["records"].copy()
    assert records.pop("read") == sum(records.values())


def test_a_server_that_is_away_is_told_once(tmp_path: Path) -> None:
    archive = _archive(tmp_path / "archive")
    done = tapes("import", "--workers", "2", "--dsn", "host=/nonexistent dbname=x", archive)
    assert done.status == 5
    assert done.err.count("Error:") == 1


def _large(path: Path, turns: int = 150) -> int:
    """Write a capture that takes a while; return how many turns it has."""
    with path.open("w") as file:
        for turn in range(turns):
            file.writelines(line(_turn(session, turn, meta={})) for session in range(20))
    return turns * 20


def _start(*arguments: str | Path) -> subprocess.Popen[bytes]:
    unmeasured = {k: v for k, v in environment().items() if "COVERAGE" not in k}
    return subprocess.Popen(
        [COMMAND, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=unmeasured,
    )


def _children(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _wait_for_turns(dsn: str, least: int) -> None:
    deadline = time.monotonic() + 60
    with psycopg.connect(dsn, autocommit=True) as conn:
        while time.monotonic() < deadline:
            row = conn.execute("SELECT count(*) FROM nodes WHERE landings = 1").fetchone()
            if row is not None and row[0] >= least:
                return
            time.sleep(0.01)
    raise AssertionError("nothing is stored")


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds workers in /proc")
def test_a_worker_that_is_killed_is_started_again(
    database: str, empty_database: str, tmp_path: Path
) -> None:
    capture = tmp_path / "large.jsonl"
    turns = _large(capture)
    alone = tapes("import", "-q", "--workers", "1", "--dsn", empty_database, "--migrate", capture)
    assert alone.status == 0
    process = _start("import", "-q", "-o", "jsonl", "--workers", "2", "--dsn", database, capture)
    _wait_for_turns(database, 1)
    os.kill(_children(process.pid)[0], signal.SIGKILL)
    out, err = process.communicate(timeout=100)
    assert (process.returncode, err) == (0, b"")
    summary = json.loads(out.splitlines()[-1])
    assert summary["workers_restarted"] == 1
    records = summary["records"]
    # What was stored without a word is found as a duplicate; nothing is missing.
    assert records["stored"] + records["duplicate"] == records["read"] == turns
    assert _rows(database) == _rows(empty_database)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds workers in /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_all_workers_with_true_accounts(
    database: str, empty_database: str, tmp_path: Path, number: signal.Signals
) -> None:
    capture = tmp_path / "large.jsonl"
    _large(capture)
    process = _start("import", "-o", "jsonl", "--workers", "2", "--dsn", database, capture)
    _wait_for_turns(database, 1)
    # As a terminal does it: the workers get the signal as well.
    for pid in (*_children(process.pid), process.pid):
        os.kill(pid, number)
    out, _ = process.communicate(timeout=100)
    summary = json.loads(out.splitlines()[-1])
    assert process.returncode == summary["exit_code"] == 128 + number
    assert summary["status"] == "interrupted"
    with psycopg.connect(database) as conn:
        found = conn.execute("SELECT count(*) FROM nodes WHERE landings = 1").fetchone()
    assert found == (summary["records"]["stored"],)
    assert tapes("import", "-q", "--workers", "2", "--dsn", database, capture).status == 0
    tapes("import", "-q", "--dsn", empty_database, "--migrate", capture)
    assert _rows(database) == _rows(empty_database)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds workers in /proc")
def test_a_second_signal_leaves_no_worker_behind(database: str, tmp_path: Path) -> None:
    capture = tmp_path / "large.jsonl"
    _large(capture)
    process = _start("import", "-q", "--workers", "2", "--dsn", database, capture)
    _wait_for_turns(database, 1)
    workers = _children(process.pid)
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == 130
    process.communicate()
    deadline = time.monotonic() + 10
    while any(_is_alive(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(_is_alive(pid) for pid in workers)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds workers in /proc")
def test_workers_do_not_outlive_the_one_who_listens(database: str, tmp_path: Path) -> None:
    capture = tmp_path / "large.jsonl"
    turns = _large(capture)
    process = _start("import", "-v", "-o", "jsonl", "--workers", "3", "--dsn", database, capture)
    _wait_for_turns(database, 1)
    workers = _children(process.pid)
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 20
    while any(_is_alive(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(_is_alive(pid) for pid in workers)
    again = tapes("import", "-q", "-o", "jsonl", "--workers", "3", "--dsn", database, capture)
    assert again.status == 0
    assert 0 < again.summary["records"]["stored"] < turns


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
