"""`tapes-cli import`: read captures, store turns."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tapes_cli import settings
from tapes_cli.cli.console import say
from tapes_cli.cli.database import open_database
from tapes_cli.cli.options import (
    DataDirOption,
    DebugOption,
    DsnOption,
    NoColorOption,
    Output,
    OutputOption,
    QuietOption,
    VerboseOption,
)
from tapes_cli.cli.reading import (
    FormatOption,
    OrgOption,
    PathsArgument,
    ProjectOption,
    SessionlessOption,
    org_of,
    read_options,
    reads_stdin,
    sources_of,
)
from tapes_cli.errors import UsageError
from tapes_cli.model.sessionless import Sessionless

if TYPE_CHECKING:
    from tapes_cli.importer.rejects import RejectsFile

RejectsOption = Annotated[
    Path | None,
    typer.Option(
        "--rejects",
        metavar="FILE",
        help="Append rejected records to this file, which can be imported again after a fix. "
        "Rejects from stdin are always kept, in the data directory unless a file is named.",
        show_default=False,
    ),
]
StrictOption = Annotated[bool, typer.Option("--strict", help="Stop at the first rejected record.")]
MaxErrorsOption = Annotated[
    int | None,
    typer.Option(
        "--max-errors",
        metavar="N",
        min=0,
        help="Stop when more than N records were rejected.",
        show_default="no limit",
    ),
]
MigrateOption = Annotated[
    bool,
    typer.Option("--migrate", help="Bring the schema of a named server up to date first."),
]


WorkersOption = Annotated[
    int | None,
    typer.Option(
        "--workers",
        metavar="N",
        min=1,
        help="Import in so many processes, each with a connection of its own. What is stored and "
        "reported does not depend on it. stdin is always read by one.",
        show_default="as many as help",
    ),
]


def import_(
    paths: PathsArgument = None,
    rejects: RejectsOption = None,
    strict: StrictOption = False,
    max_errors: MaxErrorsOption = None,
    workers: WorkersOption = None,
    migrate: MigrateOption = False,
    format_: FormatOption = None,
    org: OrgOption = None,
    project: ProjectOption = "",
    sessionless: SessionlessOption = Sessionless.SYNTHETIC,
    dsn: DsnOption = None,
    data_dir: DataDirOption = None,
    output: OutputOption = Output.TEXT,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    no_color: NoColorOption = False,
    debug: DebugOption = False,
) -> None:
    """Read captures and store their turns, each in one transaction, exactly once.

    Importing the same capture again changes nothing. Every record that is not stored is named
    with its place and the reason.

    \b
    tapes-cli import ~/captures
    tapes-cli import --dsn postgresql://db/tapes day.jsonl.gz
    cat turn.json | tapes-cli import
    tapes-cli import --rejects rejects.jsonl ~/captures

    Exit status: 0 all stored or already there, 3 some records were rejected, 4 stopped by
    --strict or --max-errors, 5 database lost, 6 schema not up to date, 130 or 143 interrupted.
    """
    from tapes_cli.cli.reporting import Reporter  # noqa: PLC0415  # keeps start-up fast
    from tapes_cli.importer.ledger import Ledger  # noqa: PLC0415  # as above
    from tapes_cli.importer.run import ImportOptions  # noqa: PLC0415  # as above
    from tapes_cli.importer.start import import_all, numbered  # noqa: PLC0415  # as above
    from tapes_cli.importer.stop import stop_on_signals  # noqa: PLC0415  # as above
    from tapes_cli.importer.worker import Task  # noqa: PLC0415  # as above

    sources = numbered(sources_of(paths))
    reading = read_options(org, project, format_, sources)
    options = ImportOptions(reading, with_chains=verbose)
    reporter = Reporter(output, quiet=quiet, verbose=verbose, no_color=no_color)
    with (
        stop_on_signals(say) as stop,
        open_database(dsn, data_dir, quiet=quiet) as (address, chosen),
    ):
        bring_up_to_date(address, chosen, migrate=migrate, quiet=quiet)
        kept = _rejects_file(rejects, paths, data_dir)
        ledger = Ledger(reporter, kept, 0 if strict else max_errors)
        task = Task(address, options, sessionless, org_of(org), debug, sources)
        report = import_all(task, ledger, stop, workers)
    if kept is not None and kept.written:
        report.rejects_file = str(kept.path)
    if not task.sources:
        say("There is nothing to import: the arguments name no files.", quiet=quiet)
    reporter.done(report)
    raise typer.Exit(report.exit_code)


def bring_up_to_date(dsn: str, chosen: settings.Connection, *, migrate: bool, quiet: bool) -> None:
    """Migrate the embedded database, or a named one on request; else check that it is current.

    Raises:
        SchemaError: the schema is not the one that this program knows.
    """
    from tapes_cli.store.postgres import migrations  # noqa: PLC0415  # keeps start-up fast

    if migrate or chosen.embedded:
        applied = migrations.migrate_up(dsn)
        if applied and not chosen.embedded:
            say(f"Applied {len(applied)} migrations.", quiet=quiet)
        return
    migrations.check_current(dsn, origin=chosen.origin)


def _rejects_file(
    named: Path | None, paths: list[str] | None, data_dir: Path | None
) -> "RejectsFile | None":
    from tapes_cli.capture.times import utc_now  # noqa: PLC0415  # keeps start-up fast
    from tapes_cli.importer.rejects import RejectsFile  # noqa: PLC0415  # as above

    if named is not None:
        kept = RejectsFile(named)
        sources = [path for path in paths or [] if path != "-"]
        if reads_stdin(paths):
            sources.append("/dev/stdin")
        if any(kept.is_file(Path(path)) for path in sources):
            raise UsageError(
                f"{named} is both read and written.",
                hint="Write the rejects of this run to another file.",
            )
        return kept
    if reads_stdin(paths):
        moment = utc_now().strftime("%Y%m%dT%H%M%SZ")
        folder = settings.data_dir(data_dir) / "rejects"
        _make_private(folder)
        return RejectsFile(folder / f"stdin-{moment}-{os.getpid()}.jsonl")
    return None


def _make_private(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"Rejects from stdin cannot be kept in {folder}: {error.strerror}.",
            hint="Name a file with --rejects, or another folder with --data-dir.",
        ) from error
