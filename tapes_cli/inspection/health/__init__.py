"""Is everything in place? What an import needs, looked at without changing any of it.

check       what a check is
machine     the program, its directory, the embedded PostgreSQL
database    the connection and what is at its other end
"""

from __future__ import annotations

from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING

from tapes_cli.errors import DatabaseUnavailableError
from tapes_cli.inspection.health.check import Check, Verdict, exit_status, failed, skipped
from tapes_cli.inspection.health.database import NAMES, UNREACHED, check_database
from tapes_cli.inspection.health.machine import (
    check_data_directory,
    check_program,
    look_at_embedded_server,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tapes_cli.settings import Connection

__all__ = ["Check", "Verdict", "examine", "exit_status"]

PATIENCE_SECONDS = 15.0
"""How long a check of the database may take; the server is told to end each statement before."""

CONNECT_PATIENCE_SECONDS = 60.0
"""How long it may take to connect: a DSN can name several hosts, each with a limit of its own."""


def examine(chosen: Connection, data_dir: Path | None) -> Iterator[Check]:
    """Look at everything that an import needs, and give each check as soon as it is made.

    Nothing is created, started, or changed. It ends, whatever the database does.

    Args:
        chosen: the database.
        data_dir: the data directory that was asked for, None for the default.
    """
    yield check_program()
    yield check_data_directory(data_dir, embedded=chosen.embedded)
    if chosen.dsn is not None:
        yield from _patiently(chosen, chosen.dsn)
        return
    embedded = look_at_embedded_server(data_dir)
    yield embedded.check
    if embedded.dsn is None:
        found = "not looked at: the embedded server does not run"
        yield from (skipped(name, found) for name in NAMES)
    else:
        yield from _patiently(chosen, embedded.dsn)


def _patiently(chosen: Connection, dsn: str) -> Iterator[Check]:
    """Give the checks of the database; when one takes too long, give up.

    Limits that a server sets for itself do not help against one that has stopped, nor against a
    proxy that waits for it. Whoever waits for those does so in a thread that is left behind.
    """
    answers: SimpleQueue[Check | BaseException] = SimpleQueue()

    def look() -> None:
        try:
            for check in check_database(chosen, dsn):
                answers.put(check)
        except BaseException as error:  # noqa: BLE001  # it is raised where it is waited for
            answers.put(error)

    Thread(target=look, name="health", daemon=True).start()
    patience = CONNECT_PATIENCE_SECONDS
    for index, name in enumerate(NAMES):
        try:
            answer = answers.get(timeout=patience)
        except Empty:
            yield _silent(name, patience)
            yield from (skipped(unasked, UNREACHED) for unasked in NAMES[index + 1 :])
            return
        if isinstance(answer, BaseException):
            raise answer
        yield answer
        patience = PATIENCE_SECONDS


def _silent(name: str, seconds: float) -> Check:
    return failed(
        name,
        f"no answer for {seconds:g} s",
        "The server, or a proxy before it, has stopped: look at it there.",
        DatabaseUnavailableError,
    )
