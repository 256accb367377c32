"""What a run leaves behind for those who did not watch it: the report as a document.

The document is the summary record with what is to be known of the run as a whole and of each
source. Fields may be added, not renamed.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tapes_cli.capture.times import rfc3339
from tapes_cli.importer.report import SourceReport

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from pathlib import Path

    from tapes_cli.importer.ledger import Observer
    from tapes_cli.importer.report import Report
    from tapes_cli.importer.settled import Settled
    from tapes_cli.model.records import Location, Record

_MODE = 0o644


@dataclass(frozen=True, slots=True)
class Execution:
    """When and where a run took place.

    Attributes:
        started_at: when it began (UTC).
        finished_at: when it had ended (UTC).
        seconds: how long it took, by a clock that nobody sets.
        host: the machine.
        pid: the process.
        version: that of this program.
    """

    started_at: datetime
    finished_at: datetime
    seconds: float
    host: str
    pid: int
    version: str


class SourceTally:
    """Passes on all that it hears, and keeps the accounts of each source.

    A source of which nothing was settled when the run ended has none.
    """

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._finished: dict[int, SourceReport] = {}
        self._unfinished: dict[int, SourceReport] = {}
        self._begun: dict[int, float] = {}

    def other(self, record: Record) -> None:
        """Hear of a record that is no turn, or a turn that was rejected."""
        self._account(record.location).count(record)
        self._observer.other(record)

    def settled(self, settled: Settled) -> None:
        """Hear of a turn that is durably stored or was there before."""
        self._account(settled.location).count_settled(settled)
        self._observer.settled(settled)

    def source_done(self, source: SourceReport) -> None:
        """Hear of a source of which every record is settled."""
        self._finished[source.number] = source
        self._unfinished.pop(source.number, None)
        self._begun.pop(source.number, None)
        self._observer.source_done(source)

    def progress(self, report: Report, source: str) -> None:
        """Hear from time to time that the run goes on."""
        self._observer.progress(report, source)

    def records(self) -> list[dict[str, Any]]:
        """Return the accounts of each source, in the order of the input."""
        now = time.monotonic()
        for number, source in self._unfinished.items():
            source.seconds = now - self._begun[number]
        sources = sorted({**self._finished, **self._unfinished}.items())
        return [{**s.as_dict(), "finished": number in self._finished} for number, s in sources]

    def _account(self, location: Location) -> SourceReport:
        account = self._unfinished.get(location.number)
        if account is None:
            account = SourceReport(location.source, number=location.number)
            self._unfinished[location.number] = account
            self._begun[location.number] = time.monotonic()
        return account


def report_document(
    report: Report, execution: Execution, per_source: Sequence[dict[str, Any]]
) -> str:
    """Return the report of a run, with the accounts of its sources, as a JSON document."""
    failure = {"message": report.failure, "hint": report.failure_hint} if report.failure else None
    document = {
        **report.as_dict(),
        "started_at": rfc3339(execution.started_at),
        "finished_at": rfc3339(execution.finished_at),
        "host": execution.host,
        "pid": execution.pid,
        "version": execution.version,
        "failure": failure,
        "rejects_file": report.rejects_file or None,
        "per_source": per_source,
    }
    return json.dumps(document, indent=1) + "\n"


def write_atomically(path: Path, text: str) -> None:
    """Write a file such that whoever opens it sees all of the old one or all of the new one.

    Raises:
        OSError: it cannot be written; the old one is as it was.
    """
    # A name that no collector takes for one of its files.
    temporary = path.with_name(f".tapes-{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "x", encoding="utf-8", opener=_readable_by_all) as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink()
    sync_folder(path.parent)


def _readable_by_all(path: str, flags: int) -> int:
    return os.open(path, flags, _MODE)


def sync_folder(folder: Path) -> None:
    """Bring a new name to the disk, where folders can be synchronised."""
    with suppress(OSError):
        opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)
