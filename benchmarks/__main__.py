"""`python -m benchmarks [--dsn DSN]`: the table of `benchmarks/README.md`, measured anew."""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
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
from benchmarks.shapes import SHAPES, Shape, write
from tapes_cli.store.embedded import EmbeddedServer
from tapes_cli.store.postgres.migrations import migrate_up

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_COMMAND = str(Path(sysconfig.get_path("scripts")) / "tapes-cli")
_DATABASE = "tapes_benchmark"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. Seconds of wall time; megabytes of resident memory."""

    name: str
    seconds: float
    floor: float
    turns: int
    megabytes: float


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print a table in Markdown."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--dsn", help="a server on which a database can be created")
    parser.add_argument("--runs", type=int, default=3, help="take the median of so many runs")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="tapes-bench-") as folder:
        base = Path(folder)
        base.chmod(0o711)
        with _server(chosen.dsn, base) as dsn:
            shapes = SHAPES.values()
            rows = [row for shape in shapes for row in measure(shape, base, dsn, chosen.runs)]
            print_table(rows, dsn)


@contextmanager
def _server(dsn: str | None, base: Path) -> Iterator[str]:
    if dsn:
        yield dsn
        return
    with EmbeddedServer(base / "data").attach() as attached:
        yield attached.dsn


def measure(shape: Shape, base: Path, dsn: str, runs: int) -> list[Row]:
    """Measure one shape into an empty database, and again into the filled one."""
    capture = base / f"{shape.name}.jsonl"
    write(shape, capture)
    first, again, floors, memory = [], [], [], []
    for _ in range(runs):
        database = _fresh_database(dsn)
        floors.append(floor.seconds(database, capture))
        taken, peak = _import(database, capture)
        first.append(taken)
        memory.append(peak)
        again.append(_import(database, capture)[0])
    capture.unlink()
    turns, least = shape.sessions * shape.turns, median(floors)
    return [
        Row(shape.name, median(first), least, turns, max(memory)),
        Row(f"{shape.name} again", median(again), least, turns, max(memory)),
    ]


def _import(dsn: str, capture: Path) -> tuple[float, float]:
    started = time.perf_counter()
    # What `ru_maxrss` of the children says is the largest so far: a process of its own for each.
    script = (
        "import resource, subprocess, sys;"
        "done = subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    command = [sys.executable, "-c", script, _COMMAND, "import", "-q", "--dsn", dsn, str(capture)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603  # ours
    return time.perf_counter() - started, int(done.stdout) / 1024


def _fresh_database(dsn: str) -> str:
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(f"DROP DATABASE IF EXISTS {_DATABASE} WITH (FORCE)".encode())
        conn.execute(f"CREATE DATABASE {_DATABASE}".encode())
    made = psycopg.conninfo.make_conninfo(dsn, dbname=_DATABASE)
    migrate_up(made)
    with psycopg.connect(made, autocommit=True) as conn:
        conn.execute("CHECKPOINT")
    return made


def print_table(rows: Sequence[Row], dsn: str) -> None:
    """Print what was measured, and on what."""
    with psycopg.connect(dsn) as conn:
        version: tuple[Any, ...] | None = conn.execute("SHOW server_version").fetchone()
    machine = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    print(f"{machine}, PostgreSQL {version[0] if version else '?'}\n")
    print("| shape | turns | wall time | floor | ratio | turns/s | peak memory |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row.name} | {row.turns:,} | {row.seconds:.2f} s | {row.floor:.2f} s "
            f"| {row.seconds / row.floor:.2f} | {row.turns / row.seconds:,.0f} "
            f"| {row.megabytes:.0f} MB |"
        )


if __name__ == "__main__":
    main()
