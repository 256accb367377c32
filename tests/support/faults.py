"""Failures that are real: a server that is killed, a connection that is cut, a run that is stopped.

Nothing here pretends. The server is a PostgreSQL of its own, the importer is the installed command
in a process of its own, and what stands between them passes bytes on.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import psycopg
import pytest

from tapes_cli.store.embedded import EmbeddedServer
from tapes_cli.store.postgres.migrations import migrate_up
from tests.support.captures import line, record
from tests.support.command import COMMAND, Result, environment
from tests.support.turns import rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

Rows: TypeAlias = "dict[str, list[dict[str, Any]]]"

PATIENCE = 60.0
"""Seconds after which something that should happen has not."""

SOCKET = ".s.PGSQL.5432"
_UNIMPRESSED = "-c statement_timeout=0 -c default_transaction_read_only=off"
"""For connections that go on working when a server is told not to."""
AS_ROOT = os.geteuid() == 0

_numbers = count(1)


def setting(name: str, default: int) -> int:
    """Return a number from the environment, by which the tests are made longer."""
    return int(os.environ.get(name) or default)


def chance(*what: object) -> Random:
    """Return a source of randomness that is the same each time, unless TAPES_FAULT_SEED differs."""
    return Random(f"{setting('TAPES_FAULT_SEED', 0)} {what}")


def eventually(condition: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"never came: {what}"
        time.sleep(0.005)


# --- captures ------------------------------------------------------------------------------------


def turn(session: int, number: int, **changes: Any) -> dict[str, Any]:
    """Return a turn of a session that re-sends its whole history. All of it is dated."""
    said = [f"session {session}, message {i}: {i * 7919 % 1009}" for i in range(2 * number + 2)]
    messages = [
        {"role": ("user", "assistant")[i % 2], "content": words} for i, words in enumerate(said)
    ]
    envelope = {
        "harness_id": "claude",
        "harness_session_id": f"s{session}",
        "parent_harness_session_id": f"s{session + 1}",
        "name": f"after turn {number}",
    }
    captured = {"captured_at": f"2026-03-{1 + number // 24:02}T{number % 24:02}:{session:02}:00Z"}
    request = {"model": "m", "messages": messages[:-1]}
    return record(answer=said[-1], request=request, session=envelope, meta=captured) | changes


def turns_of(sessions: int, turns: int, first: int = 0) -> list[str]:
    """Return the lines of sessions that grow side by side."""
    return [line(turn(s, t)) for t in range(first, first + turns) for s in range(sessions)]


@dataclass(frozen=True, slots=True)
class Corpus:
    """A folder of captures.

    Attributes:
        folder: where.
        turns: how many turns are in it.
        bad: the places of lines that are none, as file name and line.
    """

    folder: Path
    turns: int
    bad: frozenset[tuple[str, int]]


_BAD = ("{oops\n", line(turn(1, 3, provider="nobody")), line({"turns": []}), "[1]\n")


def write_corpus(folder: Path, lines: Sequence[str], files: int = 6, bad: int = 0) -> Corpus:
    """Write captures to several files, one of them compressed, with bad lines sprinkled over."""
    folder.mkdir()
    where = chance(folder.name, bad)
    mixed = list(lines)
    for number in range(bad):
        mixed.insert(where.randrange(len(mixed) + 1), _BAD[number % len(_BAD)])
    places: set[tuple[str, int]] = set()
    each = -(-len(mixed) // files)
    for number in range(files):
        part = mixed[number * each : (number + 1) * each]
        path = folder / f"{number:02}.jsonl"
        if number == 1:
            path = path.with_suffix(".jsonl.gz")
            path.write_bytes(gzip.compress("".join(part).encode(), 1))
        else:
            path.write_text("".join(part))
        places |= {(path.name, i) for i, text in enumerate(part, 1) if text in _BAD}
    return Corpus(folder, len(lines), frozenset(places))


def places_of(records: Sequence[dict[str, Any]]) -> set[tuple[str, int]]:
    """Return the places of rejects, as `Corpus.bad` has them."""
    return {(Path(r["source"]).name, r["line"]) for r in records}


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
        return found / SOCKET

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


# --- what stands between -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Cut:
    """When and how a connection ends.

    Attributes:
        after: bytes that pass in both directions together; the next piece passes in part.
        deaf: whether requests go on to the server for a while when answers do not come back any
            more: what it commits then, nobody hears of.
    """

    after: int
    deaf: bool = False


class Proxy:
    """Passes bytes between importers and a server, until it is time to cut a connection.

    Attributes:
        target: the socket of the server; may change, and holds for the next connections.
        plan: says by its number when a connection is cut; None lets it be.
        cuts: how many were cut.
    """

    def __init__(self, folder: Path, target: Path) -> None:
        folder.mkdir()
        self.target = target
        self.plan: Callable[[int], Cut | None] = lambda _number: None
        self.cuts = 0
        self._folder = folder
        self._connections = count()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / SOCKET))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def dsn(self, dsn: str) -> str:
        """Return the DSN that leads to the same database through the proxy."""
        return f"host={self._folder} port=5432 user=postgres dbname={dsn.rpartition('/')[2]}"

    def close(self) -> None:
        """Take no more connections."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            cut = self.plan(next(self._connections))
            try:
                server.connect(str(self.target))
            except OSError:
                server.close()
                client.close()
                continue
            link = _Link(self, client, server, cut)
            threading.Thread(target=link.pass_requests, daemon=True).start()
            threading.Thread(target=link.pass_answers, daemon=True).start()


