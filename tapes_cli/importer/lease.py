"""The lease of an import: while it is held, no other import runs, unless it was told to."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager, suppress
from threading import Event, Thread
from typing import TYPE_CHECKING
from uuid import uuid4

from tapes_cli.errors import DatabaseUnavailableError, ImportLockedError, SchemaError
from tapes_cli.importer.process import is_dead, own_process
from tapes_cli.settings import host_name
from tapes_cli.store.postgres.leases import LEASE_SECONDS, Holder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tapes_cli.importer.stop import StopRequest
    from tapes_cli.store.postgres.leases import LeaseStore

_RENEW_EVERY_SECONDS = LEASE_SECONDS / 6
_LOOK_EVERY_SECONDS = 0.5
_HINT = (
    "Wait until it is done, or give it more time with --lock-timeout. --lock none imports beside "
    "it, which is safe, but slower."
)


class Lease:
    """A lease that is held by this run. Made by `held`.

    What happens to it is told to `stop`: a run that has lost its lease ends.
    """

    def __init__(self, store: LeaseStore, stop: StopRequest) -> None:
        self._store = store
        self._stop = stop
        self._me = Holder(uuid4(), host_name(), os.getpid(), own_process())
        self._renewed = 0.0

    def take(self, timeout: float, announce: Callable[[str], None]) -> None:
        """Take the lease, waiting for whoever holds it.

        Args:
            timeout: how many seconds to wait at most.
            announce: is told once for whom it waits.

        Raises:
            ImportLockedError: somebody holds it still.
            InterruptedRunError: somebody asked the run to end.
            DatabaseUnavailableError: the database was lost.
        """
        deadline = time.monotonic() + timeout
        told = False
        while not self._store.take(self._me):
            holder = self._store.holder()
            if holder is None:
                continue
            if is_dead(holder.process) and self._store.take(self._me, dead=holder.id):
                break
            left = deadline - time.monotonic()
            if left <= 0:
                raise ImportLockedError(f"Another import is running: {_named(holder)}.", hint=_HINT)
            if not told:
                announce(f"Waiting for another import: {_named(holder)}.")
                told = True
            # Nothing is in flight yet: a signal ends the waiting by itself.
            time.sleep(min(left, _LOOK_EVERY_SECONDS))
        self._renewed = time.monotonic()

    def renew(self) -> None:
        """Renew the lease if it is time to, and end the run if somebody else has taken it."""
        if time.monotonic() - self._renewed < _RENEW_EVERY_SECONDS:
            return
        self._renewed = time.monotonic()
        try:
            if not self._store.renew(self._me):
                self._stop.fail(
                    ImportLockedError(
                        "The lock was lost: another import took it over, since this one had not "
                        f"been heard of for {LEASE_SECONDS} s.",
                        hint="Import again to go on.",
                    )
                )
        except DatabaseUnavailableError:
            pass  # nobody else can take it meanwhile
        except SchemaError as error:
            self._stop.fail(error)

    @contextmanager
    def renewed_by_itself(self) -> Iterator[None]:
        """Renew the lease from time to time, whatever else goes on."""
        done = Event()

        def renew() -> None:
            while not done.wait(_RENEW_EVERY_SECONDS):
                self.renew()

        thread = Thread(target=renew, name="lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def release(self) -> None:
        """Give the lease back; if the database is away, or another one, it runs out."""
        with suppress(DatabaseUnavailableError, SchemaError):
            self._store.release(self._me)


@contextmanager
def held(lease: Lease, timeout: float, announce: Callable[[str], None]) -> Iterator[None]:
    """Hold a lease for a while. Raises as `Lease.take`."""
    try:
        lease.take(timeout, announce)
        yield
    finally:
        lease.release()


def _named(holder: Holder) -> str:
    since = f"{holder.started_at:%Y-%m-%d %H:%M:%S} UTC" if holder.started_at else "an unknown time"
    return f"process {holder.pid} on {holder.host}, since {since}"
