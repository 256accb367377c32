"""Failures that are real: a server that is killed, a connection that is cut, a run that is stopped.

Nothing here pretends. The server is a PostgreSQL of its own, the importer is the installed command
in a process of its own, and what stands between them passes bytes on.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import psycopg
import pytest

from tapes_cli.store.embedded import EmbeddedServer
from tapes_cli.store.embedded.cluster import SOCKET_NAME
from tapes_cli.store.postgres.migrations import migrate_up
from tests.support.command import COMMAND, Result, environment
from tests.support.importing import import_here
from tests.support.turns import rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

Rows: TypeAlias = "dict[str, list[dict[str, Any]]]"

PATIENCE = 60.0
"""Seconds after which something that should happen has not."""

_UNIMPRESSED = "-c statement_timeout=0 -c default_transaction_read_only=off"
"""For connections that go on working when a server is told not to."""

_numbers = count(1)


def eventually(condition: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"never came: {what}"
        time.sleep(0.005)


# --- the database --------------------------------------------------------------------------------


def rows_of(dsn: str) -> Rows:
    """Return what is stored, made comparable."""
    with psycopg.connect(dsn) as conn:
        return rows(conn)


def query(dsn: str, statement: str, *values: object) -> list[tuple[Any, ...]]:
    """Run one statement and return its rows, if it has any."""
    with psycopg.connect(dsn, autocommit=True, options=_UNIMPRESSED) as conn:
        cursor = conn.execute(statement.encode(), values or None)
        return cursor.fetchall() if cursor.description else []


def landed(dsn: str) -> int:
    """Return how many turns are stored."""
    return int(query(dsn, "SELECT count(*) FROM nodes WHERE landings = 1")[0][0])


def missing(dsn: str, told: Result) -> list[str]:
    """Return the turns that were reported as stored and are not."""
    heads = [r["chain"][-1] for r in told.records if r.get("outcome") == "stored"]
    found = query(dsn, "SELECT hash FROM nodes WHERE landings = 1 AND hash = ANY (%s)", heads)
    return sorted(set(heads) - {row[0] for row in found})


class Server:
    """A PostgreSQL of its own, which may be made to fail.

    Attributes:
        dsn: of a database to administer it with.
    """

    def __init__(self, folder: Path, **settings: str) -> None:
        self._server = EmbeddedServer(folder, settings=settings)
        self.dsn = self._server.start()
        migrate_up(self.dsn)

    @property
    def socket(self) -> Path:
        """Where it listens."""
        found = self._server.status().socket_dir
        assert found is not None
        return found / SOCKET_NAME

    @property
    def data(self) -> Path:
        """Its data directory."""
        return self._server.data_dir / "postgres" / "data"

    @property
    def log(self) -> str:
        """All that it has said."""
        return self._server.status().log.read_text(errors="replace")

    @property
    def runs(self) -> bool:
        """Whether it does."""
        return self._server.status().running

    def start(self) -> None:
        """Start it, if it does not run."""
        self._server.start()

    def kill(self) -> None:
        """End it as a power failure would: all of its processes at once."""
        pid = self._server.status().pid
        assert pid is not None
        everybody = [pid, *children(pid)]
        for each in everybody:
            with suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)
        eventually(lambda: not self.runs, "the end of the server")

    def stop(self) -> None:
        """End it in good order: it undoes what is in flight, and breaks all connections."""
        self._server.stop(force=True)

    def restart(self) -> None:
        """End it in good order, and start it again."""
        self.stop()
        self.start()

    def run(self, statement: str) -> list[tuple[Any, ...]]:
        """Run one statement in the database `postgres`."""
        return query(self.dsn.rpartition("/")[0] + "/postgres", statement)

    def configure(self, **parameters: str | None) -> None:
        """Change settings of the running server; None takes a change back."""
        for name, value in parameters.items():
            change = f"RESET {name}" if value is None else f"SET {name} = '{value}'"
            self.run(f"ALTER SYSTEM {change}")
        self.run("SELECT pg_reload_conf()")

    @contextmanager
    def database(self, *, tablespace: str = "", template: str = "tapes") -> Iterator[str]:
        """Give the DSN of a new database with the whole schema, or none (`template0`)."""
        name = f"test_{next(_numbers)}"
        place = f" TABLESPACE {tablespace}" if tablespace else ""
        self.run(f"CREATE DATABASE {name} TEMPLATE {template}{place}")
        yield f"{self.dsn.rpartition('/')[0]}/{name}"
        self.start()
        self.run(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def swap(self, one: str, other: str) -> None:
        """Let two databases change places, as the server behind a name changes in a failover."""
        first, second = (dsn.rpartition("/")[2] for dsn in (one, other))
        for dsn in (one, other):
            self.cut_all(dsn)
        for old, new in ((first, "aside"), (second, first), ("aside", second)):
            self.run(f"ALTER DATABASE {old} RENAME TO {new}")

    def cut_all(self, dsn: str) -> int:
        """Let the server end all connections of imports to a database; return how many."""
        name = dsn.rpartition("/")[2]
        found = self.run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            f"WHERE application_name = 'tapes-cli' AND datname = '{name}'"
        )
        return len(found)


@contextmanager
def small_disk(path: Path, size: str) -> Iterator[Path]:
    """Give a file system of its own, of a size that is soon used up. Skips where nobody may."""
    path.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0755", "tmpfs", path],
        capture_output=True,
        check=False,
    )
    if done.returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)


def fill(disk: Path, leaving: int = 0) -> Path:
    """Use up a disk but for some bytes; return the file that does."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(1 << 16))
    used = ballast.stat().st_size
    os.truncate(ballast, max(used - leaving, 0))
    return ballast


