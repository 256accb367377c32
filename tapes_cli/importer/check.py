"""Validation: the line as far as the chain, without a database."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

from tapes_cli.capture.reader import Reader
from tapes_cli.errors import InterruptedRunError
from tapes_cli.importer.report import EXIT_STOPPED, Report, SourceReport, Status
from tapes_cli.importer.run import rejected_record
from tapes_cli.importer.settled import Settled, TurnSummary
from tapes_cli.model.records import Accepted, RejectError
from tapes_cli.store.base import Outcome, OutcomeKind
from tapes_cli.store.memory import MemoryStore
from tapes_cli.store.sanitise import is_clean

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tapes_cli.capture.reader import Options
    from tapes_cli.capture.sources import Source, SourceProblem
    from tapes_cli.importer.prepare import Preparer
    from tapes_cli.importer.stop import StopRequest
    from tapes_cli.merkle.chain import Node
    from tapes_cli.model.records import Location, Record
    from tapes_cli.store.base import ChainedTurn


class CheckObserver(Protocol):
    """Hears of every record in input order."""

    def turn(self, settled: Settled) -> None:
        """Hear of a record that is a turn."""
        ...

    def other(self, record: Record) -> None:
        """Hear of a record that is none."""
        ...

    def source_done(self, source: SourceReport) -> None:
        """Hear that a source was read."""
        ...


class CheckRun:
    """One validation. Counts distinct nodes in memory, as an empty database would."""

    def __init__(
        self,
        preparer: Preparer,
        reading: Options,
        observer: CheckObserver,
        max_rejects: int | None = None,
    ) -> None:
        self._preparer = preparer
        self._reading = reading
        self._max_rejects = max_rejects
        self._observer = observer
        self._store = MemoryStore()
        self._report = Report("validate")
        self._source = SourceReport("")

    def run(self, sources: Iterable[Source | SourceProblem], stop: StopRequest) -> Report:
        """Read everything; return the accounts. `stored` counts the sound turns."""
        started = time.monotonic()
        report, bearable = self._report, self._max_rejects
        try:
            records = self._records(sources)
            while (record := stop.wait_for(records)) is not None:
                self._take(record)
                if bearable is not None and report.records.rejected > bearable:
                    report.status, report.exit_code = Status.STOPPED, EXIT_STOPPED
                    break
        except InterruptedRunError as interruption:
            report.status, report.exit_code = Status.INTERRUPTED, interruption.exit_status
        report.close(time.monotonic() - started)
        return report

    def _records(self, sources: Iterable[Source | SourceProblem]) -> Iterator[Record]:
        reader = Reader(self._reading)
        for source in sources:
            self._report.sources += 1
            self._source, started = SourceReport(source.name), time.monotonic()
            yield from reader.read(source)
            self._source.seconds = time.monotonic() - started
            self._observer.source_done(self._source)

    def _take(self, record: Record) -> None:
        if isinstance(record, Accepted):
            try:
                turn = self._preparer.prepare(record.turn)
            except RejectError as error:
                record = rejected_record(record, error)
            else:
                self._take_turn(turn, record.location)
                return
        self._source.count(record)
        self._report.count_other(record)
        self._observer.other(record)

    def _take_turn(self, turn: ChainedTurn, location: Location) -> None:
        new = self._new_nodes(turn)
        outcome = Outcome(OutcomeKind.STORED, len(new), sanitised=not is_clean(turn, new))
        settled = Settled(location, TurnSummary.of(turn), outcome)
        self._source.count_settled(settled)
        self._report.count_settled(settled)
        self._observer.turn(settled)

    def _new_nodes(self, turn: ChainedTurn) -> list[Node]:
        """Return the nodes that are new: the last ones, since a chain is stored from the root."""
        new = []
        for index in range(len(turn.chain) - 1, -1, -1):
            node = turn.chain.node(index)
            if not self._store.put(turn.org_id, node):
                break
            new.append(node)
        return new
