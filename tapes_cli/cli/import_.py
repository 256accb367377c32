"""`tapes-cli import`: read captures, store turns."""

import os
import shlex
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from tapes_cli import settings
from tapes_cli.cli.console import Level, say, write_messages_as
from tapes_cli.cli.database import open_database
from tapes_cli.cli.import_options import (
    LOCK_TIMEOUT_SECONDS,
    DryRunOption,
    FromRejectsOption,
    Lock,
    LockOption,
    LockTimeoutOption,
    MaxErrorsOption,
    MigrateOption,
    NoCheckpointOption,
    RejectsOption,
    RereadOption,
    RetryForOption,
    StrictOption,
    WorkersOption,
    lock_seconds,
)
from tapes_cli.cli.options import (
    DataDirOption,
    DebugOption,
    DsnOption,
    LogFormat,
    LogFormatOption,
    NoColorOption,
    Output,
    OutputOption,
    QuietOption,
    VerboseOption,
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
    reads_stdin,
    sources_of,
)
from tapes_cli.cli.run_files import MetricsOption, ReportOption, RunFiles
from tapes_cli.errors import UsageError
from tapes_cli.model.sessionless import Sessionless

if TYPE_CHECKING:
    from tapes_cli.importer.checkpoints import Way
    from tapes_cli.importer.guard import Guard
    from tapes_cli.importer.rejects import RejectsFile


def import_(
    paths: PathsArgument = None,
    dry_run: DryRunOption = False,
    workers: WorkersOption = None,
    migrate: MigrateOption = False,
    rejects: RejectsOption = None,
    from_rejects: FromRejectsOption = None,
    strict: StrictOption = False,
    max_errors: MaxErrorsOption = None,
    reread: RereadOption = False,
    no_checkpoint: NoCheckpointOption = False,
    lock: LockOption = Lock.WAIT,
    lock_timeout: LockTimeoutOption = LOCK_TIMEOUT_SECONDS,
    retry_for: RetryForOption = None,
    report_file: ReportOption = None,
    metrics_file: MetricsOption = None,
    format_: FormatOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    org: OrgOption = None,
    project: ProjectOption = "",
    sessionless: SessionlessOption = Sessionless.SYNTHETIC,
    dsn: DsnOption = None,
    data_dir: DataDirOption = None,
    output: OutputOption = Output.TEXT,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    log_format: LogFormatOption = LogFormat.TEXT,
    no_color: NoColorOption = False,
    debug: DebugOption = False,
) -> None:
    """Read captures and store their turns, each in one transaction, exactly once.

    Importing the same capture again changes nothing, and files that did not change since the
    last import are not read again. Every record that is not stored is named with its place and
    the reason.

    \b
    tapes-cli import ~/captures
    tapes-cli import --dsn postgresql://db/tapes day.jsonl.gz
    cat turn.json | tapes-cli import
    tapes-cli import --rejects rejects.jsonl ~/captures

    Exit status: 0 all stored or already there, 3 some records were rejected, 4 stopped by
    --strict or --max-errors, 5 database lost, 6 schema not up to date, 7 another import runs,
    130 or 143 interrupted.
    """
    from tapes_cli.cli.reporting import Reporter  # noqa: PLC0415  # keeps start-up fast
    from tapes_cli.importer.guard import import_guarded, try_import  # noqa: PLC0415  # as above
    from tapes_cli.importer.ledger import Ledger  # noqa: PLC0415  # as above
    from tapes_cli.importer.report import Report  # noqa: PLC0415  # as above
    from tapes_cli.importer.run import ImportOptions  # noqa: PLC0415  # as above
    from tapes_cli.importer.start import numbered  # noqa: PLC0415  # as above
    from tapes_cli.importer.stop import stop_on_signals  # noqa: PLC0415  # as above
    from tapes_cli.importer.worker import Task  # noqa: PLC0415  # as above
    from tapes_cli.store.postgres.connect import wait_for  # noqa: PLC0415  # as above
    from tapes_cli.store.postgres.retry import DEFAULT_BACKOFF, Backoff  # noqa: PLC0415  # as above

    write_messages_as(log_format)
    files = RunFiles(report_file, metrics_file, rejects)
    paths, format_ = _what_to_read(paths, from_rejects, format_)
    sources = numbered(files.without(sources_of(paths)))
    asked = Asked(org, project, format_, since, until)
    options = ImportOptions(asked.options(sources), with_chains=verbose)
    reporter = Reporter(output, quiet=quiet, verbose=verbose, no_color=no_color)
    backoff = DEFAULT_BACKOFF if retry_for is None else Backoff(retry_for)
    way = None if no_checkpoint else _way(asked, sessionless, again=reread)
    guard = guard_of(way, lock, lock_timeout, quiet=quiet)
    report = Report("import", dry_run=dry_run)
    with (
        stop_on_signals(partial(say, quiet=quiet, level=Level.WARNING)) as stop,
        files.written(report),
        open_database(dsn, data_dir, quiet=quiet) as (address, chosen),
    ):
        wait_for(address, retry_for or 0.0)
        if dry_run:
            look_at_schema(address, chosen)
        else:
            bring_up_to_date(address, chosen, migrate=migrate, quiet=quiet)
        kept = None if dry_run else _rejects_file(rejects, paths, data_dir)
        observer, max_rejects = files.listening(reporter), 0 if strict else max_errors
        ledger = Ledger(observer, kept, max_rejects, report=report)
        task = Task(address, options, sessionless, org_of(org), debug, sources, backoff=backoff)
        if dry_run:
            try_import(task, ledger, stop, guard)
        else:
            import_guarded(task, ledger, stop, workers, guard)
        if kept is not None and kept.written:
            report.rejects_file = str(kept.path)
    if not task.sources:
        say("There is nothing to import: the arguments name no files.", quiet=quiet)
    reporter.done(report)
    raise typer.Exit(report.exit_code)


def _what_to_read(
    paths: list[str] | None, from_rejects: Path | None, format_: str | None
) -> tuple[list[str] | None, str | None]:
    """Return the paths and the format that are asked for.

    Raises:
        UsageError: a rejects file is to be read together with something else.
    """
    if from_rejects is None:
        return paths, format_
    if paths or format_:
        raise UsageError(
            "--from-rejects reads that file alone.",
            hint="Leave out the paths and --format; a rejects file can also be named as a path.",
        )
    return [str(from_rejects)], "rejects"


def _way(asked: Asked, sessionless: Sessionless, *, again: bool) -> "Way":
    from tapes_cli.importer.checkpoints import Way  # noqa: PLC0415  # keeps start-up fast

    words = asked.words()
    if sessionless is not Sessionless.SYNTHETIC:
        words.append(("--sessionless", sessionless.value))
    return Way(settings.host_name(), shlex.join(chain.from_iterable(words)), again)


def guard_of(way: "Way | None", lock: Lock, seconds: float, *, quiet: bool) -> "Guard":
    """Return what an import minds: how it reads, and how long it waits for another one."""
    from tapes_cli.importer.guard import Guard  # noqa: PLC0415  # keeps start-up fast

    return Guard(way, lock_seconds(lock, seconds), lambda message: say(message, quiet=quiet))


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


def look_at_schema(dsn: str, chosen: settings.Connection) -> None:
    """Check that the schema is current; only an embedded database that is new gets its tables.

    Raises:
        SchemaError: the schema is not the one that this program knows.
    """
    from tapes_cli.store.postgres import migrations  # noqa: PLC0415  # keeps start-up fast

    missing = migrations.status(dsn).state is migrations.SchemaState.MISSING
    if chosen.embedded and missing:
        migrations.migrate_up(dsn)
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
