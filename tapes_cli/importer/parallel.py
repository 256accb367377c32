"""One import in several processes, with the report of a single one.

Each worker goes through the same sources with a connection of its own and takes its share of them:
of a plain file the conversations that are its own, of archives, which cannot be divided, every so
manieth. What becomes of each record comes back through a pipe, and is entered in the books in the
order of the input, whoever read it.

A worker that dies is started again where its last message ended. Turns that it had stored without
a word are then found as duplicates: nothing is lost, and nothing is counted twice.
"""

from __future__ import annotations

import heapq
import multiprocessing
import signal
import sys
import time
from collections import defaultdict, deque
from dataclasses import dataclass, field, replace
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any

from tapes_cli.capture.share import Share
from tapes_cli.errors import TapesError
from tapes_cli.importer.ledger import Ledger, TooManyRejectsError
from tapes_cli.importer.report import EXIT_STOPPED, Report, SourceReport, Status
from tapes_cli.importer.run import is_rejects_file
from tapes_cli.importer.settled import Settled
from tapes_cli.importer.worker import (
    BEGINNING,
    END,
    Ended,
    Entry,
    Flag,
    News,
    Place,
    ReadSource,
    Task,
    work,
)
from tapes_cli.model.checkpoint import Position
from tapes_cli.model.reasons import Reason
from tapes_cli.model.records import Rejected

if TYPE_CHECKING:
    from collections.abc import Iterable
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

    from tapes_cli.importer.lease import Lease
    from tapes_cli.importer.stop import StopRequest

_MOST_RESTARTS = 3
_MOST_WAITING = 20_000
_LOOK_EVERY_SECONDS = 0.2


@dataclass(slots=True, eq=False)
class _Worker:
    """A process, and what it has told.

    Attributes:
        share: what it reads.
        horizon: all of its records before this have been told of.
        settled: all of its records before this are settled, however its run ended.
        waiting: those that are not entered yet, in the order of the input.
        process: None once it has ended.
        news: where it tells.
    """

    share: Share
    horizon: Place = BEGINNING
    settled: Place = BEGINNING
    waiting: deque[Entry] = field(default_factory=deque)
    process: BaseProcess | None = None
    news: Connection | None = None

    def end(self) -> None:
        """Wait for the process, which has nothing more to tell."""
        if self.process is not None and self.news is not None:
            self.news.close()
            self.process.join()
        self.process = self.news = None

    def take_before(self, place: Place) -> list[Entry]:
        """Take what it has told of the records before a place."""
        taken = []
        while self.waiting and self.waiting[0].location.order < place:
            taken.append(self.waiting.popleft())
        return taken


