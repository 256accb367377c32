"""The running server: started, waited for as long as it lives, stopped."""

from __future__ import annotations

import os
import re
import signal
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote_from_bytes

import psycopg
from psycopg import pq

from tapes_cli.errors import DatabaseUnavailableError
from tapes_cli.store.embedded.accounts import Account, launch
from tapes_cli.store.embedded.cluster import (
    PRIVATE_SOCKET_PARENT,
    PRIVATE_SOCKET_PREFIX,
    SOCKET_NAME,
    Postmaster,
    last_lines,
    read_postmaster,
    remove_socket,
    serves,
)
from tapes_cli.store.embedded.locks import Announce, FileLock, News, is_held, pauses

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping

    from tapes_cli.store.embedded.binaries import Binaries
    from tapes_cli.store.embedded.layout import Layout

DATABASE = "tapes"

# sockaddr_un.sun_path holds 108 bytes on Linux and 104 on macOS, one of them the final NUL.
_LONGEST_SOCKET_PATH = 103
_LARGEST_LOG = 10_000_000
_READ_OF_LOG = 20_000
# A server that is ready has its socket: nobody removes it but a cleaner of /tmp.
_PATIENCE_WITHOUT_SOCKET = 2.0
_LOG_LINE = re.compile(r" LOG:\s+(.*)")

_SETTINGS = {
    "listen_addresses": "",
    "port": "5432",
    "unix_socket_permissions": "0700",
    # The server's messages are the user's, who reads them in UTC like everything else here;
    # they must not repeat what a capture says.
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_error_verbosity": "terse",
    "log_min_error_statement": "panic",
    "log_checkpoints": "off",
    "logging_collector": "off",
    "log_destination": "stderr",
}

# Servers that outlive their session. A Popen that is thrown away warns that its child runs.
_left_running: list[subprocess.Popen[bytes]] = []


def dsn_of(socket_dir: Path, database: str = DATABASE) -> str:
    """Return the libpq URI of a database behind a socket directory."""
    host = quote_from_bytes(os.fsencode(socket_dir), safe="")
    return f"postgresql://postgres@{host}:5432/{database}"


@dataclass(frozen=True, slots=True)
class Started:
    """A server that we started.

    Attributes:
        process: it.
        socket_dir: where its socket will be.
        log_offset: where in the log its messages begin, in bytes.
    """

    process: subprocess.Popen[bytes]
    socket_dir: Path
    log_offset: int


def start(
    layout: Layout,
    account: Account,
    binaries: Binaries,
    *,
    settings: Mapping[str, str],
    lock: FileLock,
) -> Started:
    """Start the server, which inherits the server lock; do not wait until it is ready.

    Raises:
        OSError: the server cannot be executed, or its files not be written.
    """
    if layout.log.exists() and layout.log.stat().st_size > _LARGEST_LOG:
        layout.log.rename(layout.log.with_name("server.log.1"))
    socket_dir = _socket_dir(layout, account)
    quoted = str(socket_dir).replace('"', '""')
    options = {**_SETTINGS, "unix_socket_directories": f'"{quoted}"', **settings}
    command: list[str | Path] = [binaries.directory / "postgres", "-D", layout.data]
    for name, value in options.items():
        command += ["-c", f"{name}={value}"]
    try:
        with FileLock(layout.log) as log:
            offset = os.lseek(log.fileno(), 0, os.SEEK_END)
            process = launch(command, account, output=log.fileno(), inherited=[lock.fileno()])
    except BaseException:
        remove_socket(socket_dir, layout, account)
        raise
    return Started(process, socket_dir, offset)


def _socket_dir(layout: Layout, account: Account) -> Path:
    """Return the data directory, or a private one where its path will not do.

    The server writes the choice into postmaster.pid, where others read it.
    """
    path = os.fsencode(layout.data / SOCKET_NAME)
    # libpq takes a comma for the end of one host and the beginning of another.
    if len(path) <= _LONGEST_SOCKET_PATH and b"," not in path:
        return layout.data
    made = Path(tempfile.mkdtemp(prefix=PRIVATE_SOCKET_PREFIX, dir=PRIVATE_SOCKET_PARENT))
    account.own(made)
    return made


