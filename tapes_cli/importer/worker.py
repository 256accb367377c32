"""One worker of an import in several processes: its share of the sources, told piece by piece."""

from __future__ import annotations

import signal
import sys
import traceback
from bisect import bisect_left
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, TypeAlias

from tapes_cli.capture.sources import Source
from tapes_cli.errors import TapesError
from tapes_cli.importer.ledger import Ledger
from tapes_cli.importer.prepare import Preparer
from tapes_cli.importer.report import Report, Status
from tapes_cli.importer.run import ImportRun
from tapes_cli.importer.stop import StopRequest
from tapes_cli.model.records import Incomplete, Rejected
from tapes_cli.store.postgres.retry import DEFAULT_BACKOFF, Backoff
from tapes_cli.store.postgres.store import PostgresStore

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from multiprocessing.connection import Connection
    from uuid import UUID

    from tapes_cli.capture.share import Share
    from tapes_cli.capture.sources import SourceProblem
    from tapes_cli.importer.report import SourceReport
    from tapes_cli.importer.run import ImportOptions
    from tapes_cli.importer.settled import Settled
    from tapes_cli.model.checkpoint import Position
    from tapes_cli.model.records import Record
    from tapes_cli.model.sessionless import Sessionless
    from tapes_cli.store.base import SessionIngester

Place: TypeAlias = tuple[int, int, int, int]
"""Where a record stands in the order of the input: see `Location.order`."""

Entry: TypeAlias = "Record | Settled"
"""What became of a record."""

ReadSource: TypeAlias = "tuple[int, Position | None, bool]"
"""The number of a source that was read to its end, the position there, whether it was replaced."""

BEGINNING: Place = (0, 0, 0, -1)
END: Place = (sys.maxsize, 0, 0, -1)


class Flag(Protocol):
    """A number that all processes share: the signal that asks to end, or 0."""

    value: int


@dataclass(frozen=True, slots=True)
class Task:
    """What a worker has to do.

    Attributes:
        dsn: the database.
        options: how to import.
        sessionless: what to do with turns that have no envelope.
        default_org: the org of envelopes that name none.
        debug: whether to show a traceback when something unforeseen happens.
        sources: all that is imported, by everybody together.
        divided: the numbers of those that the workers share; each of the others is one worker's.
        keeps_rejects: whether the bytes of rejected records are wanted.
        begin: only what stands there or behind it is to be told of.
        backoff: how long to wait for a database that is away.
    """

    dsn: str
    options: ImportOptions
    sessionless: Sessionless
    default_org: UUID | None
    debug: bool = False
    sources: Sequence[Source | SourceProblem] = ()
    divided: frozenset[int] = frozenset()
    keeps_rejects: bool = False
    begin: Place = BEGINNING
    backoff: Backoff = DEFAULT_BACKOFF


@dataclass(frozen=True, slots=True)
class News:
    """What became of records, in the order of the input.

    All that is the worker's before `horizon` has been told of now. `read` has the numbers of
    sources that it has read to their ends, each with the position there, and whether it was another
    file than the one that was listed.
    """

    horizon: Place
    entries: list[Entry]
    read: list[ReadSource]


@dataclass(frozen=True, slots=True)
class Ended:
    """How the worker's run ended, with all that had not been told."""

    status: Status
    exit_code: int
    failure: str
    hint: str
    news: News


class SharedStop(StopRequest):
    """The request to end that comes from the process that started this one."""

    def __init__(self, flag: Flag) -> None:
        super().__init__()
        self._flag = flag

    @property
    def requested(self) -> bool:
        """Whether the run should end after what is in flight."""
        return self._flag.value != 0

    @property
    def exit_status(self) -> int:
        """The status of a process that a signal ended."""
        return 128 + self._flag.value


def import_alone(task: Task, ledger: Ledger, stop: StopRequest) -> Report:
    """Import all of the task's sources in this process; return the accounts."""
    with closing(PostgresStore(task.dsn, task.backoff)) as store:
        return import_into(store, task, ledger, stop)


def import_into(store: SessionIngester, task: Task, ledger: Ledger, stop: StopRequest) -> Report:
    """Hand all of the task's sources to a store, in this process; return the accounts."""
    return _run(task, store, ledger, stop).run(task.sources)


