"""A server that dies, restarts, refuses, or is another one than it was."""

from __future__ import annotations

import signal
import time

import pytest

from tests.support.corpus import Corpus, turns_of
from tests.support.faults import (
    Rows,
    Run,
    Server,
    adds_up,
    completes,
    landed,
    missing,
    rows_of,
    stored,
)

pytestmark = pytest.mark.faults

WORKERS = ("1", "2")


def _paused_after(run: Run, turns: int) -> None:
    """Stop an import in its tracks when so many turns are stored."""
    run.wait_for_turns(turns)
    run.send_all(signal.SIGSTOP)
    assert run.lives()


@pytest.mark.parametrize("how", ["killed 2", "restarted 1"])
def test_a_server_that_comes_back_is_waited_for(
    server: Server, dsn: str, captures: Corpus, expected: Rows, how: str
) -> None:
    end, workers = how.split()
    with Run(dsn, captures.folder, "--workers", workers) as run:
        run.wait_for_turns(1)
        if end == "killed":
            server.kill()
        else:
            server.stop()
        assert run.lives(), run.told
        server.start()
        done = run.result()
    assert done.status == 0, done.err
    assert done.summary["records"]["read"] == captures.turns
    adds_up(done)
    assert rows_of(dsn) == expected


@pytest.mark.parametrize("workers", WORKERS)
def test_a_server_that_stays_away_ends_the_run_with_true_accounts(
    server: Server, dsn: str, captures: Corpus, expected: Rows, workers: str
) -> None:
    options = ("-v", "--retry-for", "1", "--workers", workers)
    with Run(dsn, captures.folder, *options) as run:
        run.wait_for_turns(captures.turns // 2)
        server.kill()
        done = run.result()
    assert done.status == 5
    assert "did not come back within 1 s" in done.err
    assert (done.summary["status"], done.summary["exit_code"]) == ("failed", 5)
    adds_up(done)
    server.start()
    assert missing(dsn, done) == []
    assert landed(dsn) >= stored(done)
    completes(dsn, captures.folder, expected)


def test_a_restart_between_two_batches_goes_unnoticed(
    server: Server, dsn: str, captures: Corpus, expected: Rows
) -> None:
    lines = turns_of(36, 32)
    half = len(lines) // 2
    with Run(dsn, stdin=True) as run:
        run.feed(lines[:half])
        # A batch that is a second old is stored, although the pipe is still open.
        time.sleep(1.1)
        run.feed(lines[half : half + 1])
        run.wait_for_turns(half)
        server.restart()
        run.feed(lines[half + 1 :])
        run.end_feed()
        done = run.result()
    assert (done.status, stored(done)) == (0, captures.turns), done.err
    assert rows_of(dsn) == expected


# --- timeouts and rights -------------------------------------------------------------------------


def test_statements_that_are_cancelled_for_a_while_are_repeated(
    server: Server, dsn: str, captures: Corpus, expected: Rows
) -> None:
    with Run(dsn, captures.folder, "--workers", "2") as run:
        _paused_after(run, 1)
        before = server.log.count("due to statement timeout")
        server.configure(statement_timeout="1ms")
        run.send_all(signal.SIGCONT)
        time.sleep(0.7)
        server.configure(statement_timeout=None)
        done = run.result()
    assert server.log.count("due to statement timeout") > before
    assert done.status == 0, done.err
    assert rows_of(dsn) == expected


@pytest.mark.parametrize("connection", ["kept", "broken"])
def test_statements_that_are_cancelled_for_good_end_the_run(
    server: Server, dsn: str, captures: Corpus, expected: Rows, connection: str
) -> None:
    with Run(dsn, captures.folder, "-v", "--retry-for", "1") as run:
        _paused_after(run, captures.turns // 2)
        server.configure(statement_timeout="1ms")
        if connection == "broken":
            server.cut_all(dsn)
        run.send_all(signal.SIGCONT)
        done = run.result()
    server.configure(statement_timeout=None)
    assert done.status == 5
    assert "statement_timeout" in done.err
    adds_up(done)
    assert missing(dsn, done) == []
    completes(dsn, captures.folder, expected)


def test_a_server_that_becomes_read_only_ends_the_run(
    server: Server, dsn: str, captures: Corpus, expected: Rows
) -> None:
    with Run(dsn, captures.folder, "-v", "--workers", "2") as run:
        _paused_after(run, 1)
        server.configure(default_transaction_read_only="on")
        run.send_all(signal.SIGCONT)
        done = run.result()
    assert done.status == 5
    assert "25006" in done.err
    assert "read-only" in done.err
    adds_up(done)
    assert missing(dsn, done) == []
    server.configure(default_transaction_read_only=None)
    completes(dsn, captures.folder, expected)


# --- another server ------------------------------------------------------------------------------


def test_a_server_without_the_schema_is_no_place_to_go_on(
    server: Server, dsn: str, captures: Corpus, expected: Rows
) -> None:
    with (
        server.database(template="template0") as bare,
        Run(dsn, captures.folder, "-v", "--workers", "1") as run,
    ):
        _paused_after(run, captures.turns // 2)
        server.swap(dsn, bare)
        run.send_all(signal.SIGCONT)
        done = run.result()
        assert done.status == 6
        assert "migrate status" in done.err
        adds_up(done)
        assert missing(bare, done) == []
        server.swap(dsn, bare)
    completes(dsn, captures.folder, expected)


@pytest.mark.parametrize("workers", WORKERS)
def test_a_server_that_has_lost_what_it_confirmed_is_filled_again(
    server: Server, dsn: str, captures: Corpus, expected: Rows, workers: str
) -> None:
    with server.database() as empty, Run(dsn, captures.folder, "--workers", workers) as run:
        # More than a batch, so that one is confirmed. A worker that is done does not look again.
        _paused_after(run, captures.turns // 2)
        server.swap(dsn, empty)
        run.send_all(signal.SIGCONT)
        done = run.result()
        adds_up(done)
        if workers == "1":
            assert done.status == 5
            assert "has lost turns that it had confirmed" in done.err
        completes(dsn, captures.folder, expected)
