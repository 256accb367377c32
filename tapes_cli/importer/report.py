"""The accounts of a run: what was read, and what became of each record."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from tapes_cli.model.reasons import MAY_CHANGE, Reason
from tapes_cli.model.records import Rejected, Skipped
from tapes_cli.store.base import OutcomeKind

if TYPE_CHECKING:
    from tapes_cli.importer.settled import Settled, TurnSummary
    from tapes_cli.model.checkpoint import Position
    from tapes_cli.model.envelope import SessionKey
    from tapes_cli.model.records import Record


class Status(StrEnum):
    """How a run ended."""

    OK = "ok"
    REJECTS = "rejects"
    STOPPED = "stopped"
    INTERRUPTED = "interrupted"
    FAILED = "failed"


EXIT_OK = 0
EXIT_REJECTS = 3
EXIT_STOPPED = 4


@dataclass(slots=True)
class Accounts:
    """Records by what became of them. They always add up to what was read."""

    stored: int = 0
    duplicate: int = 0
    rejected: int = 0
    skipped: int = 0
    incomplete: int = 0

    @property
    def read(self) -> int:
        """How many records were read and settled."""
        return self.stored + self.duplicate + self.rejected + self.skipped + self.incomplete

    def count(self, record: Record) -> None:
        """Count a record that is no turn, or a turn that was rejected."""
        if isinstance(record, Rejected):
            self.rejected += 1
        elif isinstance(record, Skipped):
            self.skipped += 1
        else:
            self.incomplete += 1

    def count_settled(self, settled: Settled) -> None:
        """Count a turn that is stored or was there before."""
        if settled.outcome.kind is OutcomeKind.STORED:
            self.stored += 1
        else:
            self.duplicate += 1

    def as_dict(self) -> dict[str, int]:
        """Return the accounts as the summary's `records`."""
        return {
            "read": self.read,
            "stored": self.stored,
            "duplicate": self.duplicate,
            "rejected": self.rejected,
            "skipped": self.skipped,
            "incomplete": self.incomplete,
        }


@dataclass(slots=True)
class SourceReport:
    """The accounts of one source.

    Attributes:
        name: what is shown to the user.
        again: whether it can be read again, as a file can.
        number: its place among all.
        accounts: its records by what became of them.
        formats: the names of the formats found in it, each with its records.
        skips: the reasons for which records were skipped, each with its records.
        rejects: the reasons for which records were rejected, likewise.
        seconds: how long it took to read.
        position: how far it was read, None if another reading has to begin at the beginning.
        replaced: whether it was another file when it was read than when it was listed.
        unreadable: whether it could not be read to its end.
        may_change: whether another run may say otherwise of a record that was rejected.
    """

    name: str
    again: bool = True
    number: int = 0
    accounts: Accounts = field(default_factory=Accounts)
    formats: Counter[str] = field(default_factory=Counter)
    skips: Counter[str] = field(default_factory=Counter)
    rejects: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    position: Position | None = None
    replaced: bool = False
    unreadable: bool = False
    may_change: bool = False

    @property
    def format(self) -> str:
        """The names of its formats, the most frequent one first."""
        return " + ".join(name for name, _ in self.formats.most_common() if name)

    def count(self, record: Record) -> None:
        """Count a record that is no turn, or a turn that was rejected."""
        self.accounts.count(record)
        if isinstance(record, Rejected):
            self.rejects[record.reason.value] += 1
            self.unreadable |= record.reason is Reason.SOURCE_UNREADABLE
            self.may_change |= record.reason in MAY_CHANGE
        self.formats[record.location.format] += 1
        if isinstance(record, Skipped):
            self.skips[record.reason.value] += 1

    def count_settled(self, settled: Settled) -> None:
        """Count a turn that is stored or was there before."""
        self.accounts.count_settled(settled)
        self.formats[settled.location.format] += 1

    def as_dict(self) -> dict[str, Any]:
        """Return what reports and logs have of the source. Fields may be added, not renamed."""
        return {
            "source": self.name,
            "format": [name for name, _ in self.formats.most_common() if name],
            "records": self.accounts.as_dict(),
            "reasons": dict(sorted((self.skips + self.rejects).items())),
            "seconds": round(self.seconds, 3),
        }


