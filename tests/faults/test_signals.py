"""Signals that end an import: once in good order, twice at once."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.support.faults import (
    Corpus,
    Rows,
    Run,
    Server,
    adds_up,
    eventually,
    landed,
    missing,
    rows_of,
    run_import,
    stored,
)

pytestmark = pytest.mark.faults


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
    again = run_import(dsn, captures.folder)
    assert again.status == 0, again.err
    # Read again are the last record, all of an archive, and what a worker was ahead of another.
    assert again.summary["records"]["read"] < captures.turns
    assert workers == "2" or again.summary["records"]["duplicate"] < captures.turns // 6
    assert told + again.summary["records"]["stored"] == captures.turns
    assert rows_of(dsn) == expected


@pytest.mark.parametrize("workers", ["1", "2"])
def test_two_signals_end_it_at_once_and_lose_nothing(
    server: Server, dsn: str, captures: Corpus, expected: Rows, workers: str
) -> None:
    with Run(dsn, captures.folder, "-v", "--workers", workers) as run:
        run.wait_for_turns(captures.turns // 2)
        # The server is stopped in its tracks: who waits for it to finish would wait for ever.
        backends = [
            row[0]
            for row in server.run(
                "SELECT pid FROM pg_stat_activity WHERE application_name = 'tapes-cli'"
            )
        ]
        for pid in backends:
            os.kill(pid, signal.SIGSTOP)
        try:
            run.send_all(signal.SIGTERM)
            eventually(lambda: "once more to leave at once" in run.told, "an answer to the signal")
            began = time.monotonic()
            run.send_all(signal.SIGTERM)
            done = run.result()
            seconds = time.monotonic() - began
        finally:
            for pid in backends:
                os.kill(pid, signal.SIGCONT)
    assert done.status == 128 + signal.SIGTERM
    assert seconds < 2
    again = run_import(dsn, captures.folder, "--lock", "fail")
    assert again.status == 0, again.err
    assert rows_of(dsn) == expected
