"""Checks of this machine: the program, its directory, and the embedded PostgreSQL."""

from __future__ import annotations

import os
import platform
import shutil
import stat
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING

from tapes_cli import settings
from tapes_cli.errors import TapesError, UsageError
from tapes_cli.inspection.health.check import (
    Check,
    amount,
    failed,
    failed_by,
    ok,
    phrase,
    warning,
)
from tapes_cli.store.embedded import EmbeddedServer

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = "program"
DATA_DIRECTORY = "data_directory"
EMBEDDED_SERVER = "embedded_server"

LITTLE_SPACE = 10**9
"""Free bytes under which a full disk is near."""

NO_SPACE = 10**8
"""Free bytes under which it is not worth beginning."""

_REJECTS = "rejects"
_ELSEWHERE = "Choose another directory with --data-dir or TAPES_DATA_DIR."


@dataclass(frozen=True, slots=True)
class Embedded:
    """What became of the look at the embedded server, and its DSN if it runs."""

    check: Check
    dsn: str | None


def check_program() -> Check:
    """Tell which program this is and on what it runs."""
    system = f"{platform.system()} {platform.release()} {platform.machine()}"
    return ok(
        PROGRAM, f"tapes-cli {version('tapes-cli')}, Python {platform.python_version()}, {system}"
    )


def check_data_directory(option: Path | None, *, embedded: bool) -> Check:
    """Look at the directory of the embedded database and of kept rejects. Nothing is made.

    Args:
        option: the directory that was asked for, if one was.
        embedded: whether the database is to be in it. Without one, only an import from a pipe
            needs it, and for that another place can be named.
    """
    check = _look_at_directory(option)
    if check.exit_status and not embedded:
        remedy = "It is needed for rejects from a pipe only: name a file with --rejects, or "
        return warning(check.name, check.found, remedy + "another directory with --data-dir.")
    return check


def _look_at_directory(option: Path | None) -> Check:
    try:
        folder = settings.data_dir(option)
    except TapesError as error:
        return failed(DATA_DIRECTORY, phrase(error), error.hint, UsageError)
    try:
        place = _nearest(folder)
        problem = _unusable(place) or _unusable_if_there(folder / _REJECTS)
        if problem:
            return failed(DATA_DIRECTORY, problem, _ELSEWHERE, UsageError)
        return _judge_space(folder, place) or _judge_privacy(folder) or _fine(folder, place)
    except OSError as error:
        found = f"{folder} cannot be looked at: {error.strerror}"
        return failed(DATA_DIRECTORY, found, _ELSEWHERE, UsageError)


def _nearest(folder: Path) -> Path:
    """Return the directory, or that in which it would be made."""
    while not os.path.lexists(folder):
        folder = folder.parent
    return folder


def _unusable(place: Path) -> str:
    if not place.is_dir():
        return f"{place} is not a directory"
    if not os.access(place, os.R_OK | os.W_OK | os.X_OK):
        return f"{place} may not be written to"
    return ""


def _unusable_if_there(place: Path) -> str:
    return _unusable(place) if os.path.lexists(place) else ""


def _judge_space(folder: Path, place: Path) -> Check | None:
    free = shutil.disk_usage(place).free
    if free >= LITTLE_SPACE:
        return None
    found = f"{folder} has only {amount(free)} of free disk"
    remedy = f"Make room. {_ELSEWHERE}"
    if free < NO_SPACE:
        return failed(DATA_DIRECTORY, found, remedy, UsageError)
    return warning(DATA_DIRECTORY, found, remedy)


def _judge_privacy(folder: Path) -> Check | None:
    """Warn of what is open to others; rejects hold what was said in captures.

    Others may enter the directory itself: root's server, which runs as somebody else, must.
    """
    rejects = folder / _REJECTS
    for place, forbidden in ((folder, stat.S_IWGRP | stat.S_IWOTH), (rejects, 0o077)):
        if place.exists() and place.stat().st_mode & forbidden:
            may = "write to" if place is folder else "look into"
            mode = "go-w" if place is folder else "go-rwx"
            return warning(
                DATA_DIRECTORY, f"others may {may} {place}", f"Close it: chmod {mode} {place}"
            )
    return None


def _fine(folder: Path, place: Path) -> Check:
    free = amount(shutil.disk_usage(place).free)
    made = "" if place == folder else " is made when it is needed"
    return ok(DATA_DIRECTORY, f"{folder}{made}, {free} free")


def look_at_embedded_server(option: Path | None) -> Embedded:
    """Look at the embedded server. It is neither created nor started."""
    try:
        server = EmbeddedServer(settings.data_dir(option))
        status = server.status()
        if not status.running:
            return Embedded(ok(EMBEDDED_SERVER, _resting(server)), None)
    except TapesError as error:
        return Embedded(failed_by(EMBEDDED_SERVER, error), None)
    if status.dsn is None:
        found = f"PostgreSQL {status.version} is starting or stopping; its log is {status.log}"
        return Embedded(warning(EMBEDDED_SERVER, found, "Try again in a moment."), None)
    found = f"PostgreSQL {status.version} runs, pid {status.pid}; its log is {status.log}"
    return Embedded(ok(EMBEDDED_SERVER, found), status.dsn)


def _resting(server: EmbeddedServer) -> str:
    status, programs = server.status(), server.check_startable()
    if not status.initialised:
        return f"none yet: the first import creates it, with PostgreSQL {programs}"
    return (
        f"PostgreSQL {status.version} is stopped: it is started when it is needed, with "
        f"PostgreSQL {programs}; its log is {status.log}"
    )
