"""What `import` and `validate` print while they run and when they are done."""

import time
from typing import Any

from tapes_cli.cli.console import (
    Level,
    Results,
    console,
    messages_are_text,
    say,
    say_error,
    visible,
    write_line,
    write_to_stderr,
)
from tapes_cli.cli.options import Output
from tapes_cli.cli.places import place, reject_sentence
from tapes_cli.cli.records import other_record, outcome_record, placed
from tapes_cli.importer.report import Report, SourceReport, Status
from tapes_cli.importer.settled import Settled
from tapes_cli.model.reasons import Reason
from tapes_cli.model.records import Incomplete, Record, Rejected

INCOMPLETE = {
    Reason.INCOMPLETE: (
        "the last line has no newline and does not parse: cut short, or still being written"
    ),
    Reason.INCOMPLETE_TURN: (
        "nothing proves yet that the answer is complete; it is taken by an import after the "
        "session has gone on, or a day after the file was last written"
    ),
    Reason.INCOMPLETE_RECORDING: "a file of the recording does not parse: still being written",
}
_SHOWN_REJECTS = 10
_SHOWN_SOURCES = 40
_LOG_EVERY_SECONDS = 30.0
_HOW_TO_SEE = "validate names all, --rejects keeps them."
_BAR_EVERY_SECONDS = 0.1


class Reporter:
    """Writes results to stdout and messages to stderr, in the form that was asked for.

    Quiet, it says nothing of a run that ends with exit status 0. Of any other it says on stderr
    what somebody who sees nothing else has to know.
    """

    def __init__(
        self, output: Output, *, quiet: bool = False, verbose: bool = False, no_color: bool = False
    ) -> None:
        self._text = output is Output.TEXT
        self._quiet = quiet
        self._verbose = verbose
        self._rejects_shown = 0
        self._incomplete_shown = 0
        self._sources_told = 0
        self._results = Results(output)
        self._last = time.monotonic()
        self._stderr = console(stderr=True, no_color=no_color)
        self._bar = not quiet and self._stderr.is_terminal and messages_are_text()

    def emit(self, record: dict[str, Any]) -> None:
        """Write one record of the machine output, if that was asked for."""
        self._results.write(record)

    def other(self, record: Record) -> None:
        """Show the first rejects, the rest are counted; and lines that are still being written."""
        self.emit(other_record(record))
        if isinstance(record, Rejected) and (self._text or self._quiet):
            if self._rejects_shown < _SHOWN_REJECTS:
                self._rejects_shown += 1
                self._clear_bar()
                say_rejected(record)
        elif isinstance(record, Incomplete) and self._tells_incomplete:
            self._incomplete_shown += 1
            self._clear_bar()
            say_incomplete(record)

    @property
    def _tells_incomplete(self) -> bool:
        return self._text and not self._quiet and self._incomplete_shown < _SHOWN_REJECTS

    def settled(self, settled: Settled) -> None:
        """Report a turn that was stored or was there before, if asked to say more."""
        if self._verbose:
            self.emit(outcome_record(settled))
            if self._text:
                kind = settled.outcome.kind.value.capitalize()
                self._say(f"{kind} {place(settled.location)}", placed(settled.location))

    def source_done(self, source: SourceReport) -> None:
        """Say what became of a source: on a terminal of the first ones only, unless on request."""
        if self._quiet:
            return
        self._sources_told += 1
        if self._bar and not self._verbose and self._sources_told > _SHOWN_SOURCES:
            if self._sources_told == _SHOWN_SOURCES + 1:
                self._say("… and so on: --verbose names all.", {})
            return
        a = source.accounts
        parts = [f"{a.stored} stored", f"{a.duplicate} duplicate", f"{a.rejected} rejected"]
        parts += passed_over(source)
        accounts = f"{a.read} read = {', '.join(parts)} ({source.seconds:.1f} s)"
        self._say(f"{source.name}: {formats_of(source)}{accounts}", source.as_dict())

    def progress(self, report: Report, source: str) -> None:
        """Show how far the run is: a line that is rewritten on a terminal, a log line elsewhere."""
        if self._quiet:
            return
        now = time.monotonic()
        if now - self._last < (_BAR_EVERY_SECONDS if self._bar else _LOG_EVERY_SECONDS):
            return
        self._last = now
        records = report.records
        text = (
            f"{records.read:,} records read, {records.stored:,} stored, "
            f"{records.duplicate:,} duplicate, {records.rejected:,} rejected"
        )
        if self._bar:
            width = max(self._stderr.width - 1, 20)
            write_to_stderr("\r\x1b[K" + visible(f"{text} · {source}")[:width])
        else:
            self._say(f"{source}: {text}", {"source": source, "records": records.as_dict()})

    def done(self, report: Report) -> None:
        """Write the summary."""
        self._clear_bar()
        self._results.close(report.as_dict())
        hidden = report.records.rejected - self._rejects_shown
        if hidden and (self._text or self._quiet):
            kept = "the rejects file names all." if report.rejects_file else _HOW_TO_SEE
            say(f"… and {hidden:,} more rejected: {kept}", level=Level.WARNING)
        write_summary(report, summary_lines(report), text=self._text, quiet=self._quiet)
        if report.failure:
            say_error(report.failure, hint=report.failure_hint, exit_code=report.exit_code)

    def _say(self, message: str, fields: dict[str, Any]) -> None:
        self._clear_bar()
        say(message, quiet=self._quiet, fields=fields)

    def _clear_bar(self) -> None:
        if self._bar:
            write_to_stderr("\r\x1b[K")


