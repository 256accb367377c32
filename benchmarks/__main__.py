"""`python -m benchmarks [--dsn DSN]`: the table of `benchmarks/README.md`, measured anew."""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sysconfig
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import psycopg

from benchmarks import floor
from benchmarks.memory import peak_megabytes
from benchmarks.shapes import LINEAR, SHAPES, WIDE, Shape, write
from tapes_cli.store.embedded import EmbeddedServer
from tapes_cli.store.postgres.migrations import migrate_up

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_COMMAND = str(Path(sysconfig.get_path("scripts")) / "tapes-cli")
_DATABASE = "tapes_benchmark"
_STARTS = 9


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. Seconds of wall time; megabytes of memory, 0 where not looked at."""

    name: str
    seconds: float
    floor: float
    turns: int
    megabytes: float = 0


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print tables in Markdown."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--dsn", help="a server on which a database can be created")
    parser.add_argument("--runs", type=int, default=3, help="take the median of so many runs")
    parser.add_argument("--workers", type=int, help="as `tapes-cli import --workers`")
    parser.add_argument("--only", choices=[s.name for s in (*SHAPES, WIDE)], help="one shape only")
    chosen = parser.parse_args(arguments)
    options = [] if chosen.workers is None else ["--workers", str(chosen.workers)]
    with tempfile.TemporaryDirectory(prefix="tapes-bench-") as folder:
        base = Path(folder)
        base.chmod(0o711)
        with _server(chosen.dsn, base) as dsn:
            bench = Bench(base, dsn, chosen.runs, options)
            print_machine(dsn)
            shapes = [s for s in (*SHAPES, WIDE) if s.name == chosen.only] or SHAPES
            print_table([row for shape in shapes for row in bench.compare(shape)])
            if chosen.only is None:
                print_lengths([bench.alone(shape) for shape in LINEAR])
                print_starts(bench)


@contextmanager
def _server(dsn: str | None, base: Path) -> Iterator[str]:
    if dsn:
        yield dsn
        return
    with EmbeddedServer(base / "data").attach() as attached:
        yield attached.dsn


@dataclass(frozen=True, slots=True)
class Bench:
    """Measures in a folder for captures, on a server, so many times, with options of import."""

    base: Path
    dsn: str
    runs: int
    options: list[str]

    def compare(self, shape: Shape) -> list[Row]:
        """Measure a shape: into an empty database, again into the filled one, and the floor."""
        with self._capture(shape) as capture:
            first, again, floors = [], [], []
            for _ in range(self.runs):
                database = _fresh_database(self.dsn)
                floors.append(floor.seconds(database, capture))
                first.append(_timed(self._import(database, capture)))
                again.append(_timed(self._import(database, capture)))
            database = _fresh_database(self.dsn)
            memory = [peak_megabytes(self._import(database, capture)) for _ in range(2)]
        least, turns = median(floors), shape.all_turns
        return [
            Row(shape.name, median(first), least, turns, memory[0]),
            Row(f"{shape.name}, again", median(again), least, turns, memory[1]),
        ]

    def alone(self, shape: Shape) -> Row:
        """Measure a shape into an empty database."""
        with self._capture(shape) as capture:
            taken = [
                _timed(self._import(_fresh_database(self.dsn), capture)) for _ in range(self.runs)
            ]
        return Row(shape.name, median(taken), 0, shape.all_turns)

    def one_turn(self) -> float:
        """Return how many seconds it takes to pipe one new turn into a running server."""
        command = [_COMMAND, "import", "-q", "--dsn", _fresh_database(self.dsn)]
        taken = []
        for number in range(_STARTS):
            with self._capture(Shape(f"one {number}", 1, 1, 1)) as capture:
                taken.append(_timed(command, capture))
        return median(taken)

    def help(self) -> float:
        """Return how many seconds `--help` takes."""
        return median(_timed([_COMMAND, "--help"]) for _ in range(_STARTS))

    @contextmanager
    def _capture(self, shape: Shape) -> Iterator[Path]:
        capture = self.base / "capture.jsonl"
        write(shape, capture)
        yield capture
        capture.unlink()

    def _import(self, dsn: str, capture: Path) -> list[str]:
        return [_COMMAND, "import", "-q", "--reread", "--dsn", dsn, *self.options, str(capture)]


def _timed(command: list[str], stdin: Path = Path(os.devnull)) -> float:
    with stdin.open("rb") as read:
        started = time.perf_counter()
        subprocess.run(command, check=True, stdin=read, stdout=subprocess.DEVNULL)  # noqa: S603  # ours
        return time.perf_counter() - started


def _fresh_database(dsn: str) -> str:
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(f"DROP DATABASE IF EXISTS {_DATABASE} WITH (FORCE)".encode())
        conn.execute(f"CREATE DATABASE {_DATABASE}".encode())
    made = psycopg.conninfo.make_conninfo(dsn, dbname=_DATABASE)
    migrate_up(made)
    with psycopg.connect(made, autocommit=True) as conn:
        conn.execute("CHECKPOINT")
    return made


def print_machine(dsn: str) -> None:
    """Print on what is measured."""
    with psycopg.connect(dsn) as conn:
        version: tuple[Any, ...] | None = conn.execute("SHOW server_version").fetchone()
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors"
    server = version[0] if version else "?"
    print(f"{machine}, Python {platform.python_version()}, PostgreSQL {server}")


def print_table(rows: Sequence[Row]) -> None:
    """Print how long the shapes take, in seconds and in floors."""
    print("\n| shape | turns | wall time | floor | ratio | turns/s | peak memory |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row.name} | {row.turns:,} | {row.seconds:.2f} s | {row.floor:.2f} s "
            f"| {row.seconds / row.floor:.2f} | {row.turns / row.seconds:,.0f} "
            f"| {row.megabytes:.0f} MB |"
        )


def print_lengths(rows: Sequence[Row]) -> None:
    """Print what becomes of the time when sessions of as many turns in all are longer."""
    print("\n| turns of a session | a turn | a session of twice the turns takes |")
    print("|---|---|---|")
    for row, longer in zip(rows, [*rows[1:], None], strict=True):
        times = f"{2 * longer.seconds / row.seconds:.2f} times as long" if longer else ""
        print(f"| {row.name} | {row.seconds / row.turns * 1000:.3f} ms | {times} |")


def print_starts(bench: Bench) -> None:
    """Print how long the shortest runs take."""
    print(f"\n`tapes-cli --help`: {bench.help():.2f} s")
    print(f"one turn through a pipe into a running server: {bench.one_turn():.2f} s")


if __name__ == "__main__":
    main()
