"""What commands that read captures share: the paths, and how records are read."""

import glob
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, TypeAlias
from uuid import UUID

import typer

from tapes_cli.errors import UsageError
from tapes_cli.model.sessionless import Sessionless

if TYPE_CHECKING:
    from tapes_cli.capture.formats.base import RecordFormat, SourceFormat
    from tapes_cli.capture.reader import Options
    from tapes_cli.capture.sources import Source, SourceProblem
    from tapes_cli.capture.times import Period

READING = "Reading"

PathsArgument: TypeAlias = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="PATH|-",
        help="Files, folders (read recursively), globs, or - for stdin. With no PATH and a pipe "
        "on stdin, stdin is read. gzip, bzip2, xz and zstd are recognised by their content.",
        show_default=False,
    ),
]
OrgOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--org",
        metavar="UUID",
        help="Org of turns whose envelope names none.",
        rich_help_panel=READING,
        show_default=False,
    ),
]
ProjectOption: TypeAlias = Annotated[
    str,
    typer.Option(
        "--project",
        metavar="NAME",
        help="Tag every node with this project.",
        rich_help_panel=READING,
        show_default=False,
    ),
]
SessionlessOption: TypeAlias = Annotated[
    Sessionless,
    typer.Option(
        "--sessionless",
        help="What to do with a turn that has no session envelope: derive a session from its "
        "first message, store it without a session, or reject it.",
        rich_help_panel=READING,
    ),
]
SinceOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--since",
        metavar="TIME",
        help="Only turns captured at this time or later: 2026-05-01 or 2026-05-01T12:00Z; UTC "
        "unless it says otherwise. The others are skipped.",
        rich_help_panel=READING,
        show_default=False,
    ),
]
UntilOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--until",
        metavar="TIME",
        help="Only turns captured before this time.",
        rich_help_panel=READING,
        show_default=False,
    ),
]
FormatOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="NAME",
        help="Read all files as this capture format; `tapes-cli formats` lists them. Default: "
        "the format of each is found by content.",
        rich_help_panel=READING,
        show_default=False,
    ),
]


def org_of(text: str | None) -> UUID | None:
    """Return the org that `--org` names.

    Raises:
        UsageError: it is not a UUID.
    """
    if text is None:
        return None
    try:
        return UUID(text)
    except ValueError:
        raise UsageError(
            "--org is not a UUID.", hint="Write it as 8-4-4-4-12 hex digits."
        ) from None


def moment_of(text: str | None, option: str) -> datetime | None:
    """Return a time given on the command line, in UTC unless it says otherwise.

    Raises:
        UsageError: it is no time.
    """
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    except ValueError:
        raise UsageError(
            f"{option} is not a time.", hint="Write it as 2026-05-01 or 2026-05-01T12:00:00Z."
        ) from None


@dataclass(frozen=True, slots=True)
class Asked:
    """What the options say of the reading, as it was typed."""

    org: str | None = None
    project: str = ""
    format: str | None = None
    since: str | None = None
    until: str | None = None

    def options(self, sources: "Sequence[Source | SourceProblem]") -> "Options":
        """Return how the records of these sources are to be read.

        Raises:
            UsageError: an option has a value that it cannot have.
        """
        from tapes_cli.capture.reader import Options  # noqa: PLC0415  # keeps start-up fast
        from tapes_cli.capture.sources import Source  # noqa: PLC0415  # as above

        paths = [s.path for s in sources if isinstance(s, Source) and s.path and not s.folder]
        return Options(
            org_of(self.org),
            self.project,
            format=_format_of(self.format),
            paths=tuple(paths),
            period=self._period(),
        )

    def _period(self) -> "Period | None":
        from tapes_cli.capture.times import Period  # noqa: PLC0415  # keeps start-up fast

        if self.since is None and self.until is None:
            return None
        return Period(moment_of(self.since, "--since"), moment_of(self.until, "--until"))

    def words(self) -> list[tuple[str, str]]:
        """Return the options that decide what is stored, each with its value."""
        given = {
            "--format": self.format,
            "--org": (self.org or "").lower(),
            "--project": self.project,
            "--since": self.since,
            "--until": self.until,
        }
        return [(option, value) for option, value in given.items() if value]


def _format_of(name: str | None) -> "RecordFormat | SourceFormat | None":
    from tapes_cli.capture.formats import format_named, supported  # noqa: PLC0415  # as above
    from tapes_cli.capture.formats.base import (  # noqa: PLC0415  # as above
        FolderFormat,
        RecordFormat,
        SourceFormat,
    )

    if name is None:
        return None
    found = format_named(name)
    if not isinstance(found, RecordFormat | SourceFormat):
        names = ", ".join(f.name for f in supported() if not isinstance(f, FolderFormat))
        raise UsageError(f"--format {name}: no file has such a format.", hint=f"Use {names}.")
    return found


def sources_of(paths: list[str] | None) -> "Iterator[Source | SourceProblem]":
    """Return the sources that the arguments name.

    Raises:
        UsageError: there is nothing to read, or a path does not exist.
    """
    from tapes_cli.capture.expansion import expand  # noqa: PLC0415  # keeps start-up fast

    arguments = paths or []
    if not arguments:
        if sys.stdin is None or sys.stdin.isatty():
            raise UsageError(
                "There is nothing to read: no PATH was given, and stdin is a terminal.",
                hint="Name a file or a folder, or pipe turn records in.",
            )
        arguments = ["-"]
    for argument in arguments:
        if argument != "-" and not os.path.lexists(argument) and not glob.has_magic(argument):
            raise UsageError(
                f"{argument or repr(argument)}: no such file or folder.", hint="Check the path."
            )
    return expand(arguments)


def reads_stdin(paths: list[str] | None) -> bool:
    """Tell whether stdin is among the sources."""
    return not paths or "-" in paths