@dataclass(slots=True)
class Report:
    """The accounts of a whole run."""

    command: str
    status: Status = Status.OK
    exit_code: int = 0
    sources: int = 0
    unchanged: int = 0
    dry_run: bool = False
    records: Accounts = field(default_factory=Accounts)
    new_nodes: int = 0
    new_sessions: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    sanitised: int = 0
    synthetic: int = 0
    undated: int = 0
    lossy: int = 0
    formats: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    workers_restarted: int = 0
    rejects_file: str = ""
    failure: str = ""
    failure_hint: str = ""
    _touched: set[int] = field(default_factory=set)

    @property
    def touched_sessions(self) -> int:
        """How many sessions got a new turn."""
        return len(self._touched)

    def count_settled(self, settled: Settled) -> None:
        """Account for a turn that is stored or was there before."""
        turn, outcome = settled.turn, settled.outcome
        self.records.count_settled(settled)
        self.formats[settled.location.format] += 1
        self.lossy += turn.lossy
        self.undated += not turn.dated
        self.synthetic += turn.synthetic
        self.new_sessions += outcome.new_session
        if outcome.kind is OutcomeKind.STORED:
            self._count_new(turn)
            self.new_nodes += outcome.new_nodes
            self.sanitised += outcome.sanitised

    def _count_new(self, turn: TurnSummary) -> None:
        self.input_tokens += turn.input_tokens
        self.output_tokens += turn.output_tokens
        if turn.session is not None:
            self._touched.add(_digest(turn.session))

    def fail(self, failure: str, hint: str, exit_code: int) -> None:
        """Note why the run failed."""
        self.status, self.exit_code = Status.FAILED, exit_code
        self.failure, self.failure_hint = failure, hint

    def count_other(self, record: Record) -> None:
        """Account for a record that is no turn, or a turn that was rejected."""
        self.records.count(record)
        if record.location.format:
            self.formats[record.location.format] += 1
        if isinstance(record, Rejected | Skipped):
            self.reasons[record.reason.value] += 1

    def close(self, seconds: float) -> None:
        """Settle how the run ended, unless that is known already."""
        self.seconds = seconds
        if self.status is Status.OK and self.records.rejected:
            self.status, self.exit_code = Status.REJECTS, EXIT_REJECTS

    def as_dict(self) -> dict[str, Any]:
        """Return the summary record of the machine output. Fields may be added, not renamed.

        `cost_usd` is null: nothing is priced, and unknown is not zero.
        """
        return {
            "type": "summary",
            "command": self.command,
            "status": self.status.value,
            "exit_code": self.exit_code,
            "dry_run": self.dry_run,
            "sources": {"read": self.sources, "unchanged": self.unchanged},
            "records": self.records.as_dict(),
            "nodes": {"new": self.new_nodes},
            "sessions": {"new": self.new_sessions, "touched": self.touched_sessions},
            "tokens": {"input": self.input_tokens, "output": self.output_tokens},
            "cost_usd": None,
            "sanitised": self.sanitised,
            "synthetic": self.synthetic,
            "undated": self.undated,
            "lossy": self.lossy,
            "formats": dict(sorted(self.formats.items())),
            "reasons": dict(sorted(self.reasons.items())),
            "workers_restarted": self.workers_restarted,
            "seconds": round(self.seconds, 3),
            "turns_per_second": round(self.records.stored / self.seconds, 1) if self.seconds else 0,
        }


def _digest(session: SessionKey) -> int:
    """Return a number for the session. Not the key itself: there may be millions."""
    text = f"{session.org_id.int}/{session.harness_id}/{session.harness_session_id}"
    digest = blake2b(text.encode(errors="surrogatepass"), digest_size=8)
    return int.from_bytes(digest.digest())
