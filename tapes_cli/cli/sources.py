"""`tapes-cli sources`: what imports remember of the captures they have read."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from tapes_cli import settings
from tapes_cli.cli.console import Results, confirm, say, visible, write_line
from tapes_cli.cli.database import open_existing_database
from tapes_cli.cli.options import (
    DataDirOption,
    DebugOption,
    DsnOption,
    NoColorOption,
    Output,
    OutputOption,
    QuietOption,
    YesOption,
)
from tapes_cli.errors import UsageError

if TYPE_CHECKING:
    from tapes_cli.inspection.sources import Which
    from tapes_cli.model.checkpoint import Checkpoint

app = typer.Typer(
    help="See what imports remember of the captures they have read, and make them forget it.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

MissingOption: TypeAlias = Annotated[
    bool, typer.Option("--missing", help="Only captures on this machine that are gone.")
]


@app.command("list")
def list_(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="PATH",
            help="Only these files, and what is in these folders.",
            show_default="all",
        ),
    ] = None,
    missing: MissingOption = False,
    limit: Annotated[
        int,
        typer.Option("--limit", "-n", metavar="N", min=1, help="Show so many captures at most."),
    ] = 100,
    everything: Annotated[
        bool, typer.Option("--all", help="Show all captures, whatever --limit says.")
    ] = False,
    dsn: DsnOption = None,
    data_dir: DataDirOption = None,
    output: OutputOption = Output.TEXT,
    quiet: QuietOption = False,
    no_color: NoColorOption = False,
    debug: DebugOption = False,
) -> None:
    """List the captures that were imported, and how far each was read.

    The next import passes over a capture that is done, as long as it does not change. One that
    has grown is read on from where it was left, if its lines stand for themselves.

    \b
    tapes-cli sources list
    tapes-cli sources list /var/log/captures --all -o jsonl
    """
    from tapes_cli.inspection.sources import remembered  # noqa: PLC0415  # keeps start-up fast

    del no_color, debug
    with open_existing_database(dsn, data_dir, quiet=quiet) as (address, _):
        # One more tells whether there are more.
        found = remembered(
            address, _which(paths, missing=missing), None if everything else limit + 1
        )
    shown = found if everything else found[:limit]
    if output is not Output.TEXT:
        results = Results(output)
        for checkpoint in shown:
            results.write(_record(checkpoint))
        results.close({"type": "summary", "command": "sources list", "sources": len(shown)})
    elif shown:
        _print_table(shown)
        say("There are more: --all shows them.", quiet=quiet or len(shown) == len(found))
    else:
        say("No capture is remembered.", quiet=quiet)


@app.command()
def forget(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="PATH", help="These files, and what is in these folders.", show_default=False
        ),
    ] = None,
    missing: MissingOption = False,
    everything: Annotated[bool, typer.Option("--all", help="All captures.")] = False,
    yes: YesOption = False,
    dsn: DsnOption = None,
    data_dir: DataDirOption = None,
    output: OutputOption = Output.TEXT,
    quiet: QuietOption = False,
    no_color: NoColorOption = False,
    debug: DebugOption = False,
) -> None:
    """Forget captures: the next import reads them from their beginning.

    No turn is lost or stored twice by that.

    \b
    tapes-cli sources forget /var/log/captures/old
    tapes-cli sources forget --missing --yes
    """
    from tapes_cli.inspection import sources  # noqa: PLC0415  # keeps start-up fast

    del no_color, debug
    if not (paths or missing or everything):
        raise UsageError("Nothing was named.", hint="Name captures, --missing or --all.")
    if paths and everything:
        raise UsageError("Name captures, or --all, not both.")
    with open_existing_database(dsn, data_dir, quiet=quiet) as (address, _):
        found = sources.remembered(address, _which(paths, missing=missing))
        if found:
            confirm(f"Forget {_captures(len(found))}?", yes=yes)
        forgotten = sources.forget(address, found)
    if output is Output.TEXT:
        say(f"Forgot {_captures(forgotten)}.", quiet=quiet)
    else:
        summary = {"type": "summary", "command": "sources forget", "forgotten": forgotten}
        Results(output).close(summary)


def _which(paths: Sequence[Path] | None, *, missing: bool) -> "Which":
    from tapes_cli.inspection.sources import Which  # noqa: PLC0415  # keeps start-up fast

    named = [os.path.abspath(path) for path in paths] if paths else None  # noqa: PTH100  # resolve() would follow links
    return Which(named, settings.host_name() if missing else None)


def _captures(number: int) -> str:
    return "1 capture" if number == 1 else f"{number:,} captures"


def _record(checkpoint: "Checkpoint") -> dict[str, Any]:
    from tapes_cli.capture.times import rfc3339  # noqa: PLC0415  # keeps start-up fast

    key, place = checkpoint.key, checkpoint.reached
    return {
        "type": "source",
        "host": key.host,
        "location": key.location,
        "reading": key.reading,
        "format": checkpoint.format or None,
        "size": checkpoint.identity.size,
        "lines": place.position.lines if place else None,
        "byte_offset": place.position.byte_offset if place else None,
        "done": checkpoint.final,
        "turns": checkpoint.turns,
        "rejected": checkpoint.rejected,
        "skipped": checkpoint.skipped,
        "incomplete": checkpoint.incomplete,
        "read_at": rfc3339(checkpoint.read_at),
    }


_HEADINGS = ("READ AT (UTC)", "NEXT", "TURNS", "REJECTED", "FORMAT", "CAPTURE")
_NUMBERS = frozenset({"TURNS", "REJECTED"})


def _print_table(checkpoints: "Sequence[Checkpoint]") -> None:
    """Print a line a capture. Its location comes last, so that it is never cut."""
    hosts = {checkpoint.key.host for checkpoint in checkpoints}
    rows = [_HEADINGS]
    for checkpoint in checkpoints:
        name = _name(checkpoint, with_host=len(hosts) > 1)
        turns, rejected = f"{checkpoint.turns:,}", f"{checkpoint.rejected:,}"
        read_at = f"{checkpoint.read_at:%Y-%m-%d %H:%M}"
        rows.append((read_at, _next(checkpoint), turns, rejected, checkpoint.format, name))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            cell.rjust(width) if heading in _NUMBERS else cell.ljust(width)
            for heading, cell, width in zip(_HEADINGS, row, widths, strict=True)
        ]
        write_line(visible("  ".join(cells)).rstrip())


def _next(checkpoint: "Checkpoint") -> str:
    """Say what the next import does with a capture, if it has not changed."""
    if checkpoint.final:
        return "done"
    place = checkpoint.reached
    return f"line {place.position.lines + 1:,}" if place else "read again"


def _name(checkpoint: "Checkpoint", *, with_host: bool) -> str:
    key = checkpoint.key
    name = f"{key.host}:{key.location}" if with_host else key.location
    return f"{name} ({key.reading})" if key.reading else name