@dataclass(slots=True)
class _Link:
    """One connection through the proxy."""

    proxy: Proxy
    client: socket.socket
    server: socket.socket
    cut: Cut | None
    passed: int = 0
    is_cut: bool = False
    ended: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def pass_requests(self) -> None:
        self._pass(self.client, self.server, answers=False)

    def pass_answers(self) -> None:
        self._pass(self.server, self.client, answers=True)

    def _pass(self, source: socket.socket, goal: socket.socket, *, answers: bool) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                goal.sendall(self._allowed(data, answers=answers))
                if self.is_cut and not (self.cut and self.cut.deaf):
                    break
        self._end()

    def _allowed(self, data: bytes, *, answers: bool) -> bytes:
        """Return what is passed on of a piece, counting it."""
        if self.cut is None:
            return data
        with self.lock:
            left = max(self.cut.after - self.passed, 0)
            self.passed += len(data)
            if left >= len(data):
                return data
            if not self.is_cut:
                self.is_cut = True
                self.proxy.cuts += 1
                if self.cut.deaf:
                    threading.Timer(0.1, self._hang_up).start()
        return data if self.cut.deaf and not answers else data[:left]

    def _end(self) -> None:
        self._hang_up()
        with self.lock:
            self.ended += 1
            if self.ended == len((self.client, self.server)):
                self.client.close()
                self.server.close()

    def _hang_up(self) -> None:
        for each in (self.client, self.server):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


@contextmanager
def proxied(folder: Path, target: Path) -> Iterator[Proxy]:
    """Give a proxy."""
    with closing(Proxy(folder, target)) as proxy:
        yield proxy


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

    Without coverage, whose tracer holds a lock that lets no signal handler in again.
    """

    def __init__(
        self, dsn: str, *arguments: str | Path, stdin: bool = False, user: int | None = None
    ) -> None:
        self.began = time.monotonic()
        self._dsn = dsn
        self._out = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the run
        self._err = tempfile.TemporaryFile()  # noqa: SIM115  # as above
        command = [str(COMMAND), "import", "--dsn", dsn, "-o", "jsonl", *map(str, arguments)]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=self._out,
            stderr=self._err,
            env={k: v for k, v in environment().items() if "COVERAGE" not in k},
            start_new_session=True,
            user=user,
            extra_groups=None if user is None else [],
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


def run_import(dsn: str, *arguments: str | Path, user: int | None = None) -> Result:
    """Import, and return what was said. Without coverage, as `Run`."""
    with Run(dsn, *arguments, user=user) as run:
        return run.result(120.0)


def adds_up(result: Result) -> None:
    """Check the accounts of a run."""
    records = dict(result.summary["records"])
    assert records.pop("read") == sum(records.values())


def stored(result: Result) -> int:
    """Return how many turns a run has reported as stored."""
    return int(result.summary["records"]["stored"])


def remove(path: Path) -> None:
    """Remove a folder with all in it."""
    shutil.rmtree(path, ignore_errors=True)


def lines_of(path: Path) -> list[Any]:
    """Return the JSON of each line of a file."""
    return [json.loads(text) for text in path.read_text().splitlines()]
