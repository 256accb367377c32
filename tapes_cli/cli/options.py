"""Options that commands share, so that each reads the same everywhere."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

SHARED = "Shared options"


class Output(StrEnum):
    """How results are written to stdout."""

    TEXT = "text"
    JSON = "json"
    JSONL = "jsonl"


class LogFormat(StrEnum):
    """How messages are written to stderr."""

    TEXT = "text"
    JSON = "json"


DsnOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--dsn",
        metavar="DSN",
        help="PostgreSQL to use: a libpq URI or connection string. Default: TAPES_DSN, "
        "DATABASE_URL, libpq's own variables (PGHOST, PGSERVICE, …), else the embedded database.",
        rich_help_panel=SHARED,
        show_default=False,
    ),
]
DataDirOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        metavar="DIR",
        help="Directory of the embedded database. Default: TAPES_DATA_DIR, else the user's "
        "data directory (/var/lib/tapes for root).",
        rich_help_panel=SHARED,
        show_default=False,
    ),
]
OutputOption: TypeAlias = Annotated[
    Output,
    typer.Option("--output", "-o", help="Form of the results on stdout.", rich_help_panel=SHARED),
]
QuietOption: TypeAlias = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="Say nothing but errors.", rich_help_panel=SHARED),
]
VerboseOption: TypeAlias = Annotated[
    bool,
    typer.Option("--verbose", "-v", help="Say more.", rich_help_panel=SHARED),
]
LogFormatOption: TypeAlias = Annotated[
    LogFormat,
    typer.Option(
        "--log-format",
        help="Form of the messages on stderr: text, or a JSON object for each, on a line of its "
        "own.",
        rich_help_panel=SHARED,
    ),
]
NoColorOption: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--no-color",
        help="No colour; NO_COLOR in the environment does the same.",
        rich_help_panel=SHARED,
    ),
]
DebugOption: TypeAlias = Annotated[
    bool,
    typer.Option("--debug", help="Show a traceback when something fails.", rich_help_panel=SHARED),
]
YesOption: TypeAlias = Annotated[
    bool,
    typer.Option("--yes", "-y", help="Do it without asking; needed where there is no terminal."),
]
