"""Connections that are cut: by a proxy, in the middle of a word, and by the server."""

from __future__ import annotations

import threading
from itertools import count
from typing import TYPE_CHECKING

import pytest

from tests.support.captures import line, record
from tests.support.corpus import Corpus, chance, setting
from tests.support.faults import Rows, Run, Server, adds_up, landed, rows_of, stored
from tests.support.proxy import Cut, Proxy, proxied

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from random import Random

pytestmark = pytest.mark.faults

# What a batch takes, both ways together, is more: each of them is cut once or several times.
_LEAST, _MOST = 60_000, 500_000
# Connections that are made before the import begins. What is asked there is not repeated.
_FIRST_LOOKS = 2


def _plan(where: Random, number: int) -> Cut | None:
    if number < _FIRST_LOOKS:
        return None
    return Cut(where.randrange(_LEAST, _MOST), deaf=where.random() < 1 / 3)


@pytest.fixture
def proxy(server: Server, reachable_path: Path) -> Iterator[Proxy]:
    """Give a proxy in front of the server."""
    with proxied(reachable_path / "p", server.socket) as made:
        yield made


@pytest.mark.parametrize("number", range(setting("TAPES_FAULT_CUTS", 2)))
def test_connections_that_break_anywhere_change_nothing(
    proxy: Proxy, dsn: str, captures: Corpus, expected: Rows, number: int
) -> None:
    workers, where = str(1 + number % 2), chance("cuts", number)
    proxy.plan = lambda connection: _plan(where, connection)
    with Run(proxy.dsn(dsn), captures.folder, "--workers", workers) as run:
        done = run.result()
    assert proxy.cuts > 1
    assert done.status == 0, done.err
    assert done.summary["records"]["read"] == captures.turns
    adds_up(done)
    assert rows_of(dsn) == expected


def test_progress_between_two_cuts_begins_the_patience_anew(
    proxy: Proxy, dsn: str, tmp_path: Path
) -> None:
    # One batch, of which each connection takes a small part.
    turns = (line(record(f"{i} {'x' * 2000}", session={})) for i in range(500))
    (tmp_path / "large.jsonl").write_text("".join(turns))
    proxy.plan = lambda number: Cut(250_000) if number > _FIRST_LOOKS else None
    with Run(proxy.dsn(dsn), tmp_path, "--retry-for", "1") as run:
        done = run.result()
    assert done.status == 0, done.err
    assert proxy.cuts > 5
    assert landed(dsn) == stored(done) == 500


def test_connections_that_the_server_ends_change_nothing(
    server: Server, dsn: str, captures: Corpus, expected: Rows
) -> None:
    where, done_cutting = chance("terminated"), threading.Event()
    cut = count()

    def terminate() -> None:
        while not done_cutting.wait(where.uniform(0.05, 0.25)):
            for _ in range(server.cut_all(dsn)):
                next(cut)

    with Run(dsn, captures.folder, "--workers", "2") as run:
        run.wait_for_turns(1)
        killer = threading.Thread(target=terminate)
        killer.start()
        try:
            done = run.result()
        finally:
            done_cutting.set()
            killer.join()
    assert next(cut) > 2
    assert done.status == 0, done.err
    assert done.summary["records"]["read"] == captures.turns
    adds_up(done)
    assert rows_of(dsn) == expected
