"""`tapes-cli doctor`: is everything in place?"""

from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tapes_cli import settings
from tapes_cli.cli.console import Results, console, say, visible
from tapes_cli.cli.options import (
    SHARED,
    DataDirOption,
    DebugOption,
    DsnOption,
    NoColorOption,
    Output,
    OutputOption,
)

if TYPE_CHECKING:
    from rich.text import Text

    from tapes_cli.inspection.health import Check

OnlyProblemsOption = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="Print only what is not ok.", rich_help_panel=SHARED),
]

_VERDICT_CELLS = 9
_NAME_CELLS = 19
_STYLES = {"ok": "green", "warning": "yellow", "failed": "bold red", "skipped": "dim"}


def doctor(
    dsn: DsnOption = None,
    data_dir: DataDirOption = None,
    output: OutputOption = Output.TEXT,
    quiet: OnlyProblemsOption = False,
    no_color: NoColorOption = False,
    debug: DebugOption = False,
) -> None:
    """Tell whether everything is in place that an import needs, one line a check.

    Nothing is created, started or changed. Below what is not ok stands what to do about it.

    \b
    tapes-cli doctor
    tapes-cli doctor --quiet --dsn postgresql://db/tapes
    tapes-cli doctor -o jsonl

    Exit status: 0 all is well or there are only warnings; else that with which an import would
    end: 2 the data directory is of no use, 5 the database cannot be reached or takes no writes
    from this user, 6 the schema is not up to date, 7 somebody keeps it locked, 1 anything else.
    """
    from tapes_cli.inspection.health import Verdict, examine, exit_status  # noqa: PLC0415  # keeps start-up fast

    del debug
    chosen = settings.connection(dsn)
    results = Results(output)
    terminal = console(no_color=no_color) if output is Output.TEXT else None
    checks = []
    for check in examine(chosen, data_dir):
        checks.append(check)
        results.write(_record(check))
        if terminal and not (quiet and check.verdict in {Verdict.OK, Verdict.SKIPPED}):
            terminal.print(_line(check))
    counts = Counter(check.verdict.value for check in checks)
    code = exit_status(checks)
    results.close(_summary(counts, code))
    if terminal:
        say(_conclusion(counts), quiet=quiet)
    raise typer.Exit(code)


def _record(check: "Check") -> dict[str, Any]:
    return {
        "type": "check",
        "name": check.name,
        "verdict": check.verdict.value,
        "found": check.found,
        "remedy": check.remedy or None,
    }


def _summary(counts: Counter[str], exit_code: int) -> dict[str, Any]:
    status = "failed" if counts["failed"] else "warnings" if counts["warning"] else "ok"
    return {
        "type": "summary",
        "command": "doctor",
        "status": status,
        "exit_code": exit_code,
        "checks": {verdict: counts[verdict] for verdict in _STYLES},
    }


def _line(check: "Check") -> "Text":
    from rich.text import Text  # noqa: PLC0415  # keeps start-up fast

    verdict = check.verdict.value
    line = Text(f"{verdict:<{_VERDICT_CELLS}}", _STYLES[verdict])
    line.append(f"{check.name.replace('_', ' '):<{_NAME_CELLS}}{visible(check.found)}", "default")
    if check.remedy:
        line.append(f"\n{'':<{_VERDICT_CELLS}}→ {visible(check.remedy)}", "default")
    return line


def _conclusion(counts: Counter[str]) -> str:
    if counts["failed"]:
        return f"Not everything is in place: {counts['failed']} failed."
    if counts["warning"]:
        return "An import can run, with what the warnings say."
    return "Everything is in place."
