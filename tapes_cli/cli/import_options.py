"""The options of `tapes-cli import`, and what they ask for."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

REJECTS = "Rejects"
AGAIN = "Importing again"
OTHERS = "Other imports, and a database that is away"


class Lock(StrEnum):
    """What to do about another import into the same database."""

    NONE = "none"
    WAIT = "wait"
    FAIL = "fail"


RejectsOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--rejects",
        metavar="FILE",
        help="Append rejected records to this file, which can be imported again after a fix. "
        "Rejects from stdin are always kept, in the data directory unless a file is named.",
        rich_help_panel=REJECTS,
        show_default=False,
    ),
]
FromRejectsOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--from-rejects",
        metavar="FILE",
        help="Import the records of a rejects file, and nothing else.",
        rich_help_panel=REJECTS,
        show_default=False,
    ),
]
StrictOption: TypeAlias = Annotated[
    bool,
    typer.Option("--strict", help="Stop at the first rejected record.", rich_help_panel=REJECTS),
]
MaxErrorsOption: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--max-errors",
        metavar="N",
        min=0,
        help="Stop when more than N records were rejected.",
        rich_help_panel=REJECTS,
        show_default="no limit",
    ),
]
MigrateOption: TypeAlias = Annotated[
    bool,
    typer.Option("--migrate", help="Bring the schema of a named server up to date first."),
]
WorkersOption: TypeAlias = Annotated[
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
DryRunOption: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Do everything but the writing, in a transaction that only reads, and give the same "
        "report.",
    ),
]
RereadOption: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--reread",
        help="Read all files from their beginning, also those that did not change since the last "
        "import.",
        rich_help_panel=AGAIN,
    ),
]
NoCheckpointOption: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--no-checkpoint",
        help="Read all files, and remember nothing of it for the next import.",
        rich_help_panel=AGAIN,
    ),
]
LockOption: TypeAlias = Annotated[
    Lock,
    typer.Option(
        "--lock",
        help="What to do while another import into the same database runs: wait for it, fail at "
        "once, or (none) import beside it, which is safe, but slower.",
        rich_help_panel=OTHERS,
    ),
]
LockTimeoutOption: TypeAlias = Annotated[
    float,
    typer.Option(
        "--lock-timeout",
        metavar="SECONDS",
        min=0,
        help="How long to wait for another import; then the exit status is 7.",
        rich_help_panel=OTHERS,
    ),
]
RetryForOption: TypeAlias = Annotated[
    float | None,
    typer.Option(
        "--retry-for",
        metavar="SECONDS",
        min=0,
        help="How long to wait for a database that is away; then the exit status is 5. If it is "
        "given, it holds for the first connection, too.",
        rich_help_panel=OTHERS,
        show_default="30, and 0 for the first connection",
    ),
]

LOCK_TIMEOUT_SECONDS = 60.0


def lock_seconds(lock: Lock, seconds: float) -> float | None:
    """Return how many seconds to wait for another import; None does not look for one."""
    if lock is Lock.NONE:
        return None
    return seconds if lock is Lock.WAIT else 0.0
