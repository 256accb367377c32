"""`tapes-cli migrate`: the schema up, down, and what it is."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tapes_cli.cli.console import confirm, say, visible, write_document, write_json, write_line
from tapes_cli.cli.database import open_database
from tapes_cli.cli.options import (
    DataDirOption,
    DebugOption,
    DsnOption,
    NoColorOption,
    Output,
    OutputOption,
    QuietOption,
    VerboseOption,
    YesOption,
)
from tapes_cli.errors import SchemaError, UsageError
from tapes_cli.store.postgres.migration_files import Direction, Migration, script

if TYPE_CHECKING:
    from tapes_cli.store.postgres.migration_plan import DownPlan

app = typer.Typer(
    name="migrate",
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Bring the schema up, take it down, or tell what it is.",
)

StepsOption = Annotated[
    int | None,
    typer.Option("--steps", metavar="N", min=1, help="How many migrations to undo; 1 by default."),
]
AllOption = Annotated[
    bool, typer.Option("--all", help="Undo every migration: no table and no row remains.")
]
LockTimeoutOption = Annotated[
    float,
    typer.Option(
        "--lock-timeout",
        metavar="SECONDS",
        min=0,
        help="How long to wait for a lock that another process holds.",
    ),
]
_LOCK_TIMEOUT = 30.0


@app.command()
def up(
    *,
    to: Annotated[
        int | None,
        typer.Option("--to", metavar="VERSION", help="Apply up to this version only."),
    ] = None,
    lock_timeout: LockTimeoutOption = _LOCK_TIMEOUT,
    dsn: DsnOption = None,
    data_dir: DataDirOption = None,
    output: OutputOption = Output.TEXT,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    no_color: NoColorOption = False,
    debug: DebugOption = False,
) -> None:
    """Apply the migrations that the database does not have yet.

    Each runs in a transaction of its own: one that fails, or is killed, leaves the schema as it
    was before it.
    """
    from tapes_cli.store.postgres import migrations  # noqa: PLC0415  # keeps start-up fast

    del no_color, debug
    report = _Report(output, quiet=quiet)
    with open_database(dsn, data_dir, quiet=quiet) as (address, _):
        _say_where(address, quiet=quiet or not verbose)
        options = migrations.MigrationOptions(
            lock_timeout=lock_timeout, announce=lambda step: report.took(step, Direction.UP)
        )
        migrations.migrate_up(address, to, options=options)
        after = migrations.status(address)
    if not report.records:
        say("Nothing to do: " + _at(after.current), quiet=quiet)
    report.finish("migrate up", {"current": after.current})


@app.command()
def down(
    *,
    steps: StepsOption = None,
    to: Annotated[
        int | None,
        typer.Option("--to", metavar="VERSION", help="Undo what is newer than this version."),
    ] = None,
    everything: AllOption = False,
    yes: YesOption = False,
    lock_timeout: LockTimeoutOption = _LOCK_TIMEOUT,
    dsn: DsnOption = None,
    data_dir: DataDirOption = None,
    output: OutputOption = Output.TEXT,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    no_color: NoColorOption = False,
    debug: DebugOption = False,
) -> None:
    """Undo migrations, after counting what will be lost and asking."""
    from tapes_cli.store.postgres import migrations  # noqa: PLC0415  # keeps start-up fast

    del verbose, no_color, debug
    target = _one_target(steps, to, everything=everything)
    report = _Report(output, quiet=quiet)
    with open_database(dsn, data_dir, quiet=quiet) as (address, _):
        plan = _agree(address, steps, target, yes=yes, quiet=quiet)
        options = migrations.MigrationOptions(
            lock_timeout=lock_timeout, announce=lambda step: report.took(step, Direction.DOWN)
        )
        if plan.steps:
            migrations.migrate_down(address, to=plan.target, expected=plan.current, options=options)
    report.finish("migrate down", {"current": plan.target or None, "plan": _plan_json(plan)})


@app.command()
def redo(
    *,
    yes: YesOption = False,
    lock_timeout: LockTimeoutOption = _LOCK_TIMEOUT,
    dsn: DsnOption = None,
    data_dir: DataDirOption = None,
    output: OutputOption = Output.TEXT,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    no_color: NoColorOption = False,
    debug: DebugOption = False,
) -> None:
    """Undo the newest migration and apply it again, after counting what will be lost."""
    from tapes_cli.store.postgres import migrations  # noqa: PLC0415  # keeps start-up fast

    del verbose, no_color, debug
    report = _Report(output, quiet=quiet)
    with open_database(dsn, data_dir, quiet=quiet) as (address, _):
        plan = _agree(address, 1, None, yes=yes, quiet=quiet)
        if plan.steps:
            options = migrations.MigrationOptions(
                lock_timeout=lock_timeout, announce=lambda step: report.took(step, Direction.DOWN)
            )
            migrations.migrate_down(address, to=plan.target, expected=plan.current, options=options)
            options = dataclasses.replace(
                options, announce=lambda step: report.took(step, Direction.UP)
            )
            migrations.migrate_up(address, plan.current, options=options)
    report.finish("migrate redo", {"current": plan.current, "plan": _plan_json(plan)})


@app.command()
def status(
    *,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="End with 1 unless the schema is current.")
    ] = False,
    dsn: DsnOption = None,
    data_dir: DataDirOption = None,
    output: OutputOption = Output.TEXT,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    no_color: NoColorOption = False,
    debug: DebugOption = False,
) -> None:
    """Tell which migrations the database has. Changes nothing."""
    from tapes_cli.store.postgres import migrations  # noqa: PLC0415  # keeps start-up fast

    del verbose, no_color, debug
    with open_database(dsn, data_dir, quiet=quiet) as (address, _):
        _say_where(address, quiet=quiet)
        found = migrations.status(address)
    code = int(exit_code and found.state is not migrations.SchemaState.CURRENT)
    report = _Report(output, quiet=quiet)
    for known in found.migrations:
        line = f"{'applied' if known.applied else 'pending'}  {known.migration}"
        report.add(_step_json(known.migration, applied=known.applied), line)
    report.say(found.sentence)
    say(found.hint, quiet=quiet or not found.hint)
    summary = {"current": found.current, "dirty": found.dirty, "state": found.state.value}
    report.finish("migrate status", summary, code)
    raise typer.Exit(code)


@app.command()
def sql(
    *,
    direction: Annotated[
        Direction, typer.Argument(help="What to print: what `up` or what `down` would run.")
    ] = Direction.UP,
    steps: StepsOption = None,
    to: Annotated[
        int | None,
        typer.Option(
            "--to", metavar="VERSION", help="The version that is to remain or be reached."
        ),
    ] = None,
    everything: AllOption = False,
    dsn: DsnOption = None,
    data_dir: DataDirOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    no_color: NoColorOption = False,
    debug: DebugOption = False,
) -> None:
    """Print the SQL that would run on this database. Changes nothing.

    For a database whose owner applies migrations by hand: psql --set ON_ERROR_STOP=1 runs it.
    """
    from tapes_cli.store.postgres import migrations  # noqa: PLC0415  # keeps start-up fast

    del verbose, no_color, debug
    target = _one_target(steps, to, everything=everything)
    with open_database(dsn, data_dir, quiet=quiet) as (address, _):
        found = migrations.status(address)
    remaining: int | None = None
    if direction is Direction.DOWN:
        remaining = migrations.resolve_target(found, steps, target)
        chosen = [step for step in reversed(found.applied) if step.version > remaining]
    else:
        if steps is not None or everything:
            raise UsageError("--steps and --all are for `sql down`.")
        chosen = migrations.resolve_pending(found, to)
    if not chosen:
        say("Nothing to do: " + _at(found.current), quiet=quiet)
        return
    write_line(script(chosen, direction, remaining or None).rstrip("\n"))


class _Report:
    """What was done, written as it happens where the form of the results allows it."""

    def __init__(self, output: Output, *, quiet: bool) -> None:
        self.output = output
        self.quiet = quiet
        self.records: list[dict[str, Any]] = []

    def took(self, step: Migration, direction: Direction) -> None:
        """Report a step that was committed."""
        self.add(_step_json(step, direction=direction.value), f"{direction.value:<6}{step}")

    def add(self, record: dict[str, Any], line: str) -> None:
        """Report one record: as a line of text, of JSON, or later as part of a document."""
        self.records.append(record)
        if self.output is Output.JSONL:
            write_json(record)
        else:
            self.say(line)

    def say(self, line: str) -> None:
        """Write a line of text, where text is wanted."""
        if self.output is Output.TEXT and not self.quiet:
            write_line(visible(line))

    def finish(self, command: str, facts: dict[str, Any], exit_code: int = 0) -> None:
        """Write the summary, where JSON is wanted."""
        summary = {"type": "summary", "command": command, "exit_code": exit_code, **facts}
        if self.output is Output.JSON:
            write_document(self.records, summary)
        elif self.output is Output.JSONL:
            write_json(summary)


def _one_target(steps: int | None, to: int | None, *, everything: bool) -> int | None:
    if sum((steps is not None, to is not None, everything)) > 1:
        raise UsageError("Give one of --steps, --to and --all.")
    return 0 if everything else to


def _agree(
    address: str, steps: int | None, target: int | None, *, yes: bool, quiet: bool
) -> "DownPlan":
    """Count what will be lost, show it, and ask."""
    from tapes_cli.store.postgres.connect import connect, describe  # noqa: PLC0415  # fast start-up
    from tapes_cli.store.postgres.migration_plan import plan_down  # noqa: PLC0415  # fast start-up

    with connect(address) as conn:
        plan = plan_down(conn, target, steps=steps)
    if not plan.steps:
        say("Nothing to do: " + _at(plan.current), quiet=quiet)
        return plan
    # Whoever is to say yes must have seen what it means.
    quiet = quiet and yes
    say(f"This will undo in {describe(address)}:", quiet=quiet)
    for step in plan.steps:
        say(f"  {step}", quiet=quiet)
    for line in plan_lines(plan):
        say(line, quiet=quiet)
    if not plan.possible:
        raise SchemaError(
            "The older schema cannot hold what is stored.", hint="Nothing was changed."
        )
    confirm("Undo it?", yes=yes)
    return plan


def plan_lines(plan: "DownPlan") -> Sequence[str]:
    """Say what a plan means for the rows, one line a fact."""
    facts = [
        (plan.sessions, "{} sessions are lost"),
        (plan.shared_hashes, "{} hashes are held by several orgs; of each one row remains"),
        (plan.nodes_collapsed, "{} nodes are lost by that"),
        (plan.dangling_parents, "{} nodes lose the reference to a parent that is not stored"),
        (plan.nodes_unattributed, "{} nodes forget the org or the session they belong to"),
        (plan.turns, "{} turns forget when they were captured and which session counts them"),
        (plan.turns_unmarked, "{} of these turns cannot be told from history afterwards"),
        (plan.costs_rounded, "{} sessions keep their cost to four decimals only"),
        (plan.costs_too_large, "{} sessions cost more than the older column holds: not possible"),
        (plan.captures, "{} captures will be read from their beginning by the next import"),
        (plan.values_too_long, "{} rows are too long for an older index: not possible"),
        (plan.session_ids_shared, "{} session ids are used by several orgs: not possible"),
    ]
    if plan.nodes_dropped:
        nodes = plan.nodes_dropped + plan.nodes_collapsed
        facts[1:8] = [(nodes, "{} nodes are lost: every message that is stored")]
    lines = [f"  {text.format(f'{count:,}')}" for count, text in facts if count]
    return ["What will be lost:", *lines] if lines else ["Nothing that is stored will be lost."]


def _plan_json(plan: "DownPlan") -> dict[str, Any]:
    facts = dataclasses.asdict(plan)
    facts["target"] = plan.target or None
    facts["steps"] = [step.version for step in plan.steps]
    facts["lossless"] = plan.lossless
    return facts


def _step_json(step: Migration, **facts: Any) -> dict[str, Any]:
    return {"type": "migration", "version": step.version, "name": step.name, **facts}


def _say_where(address: str, *, quiet: bool) -> None:
    from tapes_cli.store.postgres.connect import describe  # noqa: PLC0415  # keeps start-up fast

    say(f"This is {describe(address)}.", quiet=quiet)


def _at(version: int | None) -> str:
    return "there is no schema." if version is None else f"the schema is at version {version}."