class ParallelRun:
    """One run in several processes. Call `run` once."""

    def __init__(
        self,
        task: Task,
        workers: int,
        ledger: Ledger,
        stop: StopRequest,
        lease: Lease | None = None,
    ) -> None:
        self._ledger = ledger
        self._stop = stop
        self._lease = lease
        sources = [s for s in task.sources if not is_rejects_file(s, ledger.rejects)]
        self._task = replace(task, sources=sources, keeps_rejects=ledger.rejects is not None)
        # Elsewhere than on Linux, a process cannot safely be divided while it runs.
        self._forks = sys.platform == "linux"
        self._context: Any = multiprocessing.get_context("fork" if self._forks else "spawn")
        # The signal that asks the workers to end.
        self._flag = self._context.Value("i", 0, lock=False)
        self._workers = [_Worker(Share(index, workers)) for index in range(workers)]
        self._books = _Books(ledger, self._task, workers)

    def run(self) -> Report:
        """Import everything; return the accounts, however the run ended."""
        ledger, started = self._ledger, time.monotonic()
        self._stop.waiting = False
        self._stop.before_leaving = self._kill
        try:
            for worker in self._workers:
                self._start(worker)
            while self._running():
                self._hear()
                self._enter(min(worker.horizon for worker in self._workers), self._settled())
        finally:
            self._kill()
        self._enter(END, self._settled())
        if ledger.report.status is Status.INTERRUPTED:
            self._books.mark(self._settled())
        ledger.close()
        ledger.report.close(time.monotonic() - started)
        return ledger.report

    def _settled(self) -> Place:
        """Return before which place everybody has settled all: who ended early got no further."""
        return min(worker.settled for worker in self._workers)

    def _running(self) -> list[_Worker]:
        return [worker for worker in self._workers if worker.process is not None]

    def _start(self, worker: _Worker) -> None:
        receiving, sending = self._context.Pipe(duplex=False)
        task = replace(self._task, begin=worker.horizon)
        # A fork has what we hear the others by, and must let go of it: they are to know it when
        # nobody hears them any more.
        inherited = [receiving, *(other.news for other in self._running())]
        process = self._context.Process(
            target=_work_apart,
            args=(inherited if self._forks else [], sending, self._flag, worker.share, task),
            daemon=True,
        )
        process.start()
        # Only the worker holds this end now: when it dies, the other end tells.
        sending.close()
        worker.process, worker.news = process, receiving

    def _hear(self) -> None:
        """Take what the workers have to tell, waiting a moment if that is nothing."""
        slowest = min(worker.horizon for worker in self._workers)
        # Who is far ahead of the others waits for them.
        heard = {
            worker.news: worker
            for worker in self._running()
            if len(worker.waiting) < _MOST_WAITING or worker.horizon == slowest
        }
        for news in wait([n for n in heard if n is not None], _LOOK_EVERY_SECONDS):
            self._take(heard[news])  # type: ignore[index]  # what is waited for are these
        if self._lease is not None:
            self._lease.renew()
        if (error := self._stop.error) is not None and not self._flag.value:
            self._fail(str(error), error.hint, error.exit_status)
        if self._stop.requested:
            self._ask_to_end(Status.INTERRUPTED, self._stop.exit_status)

    def _take(self, worker: _Worker) -> None:
        assert worker.news is not None  # noqa: S101  # it is heard
        try:
            message: News | Ended = worker.news.recv()
        except (EOFError, OSError):
            self._bury(worker)
            return
        news = message if isinstance(message, News) else message.news
        worker.waiting.extend(news.entries)
        worker.horizon = worker.settled = news.horizon
        self._books.read(news.read)
        if isinstance(message, News):
            return
        worker.end()
        worker.horizon = END
        if message.status is Status.OK:
            worker.settled = END
        elif message.status is Status.FAILED:
            self._fail(message.failure, message.hint, message.exit_code)

    def _bury(self, worker: _Worker) -> None:
        """Start a worker again that died, unless the run is to end or too many have died."""
        process = worker.process
        worker.end()
        if self._flag.value:
            worker.horizon = END
        elif self._ledger.report.workers_restarted < _MOST_RESTARTS:
            self._ledger.report.workers_restarted += 1
            self._start(worker)
        else:
            worker.horizon = END
            self._fail(
                f"Workers died {_MOST_RESTARTS + 1} times, the last one with {_end_of(process)}.",
                "Was there enough memory? Import again to go on, perhaps with --workers 1.",
                TapesError.exit_status,
            )

    def _fail(self, failure: str, hint: str, exit_code: int) -> None:
        self._ask_to_end(Status.FAILED, exit_code)
        if self._ledger.report.status is not Status.FAILED or not self._ledger.report.failure:
            self._ledger.report.fail(failure, hint, exit_code)

    def _ask_to_end(self, status: Status, exit_code: int) -> None:
        """Let the workers finish what is in flight; the first reason to end is the run's."""
        if not self._flag.value:
            self._flag.value = signal.SIGTERM
            self._ledger.end_early(status, exit_code)

    def _enter(self, horizon: Place, settled: Place) -> None:
        """Enter what all workers have told of, in the order of the input.

        Args:
            horizon: of all before this place they have told.
            settled: all before this place is settled.
        """
        told = [worker.take_before(horizon) for worker in self._workers]
        self._books.enter(heapq.merge(*told, key=lambda entry: entry.location.order))
        try:
            self._books.announce(settled)
            self._books.mark_from_time_to_time(settled)
            self._ledger.check()
        except TooManyRejectsError:
            self._ask_to_end(Status.STOPPED, EXIT_STOPPED)
        except TapesError as error:
            self._fail(str(error), error.hint, error.exit_status)

    def _kill(self) -> None:
        for worker in self._running():
            if worker.process is not None:
                worker.process.kill()
            worker.end()


