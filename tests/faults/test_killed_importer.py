"""An importer that is killed, at any moment, as often as one likes."""

from __future__ import annotations

import logging
import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING

import pytest

from tests.support.corpus import Corpus, chance, places_of, setting
from tests.support.faults import Rows, Run, Server, landed, lines_of, rows_of
from tests.support.importing import How, import_here

if TYPE_CHECKING:
    from pathlib import Path
    from random import Random

pytestmark = pytest.mark.faults

_KILLS_A_DATABASE = 4
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Killer:
    """Starts imports and kills them.

    Attributes:
        captures: what is imported.
        seconds: how long an import takes that is left alone.
        where: chooses moments and victims.
        kills: how many imports, and of workers alone, were killed so far.
        landed: how many turns were stored when an import was killed.
    """

    captures: Corpus
    seconds: float
    where: Random
    kills: int = 0
    landed: list[int] = field(default_factory=list)

    def kill_one(self, dsn: str, rejects: Path, workers: int) -> bool:
        """Start an import and kill it; tell whether it was killed before its end.

        It has to take the lease of the one before at once, or it ends with status 7.
        """
        options = ("--workers", str(workers), "--rejects", rejects, "--lock", "fail")
        with Run(dsn, self.captures.folder, *options) as run:
            run.wait_for_lease()
            assert run.lives(), run.told
            time.sleep(self.where.uniform(0, self.seconds))
            if workers > 1 and self.where.random() < 1 / 3:
                self._kill_a_worker(run)
                time.sleep(self.where.uniform(0, self.seconds / 4))
            if self.where.random() < 1 / 2:
                run.kill()
            else:
                run.send(signal.SIGKILL)  # its workers find out
            status = run.result().status
        if status in {0, 3}:
            return False
        assert status == -signal.SIGKILL
        self.kills += 1
        self.landed.append(landed(dsn))
        return True

    def _kill_a_worker(self, run: Run) -> None:
        workers = run.workers
        if workers:
            with suppress(ProcessLookupError):
                os.kill(self.where.choice(workers), signal.SIGKILL)
            self.kills += 1


def test_after_any_kills_one_import_completes_the_work(
    server: Server, spoiled: Corpus, undisturbed: tuple[Rows, float], tmp_path: Path
) -> None:
    wanted = setting("TAPES_FAULT_KILLS", 12)
    expected, seconds = undisturbed
    killer = _Killer(spoiled, seconds, chance("kills"))
    began = time.monotonic()
    for number in count():
        if killer.kills >= wanted:
            break
        rejects = tmp_path / f"rejects-{number}.jsonl"
        with server.database() as dsn:
            for _ in range(_KILLS_A_DATABASE):
                if not killer.kill_one(dsn, rejects, 1 + number % 2):
                    break
            done = import_here(dsn, [spoiled.folder], How(rejects=rejects))
            assert done.report.exit_code in {0, 3}, done.report.failure
            assert rows_of(dsn) == expected
            assert places_of(lines_of(rejects)) == spoiled.bad
    rows = sum(map(len, expected.values()))
    _log.info(
        "%d kills with %s turns stored, %d databases, %d turns and %d rows each, %.0f s",
        *(killer.kills, killer.landed, number, spoiled.turns, rows, time.monotonic() - began),
    )
