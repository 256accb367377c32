"""One import: sources through the line into a store, with accounts that always add up."""

from __future__ import annotations

import time
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from tapes_cli.capture.reader import Reader
from tapes_cli.capture.sources import Source
from tapes_cli.errors import (
    DatabaseUnavailableError,
    InterruptedRunError,
    SchemaError,
    UsageError,
)
from tapes_cli.importer.rejects import RejectsFile
from tapes_cli.importer.report import EXIT_STOPPED, Report, SourceReport, Status
from tapes_cli.model.reasons import Reason
from tapes_cli.model.records import Accepted, Incomplete, Rejected, RejectError
from tapes_cli.store.base import OutcomeKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tapes_cli.capture.reader import Options
    from tapes_cli.capture.sources import SourceProblem
    from tapes_cli.errors import TapesError
    from tapes_cli.importer.prepare import Preparer
    from tapes_cli.importer.stop import StopRequest
    from tapes_cli.model.records import Location, Record
    from tapes_cli.store.base import ChainedTurn, Outcome, SessionIngester

_BATCH_TURNS = 512
_BATCH_BYTES = 4 << 20
_BATCH_SECONDS = 1.0


class Observer(Protocol):
    """Hears what becomes of every record, when it is certain."""

    def other(self, record: Record) -> None:
        """Hear of a record that is no turn, or a turn that was rejected."""
        ...

    def settled(self, turn: ChainedTurn, location: Location, outcome: Outcome) -> None:
        """Hear of a turn that is durably stored or was there before."""
        ...

    def source_done(self, source: SourceReport) -> None:
        """Hear of a source of which every record is settled."""
        ...

    def progress(self, report: Report, source: str) -> None:
        """Hear from time to time that the run goes on."""
        ...


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """How to import.

    `max_rejects` is how many rejected records a run bears before it stops; None bears them all.
    """

    reading: Options
    max_rejects: int | None = None


@dataclass(slots=True)
class _Pending:
    """A turn that was read and is not settled yet."""

    record: Accepted
    turn: ChainedTurn
    source: SourceReport


class _TooManyRejectsError(Exception):
    """More records were rejected than the run bears."""


@dataclass(slots=True)
class _Batch:
    """Turns that go to the store together, and the sources that are done when these are."""

    pending: list[_Pending] = field(default_factory=list)
    size: int = 0
    finished: list[SourceReport] = field(default_factory=list)
    begun: float = field(default_factory=time.monotonic)

    @property
    def full(self) -> bool:
        """Whether it is large enough, or old enough: a pipe may be slow."""
        large = len(self.pending) >= _BATCH_TURNS or self.size >= _BATCH_BYTES
        return large or time.monotonic() - self.begun >= _BATCH_SECONDS


