"""`tapes-cli sessions`: see what was imported."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from tapes_cli.cli.console import Results, console, say
from tapes_cli.cli.database import open_existing_database
from tapes_cli.cli.options import (
    DataDirOption,
    DebugOption,
    DsnOption,
    NoColorOption,
    Output,
    OutputOption,
    QuietOption,
)
from tapes_cli.cli.reading import moment_of, org_of

if TYPE_CHECKING:
    from tapes_cli.inspection.sessions import SessionPage
    from tapes_cli.store.postgres.queries import Queries

app = typer.Typer(
    help="See what was imported: sessions and their conversations.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

OrgOption: TypeAlias = Annotated[
    str | None,
    typer.Option("--org", metavar="UUID", help="Only sessions of this org.", show_default="all"),
]
HarnessOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--harness", metavar="NAME", help="Only sessions of this harness.", show_default="all"
    ),
]
SinceOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--since",
        metavar="TIME",
        help="Only sessions last seen at this time or later: 2026-05-01 or 2026-05-01T12:00Z; "
        "UTC unless it says otherwise.",
        show_default=False,
    ),
]
UntilOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--until",
        metavar="TIME",
        help="Only sessions last seen before this time.",
        show_default=False,
    ),
]
LimitOption: TypeAlias = Annotated[
    int,
    typer.Option(
        "--limit", "-n", metavar="N", min=1, max=100_000, help="Show so many sessions at most."
    ),
]
CursorOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--cursor",
        metavar="CURSOR",
        help="Go on where a page ended: its next_cursor.",
        show_default=False,
    ),
]


@app.command("list")
def list_(
    org: OrgOption = None,
    harness: HarnessOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: LimitOption = 20,
    cursor: CursorOption = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Show all sessions, whatever --limit says.")
    ] = False,
    dsn: DsnOption = None,
    data_dir: DataDirOption = None,
    output: OutputOption = Output.TEXT,
    quiet: QuietOption = False,
    no_color: NoColorOption = False,
    debug: DebugOption = False,
) -> None:
    """List sessions, the newest activity first.

    The ID in the first column, which is the end of the whole one, is what `sessions show` takes.

    \b
    tapes-cli sessions list
    tapes-cli sessions list --harness claude --since 2026-05-01 --limit 50
    tapes-cli sessions list --all -o jsonl
    """
    from tapes_cli.inspection import sessions  # noqa: PLC0415  # keeps start-up fast
    from tapes_cli.store.postgres.queries import SessionFilter  # noqa: PLC0415  # as above

    del debug
    chosen = SessionFilter(
        org_id=org_of(org),
        harness_id=harness,
        since=moment_of(since, "--since"),
        until=moment_of(until, "--until"),
        after=sessions.parse_cursor(cursor) if cursor else None,
    )
    with _database(dsn, data_dir, quiet=quiet) as queries:
        page = sessions.list_sessions(queries, chosen, None if everything else limit)
    if output is not Output.TEXT:
        _write_list(page, Results(output))
    elif page.sessions:
        _print_list(page, quiet=quiet, no_color=no_color)
    elif chosen == SessionFilter():
        say("No session has been imported yet: tapes-cli import PATH", quiet=quiet)
    else:
        say("There is no such session.", quiet=quiet)


def _write_list(page: "SessionPage", results: Results) -> None:
    from tapes_cli.cli.session_records import list_summary, listed_record  # noqa: PLC0415  # as above

    for session in page.sessions:
        results.write(listed_record(session))
    results.close(list_summary(page))


def _print_list(page: "SessionPage", *, quiet: bool, no_color: bool) -> None:
    from tapes_cli.cli.session_text import session_table  # noqa: PLC0415  # as above

    terminal = console(no_color=no_color)
    terminal.print(session_table(page.sessions, terminal.width), soft_wrap=False)
    if page.next_cursor:
        say(f"There are more: add --all, or --cursor {page.next_cursor}", quiet=quiet)


@app.command()
def show(
    session: Annotated[
        str,
        typer.Argument(
            metavar="SESSION",
            help="A session's id, its harness session id, or the beginning or end of either.",
        ),
    ],
    full: Annotated[
        bool, typer.Option("--full", help="Show tool calls and their results uncut.")
    ] = False,
    org: OrgOption = None,
    harness: HarnessOption = None,
    dsn: DsnOption = None,
    data_dir: DataDirOption = None,
    output: OutputOption = Output.TEXT,
    quiet: QuietOption = False,
    no_color: NoColorOption = False,
    debug: DebugOption = False,
) -> None:
    """Show a session: where it belongs, and the conversation, with its forks.

    Messages that the session has in common with an earlier one are marked with that one.

    \b
    tapes-cli sessions show 3f2a9c1e
    tapes-cli sessions show 3f2a9c1e --full | less
    tapes-cli sessions show 3f2a9c1e -o json
    """
    from tapes_cli.cli.conversation_text import print_conversation  # noqa: PLC0415  # as above
    from tapes_cli.cli.session_records import (  # noqa: PLC0415  # keeps start-up fast
        conversation_summary,
        node_records,
    )
    from tapes_cli.inspection import sessions  # noqa: PLC0415  # as above
    from tapes_cli.store.postgres.queries import SessionFilter  # noqa: PLC0415  # as above

    del debug
    chosen = SessionFilter(org_id=org_of(org), harness_id=harness)
    # An argument that is not UTF-8 cannot be sent to the database, and names nothing there.
    name = session.strip().encode(errors="replace").decode()
    with _database(dsn, data_dir, quiet=quiet) as queries:
        row = sessions.find_session(queries, name, chosen)
        conversation = sessions.read_conversation(queries, row)
    if output is Output.TEXT:
        print_conversation(conversation, console(no_color=no_color), full=full)
        return
    results = Results(output)
    for record in node_records(conversation):
        results.write(record)
    results.close(conversation_summary(conversation))


@contextmanager
def _database(dsn: str | None, data_dir: Path | None, *, quiet: bool) -> "Iterator[Queries]":
    from tapes_cli.store.postgres.queries import open_queries  # noqa: PLC0415  # keeps start-up fast

    with (
        open_existing_database(dsn, data_dir, quiet=quiet) as (address, chosen),
        open_queries(address, chosen.origin) as queries,
    ):
        yield queries
