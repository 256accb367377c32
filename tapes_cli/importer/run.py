"""One import: sources through the line into a store, with accounts that always add up."""

from __future__ import annotations

import gc
import time
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tapes_cli.capture.reader import Reader
from tapes_cli.capture.sources import Source
from tapes_cli.errors import (
    DatabaseUnavailableError,
    ImportLockedError,
    InterruptedRunError,
    SchemaError,
    UsageError,
)
from tapes_cli.importer.ledger import TooManyRejectsError
from tapes_cli.importer.report import EXIT_STOPPED, Report, SourceReport, Status
from tapes_cli.importer.settled import Settled, TurnSummary
from tapes_cli.model.checkpoint import Position
from tapes_cli.model.reasons import Reason
from tapes_cli.model.records import Accepted, Rejected, RejectError
from tapes_cli.store.base import OutcomeKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tapes_cli.capture.reader import Options
    from tapes_cli.capture.sources import SourceProblem
    from tapes_cli.importer.ledger import Ledger
    from tapes_cli.importer.prepare import Preparer
    from tapes_cli.importer.rejects import RejectsFile
    from tapes_cli.importer.stop import StopRequest
    from tapes_cli.model.records import Location, Record
    from tapes_cli.store.base import ChainedTurn, Outcome, SessionIngester

_BATCH_RECORDS = 512
_BATCH_SECONDS = 1.0
_GARBAGE_THRESHOLD = 100_000


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """How to import.

    Attributes:
        reading: how captures are read.
        with_chains: whether the hashes of each turn's nodes are to be reported.
        batch_bytes: how many bytes of records are stored together; about as much again is read
            meanwhile.
    """

    reading: Options
    with_chains: bool = True
    batch_bytes: int = 6 << 20


@dataclass(slots=True)
class _Pending:
    """A turn that was read and is not settled yet."""

    record: Accepted
    turn: ChainedTurn
    source: SourceReport


@dataclass(slots=True)
class _Batch:
    """Turns that go to the store together, and the sources that are done when these are.

    `records` and `size` count what was read meanwhile, turns or not, and its bytes.
    """

    pending: list[_Pending] = field(default_factory=list)
    records: int = 0
    size: int = 0
    finished: list[SourceReport] = field(default_factory=list)
    begun: float = field(default_factory=time.monotonic)

    def is_full(self, most_bytes: int) -> bool:
        """Whether it is large enough, or old enough: a pipe may be slow."""
        large = self.records >= _BATCH_RECORDS or self.size >= most_bytes
        return large or time.monotonic() - self.begun >= _BATCH_SECONDS


@dataclass(slots=True)
class _Reading:
    """The source that is being read, and where its last record stands."""

    reader: Reader
    account: SourceReport
    last: Location | None = None


