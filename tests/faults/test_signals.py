"""Signals that end an import: once in good order, twice at once."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.faults import (
    Rows,
    Run,
    Server,
    adds_up,
    completes,
    eventually,
    landed,
    missing,
    rows_of,
    stored,
)
from tests.support.importing import import_here

if TYPE_CHECKING:
    from tests.support.corpus import Corpus

pytestmark = pytest.mark.faults

_ARCHIVE = 1
"""The place of the archive among the captures."""


@pytest.mark.parametrize(
    ("number", "workers"), [(signal.SIGINT, "1"), (signal.SIGTERM, "1"), (signal.SIGTERM, "2")]
)
def test_one_signal_ends_the_run_where_the_next_one_goes_on(
    dsn: str, captures: Corpus, expected: Rows, number: signal.Signals, workers: str
) -> None:
    with Run(dsn, captures.folder, "-v", "--workers", workers) as run:
        run.wait_for_turns(1)
        run.send_all(number)
        done = run.result()
    assert done.status == 128 + number, done.err
    assert (done.summary["status"], done.summary["exit_code"]) == ("interrupted", 128 + number)
    adds_up(done)
    assert missing(dsn, done) == []
    told = stored(done)
    assert landed(dsn) == told
    again = import_here(dsn, [captures.folder]).report
    assert again.exit_code == 0, again.failure
    assert again.records.read < captures.turns
    # Read again are the last record, all of an archive, and what a worker was ahead of another.
    each = captures.turns // 6
    if workers == "1" and told // each != _ARCHIVE:
        assert again.records.duplicate <= 1
    assert told + again.records.stored == captures.turns
    assert rows_of(dsn) == expected


def _is_there(pid: int) -> bool:
    with suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@pytest.mark.parametrize("workers", ["1", "2"])
def test_two_signals_end_it_at_once_and_lose_nothing(
    server: Server, dsn: str, captures: Corpus, expected: Rows, workers: str
) -> None:
    with Run(dsn, captures.folder, "-v", "--workers", workers) as run:
        run.wait_for_turns(1)
        # The server is stopped in its tracks: who waits for it to finish would wait for ever.
        backends = [
            row[0]
            for row in server.run(
                "SELECT pid FROM pg_stat_activity WHERE application_name = 'tapes-cli'"
            )
        ]
        started = run.workers
        assert bool(started) == (workers == "2")
        for pid in backends:
            os.kill(pid, signal.SIGSTOP)
        try:
            run.send_all(signal.SIGTERM)
            eventually(lambda: "once more to leave at once" in run.told, "an answer to the signal")
            began = time.monotonic()
            run.send_all(signal.SIGTERM)
            done = run.result()
            seconds = time.monotonic() - began
            eventually(lambda: not any(map(_is_there, started)), "the end of its workers", 5.0)
        finally:
            for pid in backends:
                os.kill(pid, signal.SIGCONT)
    assert done.status == 128 + signal.SIGTERM
    assert seconds < 2
    completes(dsn, captures.folder, expected)
