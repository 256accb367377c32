"""What becomes of a run whose workers do not do what they should."""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tapes_cli.capture.expansion import expand
from tapes_cli.capture.reader import Options
from tapes_cli.importer import parallel, start, worker
from tapes_cli.importer.ledger import Ledger
from tapes_cli.importer.parallel import ParallelRun
from tapes_cli.importer.report import Status
from tapes_cli.importer.run import ImportOptions
from tapes_cli.importer.start import divisible, import_all, numbered, workers_worth
from tapes_cli.importer.stop import StopRequest
from tapes_cli.importer.worker import Task
from tapes_cli.model.records import Rejected
from tapes_cli.model.sessionless import Sessionless
from tapes_cli.store.postgres.retry import Backoff
from tests.support.captures import line, record

if TYPE_CHECKING:
    from pathlib import Path

    from tapes_cli.importer.report import Report, SourceReport
    from tapes_cli.importer.settled import Settled
    from tapes_cli.model.records import Record


class Listener:
    """Notes what it hears."""

    def __init__(self) -> None:
        self.others: list[Record] = []
        self.turns: list[Settled] = []
        self.sources: list[tuple[str, int]] = []

    def other(self, record: Record) -> None:
        self.others.append(record)

    def settled(self, settled: Settled) -> None:
        self.turns.append(settled)

    def source_done(self, source: SourceReport) -> None:
        self.sources.append((source.name, source.accounts.read))

    def progress(self, report: Report, source: str) -> None:
        pass


def _task(dsn: str, folder: Path) -> Task:
    options = ImportOptions(Options(), with_chains=False)
    sources = numbered(expand([folder]))
    divided = divisible(sources, options.reading)
    return Task(dsn, options, Sessionless.SYNTHETIC, None, sources=sources, divided=divided)


def _session(number: int) -> dict[str, Any]:
    return {"harness_id": "claude", "harness_session_id": f"s{number}"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "captures"
    made.mkdir()
    for name in "abc":
        text = "".join(line(record(f"{name}{i}", session=_session(i))) for i in range(20))
        (made / f"{name}.jsonl").write_text(text + "[]\n")
    return made


def _run(task: Task, workers: int) -> tuple[Report, Listener]:
    listener = Listener()
    return ParallelRun(task, workers, Ledger(listener), StopRequest()).run(), listener


def test_everything_is_told_once_in_the_order_of_the_input(database: str, folder: Path) -> None:
    report, listener = _run(_task(database, folder), 3)
    assert (report.records.stored, report.records.rejected, report.exit_code) == (60, 3, 3)
    places = [turn.location.order for turn in listener.turns]
    assert places == sorted(set(places))
    assert len(places) == 60
    assert listener.sources == [(str(folder / f"{name}.jsonl"), 21) for name in "abc"]


def test_a_worker_that_dies_again_and_again_is_told(
    database: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel, "work", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    report, listener = _run(_task(database, folder), 2)
    assert (report.status, report.exit_code) == (Status.FAILED, 1)
    assert report.failure == "Workers died 4 times, the last one with SIGKILL."
    assert report.records.read == 0
    assert listener.sources == []


def test_a_worker_that_dies_before_its_last_word_loses_nothing(
    database: str, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    once = tmp_path / "once"
    tell = worker._Teller._tell_up_to

    def dies_once(teller: Any, read: Any) -> None:
        if teller._entries and not once.exists():
            once.touch()
            os._exit(3)
        tell(teller, read)

    monkeypatch.setattr(worker._Teller, "_tell_up_to", dies_once)
    report, _ = _run(_task(database, folder), 2)
    assert report.workers_restarted == 1
    records = report.records
    assert (records.stored + records.duplicate, records.rejected) == (60, 3)
    assert records.duplicate > 0


def test_what_nobody_foresaw_is_told(
    database: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise KeyError("secret")

    monkeypatch.setattr(worker, "Preparer", broken)
    report, _ = _run(_task(database, folder), 2)
    assert (report.status, report.exit_code) == (Status.FAILED, 1)
    assert report.failure == "A worker failed: internal error: KeyError."


def test_a_database_that_is_away_is_told(folder: Path) -> None:
    task = replace(_task("host=/nonexistent dbname=x", folder), backoff=Backoff(limit=0.0))
    report, _ = _run(task, 2)
    assert (report.status, report.exit_code) == (Status.FAILED, 5)
    assert "Cannot connect" in report.failure


def test_only_input_that_is_worth_it_is_divided(
    database: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = _task(database, folder)
    assert workers_worth(task.sources, task.divided) == 1
    monkeypatch.setattr(start, "WORTH_A_WORKER", 100)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(5), raising=False)
    assert workers_worth(task.sources, task.divided) == 5
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(50), raising=False)
    assert workers_worth(task.sources, task.divided) == start.MOST_WORKERS
    report = import_all(task, Ledger(Listener()), StopRequest(), None)
    assert report.records.stored == 60


def test_a_file_that_goes_away_is_told_once_and_its_share_is_not_forgotten(
    database: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = _task(database, folder)
    read = worker._shares

    def late(*arguments: Any) -> Any:
        (folder / "b.jsonl").unlink(missing_ok=True)
        return read(*arguments)

    monkeypatch.setattr(worker, "_shares", late)
    report, listener = _run(task, 3)
    assert report.exit_code == 3
    assert report.reasons == {"source_unreadable": 1, "not_object": 2}
    assert report.records.stored == 40
    assert listener.sources[1] == (str(folder / "b.jsonl"), 1)


def test_a_pipe_with_a_name_is_read_by_one(database: str, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    task = replace(_task(database, pipe), sources=numbered(expand([pipe])))
    writer = threading.Thread(target=lambda: pipe.write_text(line(record())))
    writer.start()
    report = import_all(task, Ledger(Listener()), StopRequest(), 2)
    writer.join()
    assert report.records.stored == 1


def test_rejects_are_told_as_they_come_and_without_bytes_that_nobody_keeps(
    database: str, tmp_path: Path
) -> None:
    capture = tmp_path / "mostly-bad.jsonl"
    bad = "".join(f'["bad {i}"]\n' for i in range(5_000))
    capture.write_text(line(record("first", session=_session(1))) + bad)
    told: list[int] = []
    take = parallel.ParallelRun._take

    class Counting(ParallelRun):
        def _take(self, one: Any) -> None:
            before = len(one.waiting)
            take(self, one)
            told.append(len(one.waiting) - before)

    listener = Listener()
    report = Counting(_task(database, capture), 2, Ledger(listener), StopRequest()).run()
    assert (report.records.stored, report.records.rejected) == (1, 5_000)
    assert max(told) <= 1_100
    assert all(isinstance(r, Rejected) and r.raw == b"" for r in listener.others)