# --- the importer --------------------------------------------------------------------------------


def children(pid: int) -> list[int]:
    """Return the processes that a process has started and that live."""
    found: list[int] = []
    with suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (thread / "children").read_text().split())
    return found


class Run:
    """An import in a process group of its own. Ends, at the latest, with the `with` block.

    Without coverage, whose tracer holds a lock that lets no signal handler in again. `before` is
    a command that starts the command.
    """

    def __init__(
        self, dsn: str, *arguments: str | Path, stdin: bool = False, before: Sequence[str] = ()
    ) -> None:
        self.began = time.monotonic()
        self._dsn = dsn
        self._out = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the run
        self._err = tempfile.TemporaryFile()  # noqa: SIM115  # as above
        command = [
            *before,
            str(COMMAND),
            "import",
            "--dsn",
            dsn,
            "-o",
            "jsonl",
            *map(str, arguments),
        ]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=self._out,
            stderr=self._err,
            env={k: v for k, v in environment().items() if "COVERAGE" not in k},
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self.process.wait()
        if self.process.stdin:
            with suppress(BrokenPipeError):
                self.process.stdin.close()
        self._out.close()
        self._err.close()

    @property
    def pid(self) -> int:
        """The process that was started."""
        return self.process.pid

    @property
    def workers(self) -> list[int]:
        """The processes of its workers."""
        return children(self.pid)

    def lives(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    @property
    def told(self) -> str:
        """What it has said on stderr so far."""
        return os.pread(self._err.fileno(), 1 << 24, 0).decode()

    def feed(self, lines: Sequence[str]) -> None:
        """Write to its stdin."""
        assert self.process.stdin is not None
        self.process.stdin.write("".join(lines).encode())
        self.process.stdin.flush()

    def end_feed(self) -> None:
        """Close its stdin."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def wait_for_turns(self, least: int) -> None:
        """Wait until so many turns are stored."""
        with psycopg.connect(self._dsn, autocommit=True) as conn:

            def enough() -> bool:
                row = conn.execute("SELECT count(*) FROM nodes WHERE landings = 1").fetchone()
                assert self.lives() or (row and row[0] >= least), self.told
                return row is not None and row[0] >= least

            eventually(enough, f"{least} turns")

    def wait_for_lease(self) -> None:
        """Wait until it holds the lease."""
        holder = "SELECT pid FROM import_leases"
        with psycopg.connect(self._dsn, autocommit=True) as conn:
            eventually(
                lambda: conn.execute(holder).fetchone() == (self.pid,) or not self.lives(),
                "the lease",
            )

    def send(self, number: int) -> None:
        """Send a signal to the process that was started alone."""
        self.process.send_signal(number)

    def send_all(self, number: int) -> None:
        """Send a signal to it and its workers, as a terminal does."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def kill(self) -> None:
        """End all of it at once."""
        self.send_all(signal.SIGKILL)

    def result(self, seconds: float = PATIENCE) -> Result:
        """Wait for the end; return what it said."""
        status = self.process.wait(timeout=seconds)
        out = os.pread(self._out.fileno(), 1 << 28, 0).decode()
        return Result(status, out, self.told)


def run_import(dsn: str, *arguments: str | Path, before: Sequence[str] = ()) -> Result:
    """Import, and return what was said. Without coverage, as `Run`."""
    with Run(dsn, *arguments, before=before) as run:
        return run.result(120.0)


def completes(dsn: str, captures: Path, expected: Rows, exit_code: int = 0) -> None:
    """Import what is left, at once and in this process, and check that nothing is missing."""
    report = import_here(dsn, [captures]).report
    assert report.exit_code == exit_code, report.failure
    assert rows_of(dsn) == expected


def adds_up(result: Result) -> None:
    """Check the accounts of a run."""
    records = dict(result.summary["records"])
    assert records.pop("read") == sum(records.values())


def stored(result: Result) -> int:
    """Return how many turns a run has reported as stored."""
    return int(result.summary["records"]["stored"])


def lines_of(path: Path) -> list[Any]:
    """Return the JSON of each line of a file."""
    return [json.loads(text) for text in path.read_text().splitlines()]
