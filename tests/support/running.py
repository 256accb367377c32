"""The installed command while it runs: interrupted, or watched on a terminal."""

from __future__ import annotations

import os
import pty
import subprocess
import time
from typing import TYPE_CHECKING

import psycopg

from tests.support.captures import line, record
from tests.support.command import COMMAND, environment

if TYPE_CHECKING:
    from pathlib import Path


def start_import(database: str, *arguments: str | Path) -> subprocess.Popen[bytes]:
    """Start an import from a pipe that stays open, and wait until something is stored.

    Without coverage: its tracer holds a lock that does not let a signal handler in again.
    """
    unmeasured = {k: v for k, v in environment().items() if "COVERAGE" not in k}
    process = subprocess.Popen(
        [COMMAND, "import", "--dsn", database, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=unmeasured,
    )
    assert process.stdin is not None
    # More than a batch.
    process.stdin.write((line(record()) * 600).encode())
    process.stdin.flush()
    deadline = time.monotonic() + 60
    with psycopg.connect(database, autocommit=True) as conn:
        while conn.execute("SELECT 1 FROM nodes WHERE landings = 1").fetchone() is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    return process


def on_a_terminal(*arguments: str, columns: int = 80) -> str:
    """Run a command with stderr and stdin on a terminal; return what it wrote there."""
    ours, theirs = pty.openpty()
    os.set_blocking(ours, True)
    process = subprocess.Popen(
        [COMMAND, *arguments],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=theirs,
        env=environment(TERM="xterm-256color", COLUMNS=str(columns)),
    )
    os.close(theirs)
    shown = b""
    try:
        while chunk := os.read(ours, 65536):
            shown += chunk
    except OSError:
        pass  # the other end is closed
    process.communicate(timeout=60)
    os.close(ours)
    return shown.decode()