def work(news: Connection, flag: Flag, share: Share, task: Task) -> None:
    """Import a share of the sources in a process of its own, and tell what became of it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the flag says when to end
    teller = _Teller(news, task)
    try:
        report = _import_share(teller, SharedStop(flag), share, task)
        failure, hint = report.failure, report.failure_hint
        ended = Ended(report.status, report.exit_code, failure, hint, teller.rest())
    except TapesError as error:
        ended = Ended(Status.FAILED, error.exit_status, str(error), error.hint, teller.rest())
    except ConnectionError:
        return  # nobody listens any more
    except Exception as error:  # noqa: BLE001  # whatever it is, it must be heard of
        if task.debug:
            traceback.print_exc()
        failure = f"A worker failed: internal error: {type(error).__name__}."
        hint = "Run it again with --debug, and report it."
        ended = Ended(Status.FAILED, TapesError.exit_status, failure, hint, teller.rest())
    with suppress(ConnectionError):
        news.send(ended)
        news.close()


def _import_share(teller: _Teller, stop: StopRequest, share: Share, task: Task) -> Report:
    with closing(PostgresStore(task.dsn, task.backoff)) as store:
        teller.run = _run(task, store, Ledger(teller, report=_Uncounted("import")), stop)
        return teller.run.run(_shares(task, share))


def _run(task: Task, store: SessionIngester, ledger: Ledger, stop: StopRequest) -> ImportRun:
    preparer = Preparer(task.sessionless, task.default_org)
    return ImportRun(store, preparer, task.options, ledger, stop)


def _shares(task: Task, share: Share) -> Iterator[Source | SourceProblem]:
    """Yield what this worker reads: its records of plain files, and its own of the others."""
    for source in task.sources:
        if source.number < task.begin[0]:
            continue
        if isinstance(source, Source) and source.number in task.divided:
            yield source.shared(share)
        elif source.number % share.count == share.index:
            yield source


class _Uncounted(Report):
    """The report of a worker: who hears what it tells counts."""

    def count_settled(self, settled: Settled) -> None:
        """Count nothing."""

    def count_other(self, record: Record) -> None:
        """Count nothing."""


class _Teller:
    """Hears what becomes of records, and tells it in the order of the input.

    Attributes:
        run: the run that it listens to.
    """

    def __init__(self, news: Connection, task: Task) -> None:
        self.run: ImportRun | None = None
        self._news = news
        self._begin = self._told = self._heard = task.begin
        self._keeps_rejects = task.keeps_rejects
        self._entries: list[Entry] = []
        self._read: list[ReadSource] = []

    def other(self, record: Record) -> None:
        """Hear of a record that is no turn, or a turn that was rejected."""
        self._hear(record)

    def settled(self, settled: Settled) -> None:
        """Hear of a turn that is durably stored or was there before."""
        self._hear(settled)

    def source_done(self, source: SourceReport) -> None:
        """Hear of a source of which every record is settled."""
        self._read.append((source.number, source.position, source.replaced))
        self._tell_up_to((source.number + 1, 0, 0, -1))

    def progress(self, report: Report, source: str) -> None:
        """Hear that a batch is settled."""
        del report, source
        self._tell_up_to(self._behind_the_last())

    def rest(self) -> News:
        """Return what has not been told, and how far all is settled."""
        horizon = self._settled_before(self._behind_the_last())
        return News(horizon, sorted(self._entries, key=_order), self._read)

    def _behind_the_last(self) -> Place:
        number, line, offset, index = self._heard
        return number, line, offset, index + 1

    def _settled_before(self, read: Place) -> Place:
        unsettled = self.run.unsettled if self.run else None
        return read if unsettled is None else min(read, unsettled.order)

    def _hear(self, entry: Entry) -> None:
        place = _order(entry)
        self._heard = max(self._heard, place)
        if place < self._begin:
            return
        if not self._keeps_rejects and isinstance(entry, Rejected | Incomplete):
            entry = replace(entry, raw=b"")
        self._entries.append(entry)

    def _tell_up_to(self, read: Place) -> None:
        """Tell of all before `read` that is settled: nothing that is in flight."""
        horizon = self._settled_before(read)
        if horizon <= self._told:
            return
        self._entries.sort(key=_order)
        told = bisect_left(self._entries, horizon, key=_order)
        self._news.send(News(horizon, self._entries[:told], self._read))
        del self._entries[:told]
        self._told, self._read = horizon, []


def _order(entry: Entry) -> Place:
    return entry.location.order
