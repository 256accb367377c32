"""`tapes-cli db`: the embedded database."""

import shutil
import signal
import subprocess
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tapes_cli import settings
from tapes_cli.cli.console import say, visible, write_document, write_json, write_line
from tapes_cli.cli.options import DataDirOption, DebugOption, Output, OutputOption, QuietOption
from tapes_cli.errors import DatabaseUnavailableError

if TYPE_CHECKING:
    from tapes_cli.store.embedded import EmbeddedServer, ServerStatus

app = typer.Typer(
    name="db",
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Start, stop and look at the embedded database. Commands that need it start it "
    "themselves; --dsn and its variables play no part here.",
)


@app.command()
def start(
    data_dir: DataDirOption = None, quiet: QuietOption = False, debug: DebugOption = False
) -> None:
    """Start the embedded database, create it if need be, and leave it running.

    Prints its DSN. Without this, the server runs only while a command uses it.
    """
    del debug
    dsn = _server(data_dir).start(lambda message: say(message, quiet=quiet))
    say("The embedded database runs until `tapes-cli db stop`.", quiet=quiet)
    write_line(dsn)


@app.command()
def stop(
    force: Annotated[
        bool, typer.Option("--force", help="Stop it even while other commands use it.")
    ] = False,
    data_dir: DataDirOption = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Stop the embedded database; while it is in use, it stops when the last command ends."""
    from tapes_cli.store.embedded import StopOutcome  # noqa: PLC0415  # keeps start-up fast

    del debug
    outcome = _server(data_dir).stop(lambda message: say(message, quiet=quiet), force=force)
    said = {
        StopOutcome.STOPPED: "The embedded database is stopped.",
        StopOutcome.NOT_RUNNING: "The embedded database was not running.",
        StopOutcome.IN_USE: "The embedded database is in use; it stops when the last command that "
        "uses it ends. --force stops it now.",
    }
    say(said[outcome], quiet=quiet)


@app.command()
def status(
    data_dir: DataDirOption = None, output: OutputOption = Output.TEXT, debug: DebugOption = False
) -> None:
    """Tell where the embedded database is, and whether it runs."""
    del debug
    found = _server(data_dir).status()
    record = _record(found)
    if output is Output.TEXT:
        for label, text in _lines(found):
            write_line(f"{label:<16}{visible(text)}")
        return
    summary = {"type": "summary", "command": "db status", "exit_code": 0}
    if output is Output.JSON:
        write_document([record], summary)
    else:
        write_json(record)
        write_json(summary)


@app.command()
def url(data_dir: DataDirOption = None, debug: DebugOption = False) -> None:
    """Print the DSN of the running embedded database.

    \b
    pg_dump "$(tapes-cli db url)" > tapes.sql
    """
    del debug
    dsn = _server(data_dir).status().dsn
    if dsn is None:
        raise DatabaseUnavailableError(
            "The embedded database is not running.", hint="Start it with `tapes-cli db start`."
        )
    write_line(dsn)


@app.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
def psql(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="[-- ARGUMENT…]", help="What psql shall be called with."),
    ] = None,
    data_dir: DataDirOption = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Open psql on the embedded database, which runs meanwhile.

    \b
    tapes-cli db psql
    tapes-cli db psql -- -c 'SELECT count(*) FROM nodes'

    The exit status is psql's.
    """
    del debug
    program = _psql()
    with _server(data_dir).attach(lambda message: say(message, quiet=quiet)) as session:
        # On Ctrl-C psql cancels a query; we wait for psql. A handler, unlike SIG_IGN, is not
        # inherited.
        before = signal.signal(signal.SIGINT, lambda *_: None)
        try:
            ended = subprocess.run([program, session.dsn, *(arguments or ())], check=False)  # noqa: S603  # the user's own arguments
        finally:
            signal.signal(signal.SIGINT, before)
    code = ended.returncode
    raise typer.Exit(code if code >= 0 else 128 - code)


def _psql() -> str:
    from tapes_cli.store.embedded import find_binaries  # noqa: PLC0415  # keeps start-up fast

    beside = find_binaries() / "psql"
    program = str(beside) if beside.is_file() else shutil.which("psql")
    if program is None:
        raise DatabaseUnavailableError(
            "There is no psql here.",
            hint="Connect with another client: `tapes-cli db start` prints the DSN.",
        )
    return program


def _server(data_dir: DataDirOption) -> "EmbeddedServer":
    from tapes_cli.store.embedded import EmbeddedServer  # noqa: PLC0415  # keeps start-up fast

    return EmbeddedServer(settings.data_dir(data_dir))


def _record(found: "ServerStatus") -> dict[str, Any]:
    return {
        "type": "db_status",
        "data_dir": str(found.data_dir),
        "initialised": found.initialised,
        "running": found.running,
        "pid": found.pid,
        "version": found.version,
        "dsn": found.dsn,
        "socket_dir": str(found.socket_dir) if found.socket_dir else None,
        "kept": found.kept,
        "binaries_version": found.binaries_version,
    }


def _lines(found: "ServerStatus") -> list[tuple[str, str]]:
    created = f"PostgreSQL {found.version}" if found.initialised else "not created yet"
    if found.running:
        until = "until `tapes-cli db stop`" if found.kept else "while a command uses it"
        server = f"running {until}, pid {found.pid or 'unknown'}"
    else:
        server = "not running"
    lines = [
        ("data directory", str(found.data_dir)),
        ("database", created),
        ("server", server),
        ("programs", f"PostgreSQL {found.binaries_version}" if found.binaries_version else "none"),
    ]
    if found.dsn:
        lines.append(("DSN", found.dsn))
    return lines