@dataclass(slots=True)
class ImportRun:
    """One run. Call `run` once.

    While the store is busy with one batch, the next one is read.
    """

    store: SessionIngester
    preparer: Preparer
    options: ImportOptions
    observer: Observer
    stop: StopRequest
    rejects: RejectsFile | None = None
    report: Report = field(default_factory=lambda: Report("import"))
    _batch: _Batch = field(default_factory=_Batch)
    _unkept: UsageError | None = None
    _in_flight: tuple[_Batch, Future[list[Outcome]]] | None = None
    _storing: Executor = field(default_factory=lambda: ThreadPoolExecutor(max_workers=1))

    def run(self, sources: Iterable[Source | SourceProblem]) -> Report:
        """Import everything; return the accounts, however the run ended.

        Nothing is reported as stored that is not durable.
        """
        started = time.monotonic()
        try:
            self._read_all(sources)
            self._settle()
            self._check_rejects()
        except InterruptedRunError as interruption:
            self._end_early(Status.INTERRUPTED, interruption.exit_status)
        except _TooManyRejectsError:
            self._end_early(Status.STOPPED, EXIT_STOPPED)
        except (DatabaseUnavailableError, SchemaError) as error:
            self._fail(error)
        except UsageError:
            self._end_early(Status.FAILED, UsageError.exit_status)
        finally:
            self._storing.shutdown()
        self._with_rejects(RejectsFile.close)
        if self._unkept is not None:
            self._fail(self._unkept)
        self.report.close(time.monotonic() - started)
        return self.report

    def _read_all(self, sources: Iterable[Source | SourceProblem]) -> None:
        reader = Reader(self.options.reading)
        for source in sources:
            if self._is_rejects_file(source):
                continue
            account = SourceReport(source.name, not _is_stdin(source))
            self.report.sources += 1
            started = time.monotonic()
            records = reader.read(source)
            while (record := self.stop.wait_for(records)) is not None:
                self._take(record, account)
            account.seconds = time.monotonic() - started
            self._batch.finished.append(account)
            if not self._batch.pending and self._in_flight is None:
                self._announce(self._batch)

    def _is_rejects_file(self, source: Source | SourceProblem) -> bool:
        # It grows with every reject: reading it while writing it would never end.
        return (
            self.rejects is not None
            and isinstance(source, Source)
            and source.path is not None
            and self.rejects.is_file(source.path)
        )

    def _take(self, record: Record, source: SourceReport) -> None:
        if isinstance(record, Accepted):
            self._accept(record, source)
        elif isinstance(record, Rejected):
            self._reject(record, source)
        else:
            if isinstance(record, Incomplete) and not source.again:
                self._keep(_incomplete(record))
            source.accounts.count(record)
            self.report.count_other(record)
            self.observer.other(record)
        self._check_rejects()

    def _accept(self, record: Accepted, source: SourceReport) -> None:
        try:
            turn = self.preparer.prepare(record.turn)
        except RejectError as error:
            self._reject(rejected_record(record, error), source)
            return
        self._batch.pending.append(_Pending(record, turn, source))
        self._batch.size += len(record.raw)
        if self._batch.full:
            self._submit()
            self.observer.progress(self.report, source.name)

    def _reject(self, rejected: Rejected, source: SourceReport) -> None:
        source.accounts.count(rejected)
        self.report.count_other(rejected)
        self.observer.other(rejected)
        self._keep(rejected)

    def _keep(self, rejected: Rejected) -> None:
        self._with_rejects(lambda rejects: rejects.write(rejected))

    def _with_rejects(self, act: Callable[[RejectsFile], None]) -> None:
        """Do something with the rejects file; when that fails, the run ends at the next record.

        Not at once: what is in flight is stored, and has to be accounted for first.
        """
        if self.rejects is None:
            return
        try:
            act(self.rejects)
        except UsageError as error:
            self._unkept, self.rejects = error, None

    def _check_rejects(self) -> None:
        if self._unkept is not None:
            raise self._unkept
        bearable = self.options.max_rejects
        if bearable is not None and self.report.records.rejected > bearable:
            raise _TooManyRejectsError

    def _settle(self) -> None:
        """Store everything that was read, and account for it."""
        self._submit()
        self._collect()

    def _submit(self) -> None:
        """Hand the batch to the store, as soon as it is done with the one before."""
        self._collect()
        batch, self._batch = self._batch, _Batch()
        turns = [pending.turn for pending in batch.pending]
        if turns:
            self._in_flight = batch, self._storing.submit(self.store.ingest, turns)
        else:
            self._announce(batch)

    def _collect(self) -> None:
        """Wait for the batch in flight, then account for it."""
        if self._in_flight is None:
            return
        (batch, stored), self._in_flight = self._in_flight, None
        outcomes = stored.result()
        self._with_rejects(RejectsFile.flush)
        for pending, outcome in zip(batch.pending, outcomes, strict=True):
            if outcome.kind is OutcomeKind.REFUSED:
                error = RejectError(Reason.VALUE_REFUSED, outcome.message)
                self._reject(rejected_record(pending.record, error), pending.source)
            else:
                self._account(pending, outcome)
        self._announce(batch)

    def _account(self, pending: _Pending, outcome: Outcome) -> None:
        accounts, report = pending.source.accounts, self.report
        if outcome.kind is OutcomeKind.STORED:
            accounts.stored += 1
            report.count_turn(
                pending.turn, new_nodes=outcome.new_nodes, sanitised=outcome.sanitised
            )
        else:
            accounts.duplicate += 1
            report.count_duplicate(pending.turn)
        report.new_sessions += outcome.new_session
        self.observer.settled(pending.turn, pending.record.location, outcome)

    def _announce(self, batch: _Batch) -> None:
        for account in batch.finished:
            self.observer.source_done(account)
        batch.finished.clear()

    def _end_early(self, status: Status, exit_code: int) -> None:
        self.report.status, self.report.exit_code = status, exit_code
        try:
            self._settle()
        except (DatabaseUnavailableError, SchemaError) as error:
            self._fail(error)

    def _fail(self, error: TapesError) -> None:
        self.report.status, self.report.exit_code = Status.FAILED, error.exit_status
        self.report.failure = str(error)
        self.report.failure_hint = error.hint


def _is_stdin(source: Source | SourceProblem) -> bool:
    return isinstance(source, Source) and source.path is None


def _incomplete(record: Incomplete) -> Rejected:
    """Return what is kept of an unfinished line that cannot be read again."""
    message = "the last line has no newline and does not parse"
    return Rejected(record.location, Reason.INCOMPLETE, message, "", record.raw)


def rejected_record(record: Accepted, error: RejectError) -> Rejected:
    """Return the reject that an accepted record becomes when a later step refuses it."""
    return Rejected(record.location, error.reason, error.message, error.pointer, record.raw)
