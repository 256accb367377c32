"""What `validate` prints."""

from tapes_cli.cli.console import Results, say
from tapes_cli.cli.options import Output
from tapes_cli.cli.records import other_record, turn_record
from tapes_cli.cli.reporting import (
    count,
    detail_lines,
    formats_of,
    passed_over,
    say_incomplete,
    say_rejected,
    write_summary,
)
from tapes_cli.importer.report import Report, SourceReport
from tapes_cli.importer.settled import Settled
from tapes_cli.model.records import Incomplete, Record, Rejected


class CheckReporter:
    """Writes every record in input order, then the summary.

    Quiet, it says nothing where all is sound; else on stderr what would be rejected.
    """

    def __init__(self, output: Output, *, quiet: bool = False) -> None:
        self._text = output is Output.TEXT
        self._quiet = quiet
        self._results = Results(output)

    def turn(self, settled: Settled) -> None:
        """Report a sound turn: in text it is only counted."""
        self._results.write(turn_record(settled))

    def other(self, record: Record) -> None:
        """Report a record that would not be stored."""
        self._results.write(other_record(record))
        if isinstance(record, Rejected):
            if self._text or self._quiet:
                say_rejected(record)
        elif isinstance(record, Incomplete) and self._text and not self._quiet:
            say_incomplete(record)

    def source_done(self, source: SourceReport) -> None:
        """Say what was found in a source."""
        if self._text and not self._quiet:
            a = source.accounts
            parts = [count(a.stored, "sound turn"), f"{a.rejected:,} rejected"]
            parts += passed_over(source)
            line = f"{source.name}: {formats_of(source)}{', '.join(parts)}"
            say(line, fields=source.as_dict())

    def done(self, report: Report) -> None:
        """Write the summary."""
        self._results.close(report.as_dict())
        turns = count(report.records.stored, "sound turn")
        nodes = count(report.new_nodes, "distinct node")
        sessions = count(report.touched_sessions, "session")
        rejected = f"{report.records.rejected:,} would be rejected"
        lines = [f"{turns} with {nodes} in {sessions}; {rejected}.", *detail_lines(report)]
        write_summary(report, lines, text=self._text, quiet=self._quiet)
