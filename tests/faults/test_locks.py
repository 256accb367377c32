"""Two imports at once: who waits, who gives up, and who takes over."""

from __future__ import annotations

import signal
import socket
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from tests.support.corpus import Corpus, turns_of
from tests.support.faults import (
    Rows,
    Run,
    Server,
    adds_up,
    completes,
    eventually,
    landed,
    missing,
    query,
    rows_of,
    run_import,
    stored,
)

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.command import Result

pytestmark = pytest.mark.faults

_SHIFT = "UPDATE import_leases SET renewed_at = renewed_at - interval '31 s'"
_INSERT = """
INSERT INTO import_leases
VALUES ('import', %s, 'elsewhere', 4711, '', now(), now() - %s::interval, 30)
"""


def _timed(run: Run) -> tuple[Result, float]:
    done = run.result()
    return done, time.monotonic() - run.began


def test_an_import_beside_another_waits_fails_or_goes_on_as_it_is_told(
    dsn: str, captures: Corpus, expected: Rows, tmp_path: Path
) -> None:
    (tmp_path / "one.jsonl").write_text(turns_of(1, 1)[0])
    with Run(dsn, stdin=True) as holder, ExitStack() as stack:
        holder.wait_for_lease()
        named = f"another import: process {holder.pid} on {socket.gethostname()}, since 20"
        beside, usual = _timed(stack.enter_context(Run(dsn, tmp_path, "--lock", "none")))
        assert (beside.status, stored(beside)) == (0, 1)
        failed, seconds = _timed(stack.enter_context(Run(dsn, tmp_path, "--lock", "fail")))
        assert failed.status == 7
        assert named.replace("another import:", "Another import is running:") in failed.err
        assert seconds < usual + 1
        waiting = stack.enter_context(Run(dsn, captures.folder))
        impatient, seconds = _timed(stack.enter_context(Run(dsn, tmp_path, "--lock-timeout", "1")))
        assert impatient.status == 7
        assert named in impatient.err
        assert 1 <= seconds < usual + 3
        eventually(lambda: f"Waiting for {named}" in waiting.told, "what it waits for")
        assert landed(dsn) == 1
        holder.end_feed()
        assert holder.result().status == 0
        done = waiting.result()
    assert done.status == 0, done.err
    assert rows_of(dsn) == expected


def test_a_lease_that_ran_out_is_taken_over_and_its_holder_ends(
    server: Server, captures: Corpus, expected: Rows
) -> None:
    with server.database() as one, server.database() as other, ExitStack() as stack:
        stopped: dict[str, Run] = {}
        for dsn, workers in ((one, "1"), (other, "2")):
            run = stack.enter_context(Run(dsn, captures.folder, "-v", "--workers", workers))
            run.wait_for_turns(1)
            run.send_all(signal.SIGSTOP)
            assert run.lives()
            stopped[dsn] = run
            query(dsn, _SHIFT)
        others = [stack.enter_context(Run(dsn, "--lock", "fail", stdin=True)) for dsn in stopped]
        for run in others:
            run.wait_for_lease()
        # A lease is renewed every five seconds; who finds that it is gone gives up.
        time.sleep(max(0.0, stopped[other].began + 6.0 - time.monotonic()))
        for dsn, run in stopped.items():
            run.send_all(signal.SIGCONT)
            done = run.result()
            assert done.status == 7, done.err
            assert "The lock was lost" in done.err
            adds_up(done)
            assert missing(dsn, done) == []
        for dsn, run in zip(stopped, others, strict=True):
            run.end_feed()
            assert run.result().status == 0
            completes(dsn, captures.folder, expected)


def test_a_lease_from_another_machine_is_respected_until_it_runs_out(
    dsn: str, tmp_path: Path
) -> None:
    (tmp_path / "one.jsonl").write_text(turns_of(1, 1)[0])
    query(dsn, _INSERT, uuid4(), "20 s")
    done = run_import(dsn, tmp_path, "--lock", "fail")
    assert done.status == 7
    assert "process 4711 on elsewhere" in done.err
    query(dsn, _SHIFT)
    done = run_import(dsn, tmp_path, "--lock", "fail")
    assert (done.status, stored(done)) == (0, 1)
    assert query(dsn, "SELECT * FROM import_leases") == []
