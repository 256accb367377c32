"""What `validate` prints."""

from tapes_cli.cli.console import Results, say, write_line
from tapes_cli.cli.options import Output
from tapes_cli.cli.places import place, reject_sentence
from tapes_cli.cli.records import other_record, turn_record
from tapes_cli.cli.reporting import INCOMPLETE, count, detail_lines, formats_of, passed_over
from tapes_cli.importer.report import Report, SourceReport
from tapes_cli.importer.settled import Settled
from tapes_cli.model.records import Incomplete, Record, Rejected


class CheckReporter:
    """Writes every record in input order, then the summary."""

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
        if self._text and isinstance(record, Rejected):
            say(f"Rejected {reject_sentence(record)}")
        elif self._text and isinstance(record, Incomplete):
            say(f"Incomplete {place(record.location)}: {INCOMPLETE[record.reason]}")

    def source_done(self, source: SourceReport) -> None:
        """Say what was found in a source."""
        if self._text and not self._quiet:
            a = source.accounts
            parts = [count(a.stored, "sound turn"), f"{a.rejected:,} rejected"]
            parts += passed_over(source)
            say(f"{source.name}: {formats_of(source)}{', '.join(parts)}")

    def done(self, report: Report) -> None:
        """Write the summary."""
        self._results.close(report.as_dict())
        if self._text and not self._quiet:
            records = report.records
            turns, nodes = count(records.stored, "sound turn"), report.new_nodes
            sessions = count(report.touched_sessions, "session")
            write_line(
                f"{turns} with {count(nodes, 'distinct node')} in {sessions}; "
                f"{records.rejected:,} would be rejected."
            )
            for line in detail_lines(report):
                write_line(line)
