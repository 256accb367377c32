"""The `tapes-cli` command: its sub-commands, and what happens when one fails."""

import signal
import sys
from importlib.metadata import version
from types import FrameType
from typing import Annotated

import typer

from tapes_cli.cli import db, migrate, sessions, sources
from tapes_cli.cli.console import (
    escape_what_cannot_be_written,
    flush,
    open_closed_streams,
    say_error,
)
from tapes_cli.cli.doctor import doctor
from tapes_cli.cli.formats import formats
from tapes_cli.cli.import_ import import_
from tapes_cli.cli.validate import validate
from tapes_cli.errors import InterruptedRunError, TapesError

app = typer.Typer(
    name="tapes-cli",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(*, wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"tapes-cli {version('tapes-cli')}\n")
        raise typer.Exit


@app.callback()
def main(
    *,
    show_version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Print the version and leave.",
            callback=lambda value: _print_version(wanted=value),
            is_eager=True,
        ),
    ] = False,
) -> None:
    """Import archived captures of LLM and agent conversations into PostgreSQL, exactly once.

    \b
    tapes-cli import ~/captures          store every turn found in a folder
    cat turn.json | tapes-cli import     store what comes through a pipe
    tapes-cli sessions list              see what is there

    Without --dsn the turns go to an embedded PostgreSQL that needs no set-up.
    """
    del show_version


app.command("import")(import_)
app.command()(validate)
app.command()(formats)
app.add_typer(sessions.app, name="sessions")
app.add_typer(sources.app, name="sources")
app.add_typer(migrate.app, name="migrate")
app.add_typer(db.app, name="db")
app.command()(doctor)


def run() -> None:
    """Run the command; end the process with its exit status."""
    debug = "--debug" in sys.argv[1:]
    open_closed_streams()
    escape_what_cannot_be_written()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    try:
        app(standalone_mode=True)
    except (TapesError, InterruptedRunError) as error:
        if debug:
            raise
        say_error(str(error), hint=error.hint, exit_code=error.exit_status)
        sys.exit(error.exit_status)
    except Exception as error:
        if debug:
            raise
        say_error(
            f"internal error: {type(error).__name__} {_place(error)}",
            hint="Run it again with --debug for the traceback, and report it.",
            exit_code=TapesError.exit_status,
        )
        sys.exit(TapesError.exit_status)
    finally:
        flush()


def _leave(signal_number: int, _frame: FrameType | None) -> None:
    """End in an orderly way, so that the embedded server is not left behind."""
    raise SystemExit(128 + signal_number)


def _place(error: Exception) -> str:
    """Return file and line where an unforeseen error arose; its message may hold content."""
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    return f"at {trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else ""
