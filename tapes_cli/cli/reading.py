"""What commands that read captures share: the paths, and how records are read."""

import glob
import os
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, TypeAlias
from uuid import UUID

import typer

from tapes_cli.errors import UsageError
from tapes_cli.model.sessionless import Sessionless

if TYPE_CHECKING:
    from tapes_cli.capture.formats.base import RecordFormat, SourceFormat
    from tapes_cli.capture.reader import Options
    from tapes_cli.capture.sources import Source, SourceProblem

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


def read_options(
    org: str | None, project: str, name: str | None, sources: "Sequence[Source | SourceProblem]"
) -> "Options":
    """Return how the records of these sources are to be read.

    Raises:
        UsageError: `--org` is not a UUID, or `--format` names no format.
    """
    from tapes_cli.capture.reader import Options  # noqa: PLC0415  # keeps start-up fast
    from tapes_cli.capture.sources import Source  # noqa: PLC0415  # as above

    paths = [s.path for s in sources if isinstance(s, Source) and s.path and not s.folder]
    return Options(org_of(org), project, format=_format_of(name), paths=tuple(paths))


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