def wait_until_ready(layout: Layout, announce: Announce) -> Postmaster | None:
    """Wait until the server takes connections and has our database.

    There is no limit while it lives: after a crash it replays its log first, which takes what it
    takes. Meanwhile it is said what the server does.

    Returns:
        Where it is, or None if it died.

    Raises:
        DatabaseUnavailableError: it lives, but its socket is gone.
        psycopg.Error: it takes connections, but does not do what we ask.
    """
    news = News(announce)
    waited = pauses()
    while True:
        elapsed = next(waited)
        if not is_held(layout.server_lock):
            return None
        found = read_postmaster(layout.data)
        if found and found.ready:
            if _has_database(found.socket_dir):
                return found
            socket = found.socket_dir / SOCKET_NAME
            if elapsed > _PATIENCE_WITHOUT_SOCKET and not socket.exists():
                raise DatabaseUnavailableError(
                    f"The embedded PostgreSQL runs (pid {found.pid}), but its socket {socket} "
                    "is gone.",
                    hint="Stop it with `tapes-cli db stop --force` and try again.",
                )
        news.tell(elapsed, "Waiting for PostgreSQL", _last_message(layout))


def _has_database(socket_dir: Path) -> bool:
    """Make sure that our database exists; return False while the server is not ready."""
    target = dsn_of(socket_dir, "postgres") + "?connect_timeout=10"
    try:
        with psycopg.connect(target, autocommit=True) as connection:
            known = connection.execute(
                "SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]
            ).fetchone()
            if known is None:
                connection.execute(f"CREATE DATABASE {DATABASE} TEMPLATE template0")
    except psycopg.OperationalError:
        if pq.PGconn.ping(target.encode()) == pq.Ping.OK:
            raise
        return False
    return True


def stop(layout: Layout, account: Account, announce: Announce, ours: Started | None) -> bool:
    """End the server's connections and stop it in good order (SIGINT, a fast shutdown).

    Args:
        layout: where.
        account: as whom it runs.
        announce: told when it takes long.
        ours: the server, if we started it.

    Returns:
        Whether it is gone; it is not if it runs where we cannot see it, as in another container.
    """
    found = read_postmaster(layout.data)
    if ours and ours.process.poll() is None:
        pid, socket_dir = ours.process.pid, ours.socket_dir
    elif found and serves(found.pid, layout.data):
        pid, socket_dir = found.pid, found.socket_dir
    else:
        return not is_held(layout.server_lock)
    # It may end at this very moment.
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGINT)
    news = News(announce)
    for elapsed in pauses():
        if not is_held(layout.server_lock):
            break
        news.tell(elapsed, "Waiting for PostgreSQL to stop", _last_message(layout))
    if ours:
        ours.process.wait()
    remove_socket(socket_dir, layout, account)
    return True


def leave_running(server: Started) -> None:
    """Keep hold of a server that outlives its session, and let go of those that ended."""
    _left_running[:] = [each for each in (*_left_running, server.process) if each.poll() is None]


def start_failure(layout: Layout, account: Account, server: Started) -> DatabaseUnavailableError:
    """Return the error for a server that died before it was ready, with its last words."""
    status = server.process.wait()
    remove_socket(server.socket_dir, layout, account)
    words = last_lines(_read_log(layout, server.log_offset))
    return DatabaseUnavailableError(
        f"The embedded PostgreSQL in {layout.root} did not start: "
        f"{words or f'it ended with status {status}'}",
        hint=f"Its log is {layout.log}.",
    )


def _last_message(layout: Layout) -> str:
    """Return what the server reported last about itself; never an error, which may quote data."""
    size = layout.log.stat().st_size
    reported = _LOG_LINE.findall(_read_log(layout, max(0, size - _READ_OF_LOG)))
    return reported[-1].strip() if reported else ""


def _read_log(layout: Layout, offset: int) -> str:
    with layout.log.open("rb") as log:
        log.seek(offset)
        return log.read(_READ_OF_LOG).decode(errors="replace")