def say_rejected(rejected: Rejected) -> None:
    """Say that a record was rejected, where it stands, and why."""
    found = other_record(rejected)
    fields = {name: value for name, value in found.items() if name not in {"type", "message"}}
    say(f"Rejected {reject_sentence(rejected)}", level=Level.WARNING, fields=fields)


def say_incomplete(incomplete: Incomplete) -> None:
    """Say that a record is not complete yet, where it stands, and how that is known."""
    fields = {**placed(incomplete.location), "code": incomplete.reason.value}
    say(f"Incomplete {place(incomplete.location)}: {INCOMPLETE[incomplete.reason]}", fields=fields)


def write_summary(report: Report, lines: list[str], *, text: bool, quiet: bool) -> None:
    """Write the summary for people: a result; quiet, a message, and only if not all went well."""
    if quiet and report.exit_code:
        say(*lines, level=Level.WARNING, fields={"summary": report.as_dict()})
    elif text and not quiet:
        for line in lines:
            write_line(line)


def formats_of(source: SourceReport) -> str:
    """Return the names of the formats found in a source, with a comma behind them."""
    names = [name for name, _ in source.formats.most_common() if name]
    return f"{' + '.join(names)}, " if names else ""


def passed_over(source: SourceReport) -> list[str]:
    """Return what to say of a source's skipped records, with the reasons, and incomplete ones."""
    accounts = source.accounts
    reasons = ", ".join(f"{code} {n:,}" for code, n in sorted(source.skips.items()))
    said = [f"{accounts.skipped:,} skipped ({reasons})"] if accounts.skipped else []
    return said + ([f"{accounts.incomplete:,} incomplete"] if accounts.incomplete else [])


_ENDINGS = {
    Status.OK: "",
    Status.REJECTS: "",
    Status.STOPPED: " Stopped by --strict or --max-errors.",
    Status.INTERRUPTED: " Interrupted: what is called stored is stored. Run it again to go on.",
    Status.FAILED: " Failed: what is called stored is stored.",
}


def summary_lines(report: Report) -> list[str]:
    """Return the summary of an import as people read it."""
    turns, nodes = count(report.records.stored, "turn"), count(report.new_nodes, "new node")
    sessions = f"{count(report.touched_sessions, 'session')} ({report.new_sessions:,} new)"
    ending = _ENDINGS[report.status]
    if report.dry_run:
        ending += " Nothing was written."
    verb = "Would store" if report.dry_run else "Stored"
    first = f"{verb} {turns} as {nodes} in {sessions}, {report.seconds:.2f} s.{ending}"
    return [first, *detail_lines(report)]


def detail_lines(report: Report) -> list[str]:
    """Return the accounts, and what is worth knowing of them."""
    accounts = report.records.as_dict()
    read, unchanged = f"{report.sources:,} read", f"{report.unchanged:,} unchanged"
    sources = (
        [f"  sources   {read}, {unchanged} since they were imported"] if report.unchanged else []
    )
    parts = " + ".join(f"{n:,} {name}" for name, n in accounts.items() if name != "read")
    lines = [
        *sources,
        f"  records   {accounts['read']:,} read = {parts}",
        f"  tokens    {report.input_tokens:,} in, {report.output_tokens:,} out",
    ]
    notes = (
        (report.lossy, "rebuilt from session files, which lack what only the wire has (lossy)"),
        (report.synthetic, "in a synthetic session"),
        (report.undated, "without a capture time of their own"),
        (report.sanitised, "with characters that PostgreSQL cannot store (now U+FFFD)"),
    )
    if said := [f"{number:,} {text}" for number, text in notes if number]:
        lines.append(f"  of these  {', '.join(said)}")
    if report.reasons:
        reasons = ", ".join(f"{code} {n:,}" for code, n in sorted(report.reasons.items()))
        lines.append(f"  reasons   {reasons}")
    if report.workers_restarted:
        died = "died and was" if report.workers_restarted == 1 else "died and were"
        lines.append(f"  workers   {report.workers_restarted} {died} started again")
    if report.rejects_file:
        lines.append(f"  rejects   {visible(report.rejects_file)}")
    return lines


def count(number: int, noun: str) -> str:
    """Return a number with its noun, in the plural where that is due."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