@dataclass(slots=True)
class ImportRun:
    """One run in one process. Call `run` once.

    While the store is busy with one batch, the next one is read.
    """

    store: SessionIngester
    preparer: Preparer
    options: ImportOptions
    ledger: Ledger
    stop: StopRequest
    _batch: _Batch = field(default_factory=_Batch)
    _reading: _Reading | None = None
    _in_flight: tuple[_Batch, Future[list[Outcome]]] | None = None
    _storing: Executor = field(default_factory=lambda: ThreadPoolExecutor(max_workers=1))

    @property
    def unsettled(self) -> Location | None:
        """Where the first turn stands that is not settled yet; all that was read before it is."""
        in_flight = self._in_flight[0].pending if self._in_flight else []
        for pending in (in_flight, self._batch.pending):
            if pending:
                return pending[0].record.location
        return None

    def run(self, sources: Iterable[Source | SourceProblem]) -> Report:
        """Import everything; return the accounts, however the run ended.

        Nothing is reported as stored that is not durable.
        """
        ledger, started = self.ledger, time.monotonic()
        try:
            with rare_garbage_collection():
                self._read_all(sources)
                self._settle()
            ledger.check()
        except InterruptedRunError as interruption:
            self._end_early(Status.INTERRUPTED, interruption.exit_status)
        except TooManyRejectsError:
            self._end_early(Status.STOPPED, EXIT_STOPPED)
        except (DatabaseUnavailableError, SchemaError) as error:
            ledger.fail(error)
        except UsageError:
            self._end_early(Status.FAILED, UsageError.exit_status)
        except ImportLockedError as error:
            self._end_early(Status.FAILED, error.exit_status)
            ledger.fail(error)
        finally:
            self._storing.shutdown()
        ledger.close()
        ledger.report.close(time.monotonic() - started)
        return ledger.report

    def _read_all(self, sources: Iterable[Source | SourceProblem]) -> None:
        reader = Reader(self.options.reading)
        for source in sources:
            if is_rejects_file(source, self.ledger.rejects):
                continue
            account = SourceReport(source.name, not _is_stdin(source), number=source.number)
            self.ledger.report.sources += 1
            started = time.monotonic()
            self._reading = _Reading(reader, account)
            records = reader.read(source)
            while (record := self.stop.wait_for(records)) is not None:
                self._reading.last = record.location
                self._take(record, account)
            account.seconds = time.monotonic() - started
            account.position, account.replaced = reader.position, reader.replaced
            self._reading = None
            self._batch.finished.append(account)
            if not self._batch.pending and self._in_flight is None:
                self._announce(self._batch)

    def _take(self, record: Record, source: SourceReport) -> None:
        if isinstance(record, Accepted):
            self._accept(record, source)
        else:
            self.ledger.enter(record, source)
            self._batch.size += len(record.raw) if isinstance(record, Rejected) else 0
        self._batch.records += 1
        if self._batch.is_full(self.options.batch_bytes):
            self._submit()
            self.ledger.observer.progress(self.ledger.report, source.name)
        self.ledger.check()

    def _accept(self, record: Accepted, source: SourceReport) -> None:
        try:
            turn = self.preparer.prepare(record.turn)
        except RejectError as error:
            self.ledger.enter(rejected_record(record, error), source)
            return
        self._batch.pending.append(_Pending(record, turn, source))
        self._batch.size += record.size

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
        self.ledger.flush()
        for pending, outcome in zip(batch.pending, outcomes, strict=True):
            if outcome.kind is OutcomeKind.REFUSED:
                error = RejectError(Reason.VALUE_REFUSED, outcome.message)
                self.ledger.enter(rejected_record(pending.record, error), pending.source)
            else:
                summary = TurnSummary.of(pending.turn, with_chain=self.options.with_chains)
                settled = Settled(pending.record.location, summary, outcome)
                self.ledger.settle(settled, pending.source)
        self._announce(batch)
        if self._reading is not None and self.ledger.marks(self._reading.account):
            self._mark(self._reading)

    def _announce(self, batch: _Batch) -> None:
        for account in batch.finished:
            self.ledger.source_done(account)
        batch.finished.clear()

    def _mark(self, reading: _Reading) -> None:
        """Remember how far the present source was read and settled."""
        account, place = reading.account, self.unsettled or reading.last
        sound = reading.reader.divisible and not reading.reader.replaced
        if sound and place is not None and place.number == account.number:
            self.ledger.mark(account, Position(place.line - 1, place.byte_offset))

    def _end_early(self, status: Status, exit_code: int) -> None:
        self.ledger.end_early(status, exit_code)
        try:
            self._settle()
            if status is Status.INTERRUPTED and self._reading is not None:
                self._mark(self._reading)
        except (DatabaseUnavailableError, SchemaError) as error:
            self.ledger.fail(error)


@contextmanager
def rare_garbage_collection() -> Iterator[None]:
    """Let Python look for cycles of dead objects rarely: reading a capture makes none.

    Each look goes through everything that is remembered of histories.
    """
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GARBAGE_THRESHOLD, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def is_rejects_file(source: Source | SourceProblem, rejects: RejectsFile | None) -> bool:
    """Tell whether a source is the file that rejects are written to.

    It grows with every reject: reading it while writing it would never end.
    """
    return (
        rejects is not None
        and isinstance(source, Source)
        and source.path is not None
        and rejects.is_file(source.path)
    )


def _is_stdin(source: Source | SourceProblem) -> bool:
    return isinstance(source, Source) and source.path is None


def rejected_record(record: Accepted, error: RejectError) -> Rejected:
    """Return the reject that an accepted record becomes when a later step refuses it."""
    return Rejected(record.location, error.reason, error.message, error.pointer, record.raw())