class _Books:
    """The ledger, kept by source."""

    def __init__(self, ledger: Ledger, task: Task, workers: int) -> None:
        self._ledger = ledger
        self._workers = workers
        self._divided = task.divided
        self._sources = {source.number: source for source in task.sources}
        self._positions: dict[int, list[Position | None]] = defaultdict(list)
        self._replaced: set[int] = set()
        self._unannounced = deque(self._sources)
        self._accounts: dict[int, SourceReport] = {}
        self._begun: dict[int, float] = {}
        self._unreadable: set[int] = set()

    def enter(self, entries: Iterable[Entry]) -> None:
        """Enter what became of records."""
        entry = None
        for entry in entries:
            number = entry.location.number
            account = self._account(number)
            if isinstance(entry, Rejected) and entry.reason is Reason.SOURCE_UNREADABLE:
                if number in self._unreadable:
                    continue  # every worker that shares the source says so
                self._unreadable.add(number)
            if isinstance(entry, Settled):
                self._ledger.settle(entry, account)
            else:
                self._ledger.enter(entry, account)
        if entry is not None:
            self._ledger.flush()
            self._ledger.observer.progress(self._ledger.report, entry.location.source)

    def announce(self, horizon: Place) -> None:
        """Say of the sources before a place that they are done."""
        while self._unannounced and self._unannounced[0] < horizon[0]:
            number = self._unannounced.popleft()
            account = self._account(number)
            account.seconds = time.monotonic() - self._begun[number]
            account.position = self._position(number)
            account.replaced = number in self._replaced
            del self._accounts[number], self._begun[number]
            self._ledger.source_done(account)

    def read(self, sources: Iterable[ReadSource]) -> None:
        """Note how far a worker has read its share of sources."""
        for number, position, replaced in sources:
            self._positions[number].append(position)
            if replaced:
                self._replaced.add(number)

    def _position(self, number: int) -> Position | None:
        """Return how far a source was read by all that share it."""
        told = self._positions.pop(number, [])
        positions = [position for position in told if position is not None]
        expected = self._workers if number in self._divided else 1
        return min(positions) if len(positions) == len(told) == expected else None

    def mark(self, settled: Place) -> None:
        """Remember that all before a place in a divided source is settled."""
        number, line, byte_offset, _ = settled
        account = self._accounts.get(number)
        if account is not None and number in self._divided and line:
            self._ledger.mark(account, Position(line - 1, byte_offset))

    def mark_from_time_to_time(self, settled: Place) -> None:
        """Do so, unless it was done a moment ago."""
        account = self._accounts.get(settled[0])
        if account is not None and self._ledger.marks(account):
            self.mark(settled)

    def _account(self, number: int) -> SourceReport:
        account = self._accounts.get(number)
        if account is None:
            account = SourceReport(self._sources[number].name, number=number)
            self._accounts[number] = account
            self._begun[number] = time.monotonic()
            self._ledger.report.sources += 1
        return account


def _work_apart(
    others: list[Connection], news: Connection, flag: Flag, share: Share, task: Task
) -> None:
    for other in others:
        other.close()
    work(news, flag, share, task)


def _end_of(process: BaseProcess | None) -> str:
    code = process.exitcode if process else None
    return signal.Signals(-code).name if code and code < 0 else f"exit status {code}"
