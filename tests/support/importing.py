"""An import in this process, which remembers what it has read for the next one."""

from __future__ import annotations

import shlex
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING

from tapes_cli import settings
from tapes_cli.capture.expansion import expand
from tapes_cli.cli.reading import Asked, org_of
from tapes_cli.importer.checkpoints import Way
from tapes_cli.importer.guard import Guard, import_guarded
from tapes_cli.importer.ledger import Ledger
from tapes_cli.importer.rejects import RejectsFile
from tapes_cli.importer.report import Report
from tapes_cli.importer.run import ImportOptions
from tapes_cli.importer.start import numbered
from tapes_cli.importer.stop import StopRequest
from tapes_cli.importer.worker import Task
from tapes_cli.model.records import Incomplete, Rejected
from tapes_cli.model.sessionless import Sessionless

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tapes_cli.importer.report import SourceReport
    from tapes_cli.importer.settled import Settled
    from tapes_cli.model.records import Record


@dataclass(frozen=True, slots=True)
class How:
    """How to import. By default as the command does, with one worker, waiting for nobody."""

    asked: Asked = field(default_factory=Asked)
    sessionless: Sessionless = Sessionless.SYNTHETIC
    host: str = field(default_factory=settings.host_name)
    workers: int = 1
    remembers: bool = True
    again: bool = False
    strict: bool = False
    rejects: Path | None = None

    @property
    def way(self) -> Way | None:
        """What tells this reading of a capture from others, as the command has it."""
        words = [*self.asked.words()]
        if self.sessionless is not Sessionless.SYNTHETIC:
            words.append(("--sessionless", self.sessionless.value))
        reading = shlex.join(chain.from_iterable(words))
        return Way(self.host, reading, self.again) if self.remembers else None


class Heard:
    """What was said of an import.

    Attributes:
        report: the accounts.
        rejected: the places of what was rejected, as file name and line, with the reason.
        incomplete: the places of what was incomplete.
        turns: how many turns of each file were stored or there before.
    """

    def __init__(self) -> None:
        self.report = Report("import")
        self.rejected: list[tuple[str, int, str]] = []
        self.incomplete: list[tuple[str, int]] = []
        self.turns: Counter[str] = Counter()

    def other(self, record: Record) -> None:
        """Note a reject, or something incomplete."""
        name, number = record.location.source.rpartition("/")[2], record.location.line
        if isinstance(record, Rejected):
            self.rejected.append((name, number, record.reason.value))
        elif isinstance(record, Incomplete):
            self.incomplete.append((name, number))

    def settled(self, settled: Settled) -> None:
        """Count a turn."""
        self.turns[settled.location.source.rpartition("/")[2]] += 1

    def source_done(self, source: SourceReport) -> None:
        """Hear of a source."""

    def progress(self, report: Report, source: str) -> None:
        """Hear that the run goes on."""

    @property
    def read(self) -> int:
        """How many records were read."""
        return self.report.records.read

    @property
    def files(self) -> tuple[int, int]:
        """How many sources were read, and how many were passed over as unchanged."""
        return self.report.sources, self.report.unchanged


def import_here(
    dsn: str, paths: Sequence[Path], how: How | None = None, heard: Heard | None = None
) -> Heard:
    """Import as `tapes-cli import` does, but in this process; return what was said of it.

    Raises:
        TapesError: as `import_guarded`.
    """
    how, heard = how or How(), heard or Heard()
    sources = numbered(expand(paths))
    options = ImportOptions(how.asked.options(sources), with_chains=False)
    kept = RejectsFile(how.rejects) if how.rejects else None
    ledger = Ledger(heard, kept, 0 if how.strict else None, report=heard.report)
    task = Task(dsn, options, how.sessionless, org_of(how.asked.org), sources=sources)
    try:
        import_guarded(task, ledger, StopRequest(), how.workers, Guard(how.way, 0.0, _silent))
    finally:
        if kept is not None:
            with suppress(ValueError):  # it is closed, unless the import was ended by force
                kept.close()
    return heard


def _silent(_message: str) -> None:
    """Announce nothing."""
