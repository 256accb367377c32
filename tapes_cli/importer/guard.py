"""An import among others: it remembers those before it, and keeps out of the way of those beside.

What is decided here changes how much work is done, never what is stored.
"""

from __future__ import annotations

from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tapes_cli.importer.checkpoints import Checkpoints
from tapes_cli.importer.lease import Lease, held
from tapes_cli.importer.start import import_all
from tapes_cli.importer.worker import import_into
from tapes_cli.store.postgres.checkpoints import CheckpointStore
from tapes_cli.store.postgres.dry_run import DryRunStore
from tapes_cli.store.postgres.leases import LeaseStore
from tapes_cli.store.postgres.side import SideConnection

if TYPE_CHECKING:
    from collections.abc import Callable

    from tapes_cli.importer.checkpoints import Way
    from tapes_cli.importer.ledger import Ledger
    from tapes_cli.importer.report import Report
    from tapes_cli.importer.stop import StopRequest
    from tapes_cli.importer.worker import Task


@dataclass(frozen=True, slots=True)
class Guard:
    """What an import minds.

    Attributes:
        way: how it reads, so that what was read in this way need not be read again; None
            remembers nothing.
        lock_timeout: how many seconds to wait for another import; None waits for nobody.
        announce: is told for whom it waits.
    """

    way: Way | None
    lock_timeout: float | None
    announce: Callable[[str], None]


def import_guarded(
    task: Task, ledger: Ledger, stop: StopRequest, workers: int | None, guard: Guard
) -> Report:
    """Import the task's sources that are not known to be imported, while no other import runs.

    Raises:
        ImportLockedError: another import held the lock for too long.
        DatabaseUnavailableError: the database cannot be reached.
    """
    with closing(SideConnection(task.dsn, task.backoff)) as side:
        timeout = guard.lock_timeout
        lease = None if timeout is None else Lease(LeaseStore(side), stop)
        holding = (
            nullcontext()
            if lease is None or timeout is None
            else held(lease, timeout, guard.announce)
        )
        with holding:
            _begin_anew_if_empty(CheckpointStore(side))
            task = _chosen(task, ledger, side, guard)
            return import_all(task, ledger, stop, workers, lease)


def try_import(task: Task, ledger: Ledger, stop: StopRequest, guard: Guard) -> Report:
    """Do all that an import does but the writing, and give the same report.

    Everything is read in one transaction that cannot write. What the database would refuse of a
    value is not found out.

    Raises:
        DatabaseUnavailableError: the database cannot be reached.
    """
    with closing(SideConnection(task.dsn, task.backoff)) as side:
        task = _chosen(task, ledger, side, guard)
    ledger.checkpoints = None
    with closing(DryRunStore(task.dsn)) as store:
        return import_into(store, task, ledger, stop)


def _begin_anew_if_empty(store: CheckpointStore) -> None:
    """Forget what was read if its turns are gone: somebody has emptied the database."""
    if not store.holds() and store.remembers_turns():
        store.forget_all()


def _chosen(task: Task, ledger: Ledger, side: SideConnection, guard: Guard) -> Task:
    """Return the task without what need not be read."""
    if guard.way is None:
        return task
    ledger.checkpoints = Checkpoints(CheckpointStore(side), guard.way)
    sources = ledger.checkpoints.choose(task.sources)
    ledger.report.unchanged = ledger.checkpoints.unchanged
    return replace(task, sources=sources)
