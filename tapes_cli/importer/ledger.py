"""The books of a run: every record is entered once, in the report and in the rejects file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from tapes_cli.errors import DatabaseUnavailableError, SchemaError, UsageError
from tapes_cli.importer.rejects import RejectsFile
from tapes_cli.importer.report import Report, Status
from tapes_cli.model.reasons import Reason
from tapes_cli.model.records import Incomplete, Rejected

if TYPE_CHECKING:
    from collections.abc import Callable

    from tapes_cli.errors import TapesError
    from tapes_cli.importer.checkpoints import Checkpoints
    from tapes_cli.importer.report import SourceReport
    from tapes_cli.importer.settled import Settled
    from tapes_cli.model.checkpoint import Position
    from tapes_cli.model.records import Record


class Observer(Protocol):
    """Hears what becomes of every record, when it is certain."""

    def other(self, record: Record) -> None:
        """Hear of a record that is no turn, or a turn that was rejected."""
        ...

    def settled(self, settled: Settled) -> None:
        """Hear of a turn that is durably stored or was there before."""
        ...

    def source_done(self, source: SourceReport) -> None:
        """Hear of a source of which every record is settled."""
        ...

    def progress(self, report: Report, source: str) -> None:
        """Hear from time to time that the run goes on."""
        ...


class TooManyRejectsError(Exception):
    """More records were rejected than the run bears."""


@dataclass(slots=True)
class Ledger:
    """Enters what became of each record.

    Attributes:
        observer: hears of every entry.
        rejects: where rejected records are kept, if they are.
        max_rejects: how many rejected records the run bears; None bears them all.
        checkpoints: remembers what was read, for the next run; None remembers nothing.
        report: the sum of it.
    """

    observer: Observer
    rejects: RejectsFile | None = None
    max_rejects: int | None = None
    checkpoints: Checkpoints | None = None
    report: Report = field(default_factory=lambda: Report("import"))
    _unkept: UsageError | None = None

    def enter(self, record: Record, source: SourceReport) -> None:
        """Enter a record that is no turn, or a turn that was rejected."""
        if isinstance(record, Rejected):
            self._keep(record)
        elif isinstance(record, Incomplete) and not source.again:
            self._keep(_incomplete(record))
        source.count(record)
        self.report.count_other(record)
        self.observer.other(record)

    def settle(self, settled: Settled, source: SourceReport) -> None:
        """Enter a turn that is durably stored or was there before."""
        self.report.count_settled(settled)
        source.count_settled(settled)
        self.observer.settled(settled)

    def marks(self, account: SourceReport) -> bool:
        """Tell whether the position in a source is to be remembered now."""
        return self.checkpoints is not None and not self.checkpoints.is_marked(account.number)

    def mark(self, account: SourceReport, position: Position) -> None:
        """Remember that all before a position in a source is settled.

        Raises:
            DatabaseUnavailableError: the database was lost.
        """
        if self.checkpoints is not None and self._unkept is None:
            self.checkpoints.mark(account, position)
            self._save_what_is_due(self.checkpoints)

    def source_done(self, account: SourceReport) -> None:
        """Note that every record of a source is settled.

        Raises:
            DatabaseUnavailableError: the database was lost.
        """
        self.observer.source_done(account)
        if self.checkpoints is not None and self._unkept is None:
            self.checkpoints.done(account)
            self._save_what_is_due(self.checkpoints)

    def _save_what_is_due(self, checkpoints: Checkpoints) -> None:
        """Save checkpoints from time to time, the rejects before them on the disk."""
        if checkpoints.due:
            self.flush()
            if self._unkept is None:
                checkpoints.save()

    def check(self) -> None:
        """Look whether the run may go on.

        Raises:
            UsageError: the rejects cannot be kept.
            TooManyRejectsError: there are more than the run bears.
        """
        if self._unkept is not None:
            raise self._unkept
        if self.max_rejects is not None and self.report.records.rejected > self.max_rejects:
            raise TooManyRejectsError

    def flush(self) -> None:
        """Bring the rejects to the disk."""
        self._with_rejects(RejectsFile.flush)

    def close(self) -> None:
        """Close the rejects file, then remember what was read; the run has failed if one does."""
        self._with_rejects(RejectsFile.close)
        if self._unkept is not None:
            self.fail(self._unkept)
        elif self.checkpoints is not None and self.report.status is not Status.FAILED:
            try:
                self.checkpoints.save()
            except (DatabaseUnavailableError, SchemaError) as error:
                self.fail(error)

    def end_early(self, status: Status, exit_code: int) -> None:
        """Note that the run ended before its time."""
        self.report.status, self.report.exit_code = status, exit_code

    def fail(self, error: TapesError) -> None:
        """Note why the run failed."""
        self.report.fail(str(error), error.hint, error.exit_status)

    def _keep(self, rejected: Rejected) -> None:
        self._with_rejects(lambda rejects: rejects.write(rejected))

    def _with_rejects(self, act: Callable[[RejectsFile], None]) -> None:
        """Do something with the rejects file; when that fails, the run ends at the next check.

        Not at once: what is in flight is stored, and has to be accounted for first.
        """
        if self.rejects is None:
            return
        try:
            act(self.rejects)
        except UsageError as error:
            self._unkept, self.rejects = error, None


def _incomplete(record: Incomplete) -> Rejected:
    """Return what is kept of something unfinished that cannot be read again."""
    what = "last line is" if record.reason is Reason.INCOMPLETE else "last turn may be"
    message = f"the {what} incomplete"
    return Rejected(record.location, record.reason, message, "", record.raw)
