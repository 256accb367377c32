"""`tapes-cli validate`: the same reading as `import`, without a database."""

import typer

from tapes_cli.cli.console import write_messages_as
from tapes_cli.cli.import_options import MaxErrorsOption, StrictOption
from tapes_cli.cli.options import (
    DebugOption,
    LogFormat,
    LogFormatOption,
    Output,
    OutputOption,
    QuietOption,
)
from tapes_cli.cli.reading import (
    Asked,
    FormatOption,
    OrgOption,
    PathsArgument,
    ProjectOption,
    SessionlessOption,
    SinceOption,
    UntilOption,
    org_of,
    sources_of,
)
from tapes_cli.model.sessionless import Sessionless


def validate(
    paths: PathsArgument = None,
    strict: StrictOption = False,
    max_errors: MaxErrorsOption = None,
    format_: FormatOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    org: OrgOption = None,
    project: ProjectOption = "",
    sessionless: SessionlessOption = Sessionless.SYNTHETIC,
    output: OutputOption = Output.TEXT,
    quiet: QuietOption = False,
    log_format: LogFormatOption = LogFormat.TEXT,
    debug: DebugOption = False,
) -> None:
    """Read captures as import would, without a database: what would be rejected, and why.

    Of each source it says which capture format was found, and every record that would be
    rejected is named. With -o jsonl every record is a line, in input
    order: turns with the hashes of their chain, root first, and rejects with their place and
    reason; the summary comes last.

    \b
    tapes-cli validate ~/captures
    tapes-cli validate -o jsonl day.jsonl | grep '"type":"reject"'

    Exit status: 0 all sound, 3 some records would be rejected, 4 stopped by --strict or
    --max-errors, 130 or 143 interrupted.
    """
    from tapes_cli.cli.checking import CheckReporter  # noqa: PLC0415  # keeps start-up fast
    from tapes_cli.importer.check import CheckRun  # noqa: PLC0415  # as above
    from tapes_cli.importer.prepare import Preparer  # noqa: PLC0415  # as above
    from tapes_cli.importer.stop import stop_on_signals  # noqa: PLC0415  # as above

    del debug
    write_messages_as(log_format)
    sources = list(sources_of(paths))
    reporter = CheckReporter(output, quiet=quiet)
    reading = Asked(org, project, format_, since, until).options(sources)
    preparer = Preparer(sessionless, org_of(org))
    run = CheckRun(preparer, reading, reporter, 0 if strict else max_errors)
    with stop_on_signals(lambda _: None) as stop:
        report = run.run(sources, stop)
    reporter.done(report)
    raise typer.Exit(report.exit_code)
