"""What callers use: a handle for the embedded database of one data directory."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Self

import psycopg

from tapes_cli.errors import DatabaseUnavailableError
from tapes_cli.store.embedded import cluster, process
from tapes_cli.store.embedded.accounts import Account, check_reach, server_account
from tapes_cli.store.embedded.binaries import Binaries, choose_binaries, installed_binaries
from tapes_cli.store.embedded.layout import Layout
from tapes_cli.store.embedded.locks import Announce, FileLock, News, is_held, pauses

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path


class StopOutcome(Enum):
    """What a request to stop the server came to."""

    NOT_RUNNING = "not running"
    STOPPED = "stopped"
    IN_USE = "in use"


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """What is known of an embedded database without starting it.

    Attributes:
        data_dir: the data directory.
        initialised: whether there is a database.
        running: whether its server runs.
        pid: the server's process id, if it runs.
        version: the major version of PostgreSQL that created the data.
        dsn: the libpq URI, if it runs.
        socket_dir: where the socket is, if it runs.
        kept: whether the server stays when nobody uses it any more.
        binaries_version: the PostgreSQL that a new database would get, if there is one.
        log: where the server writes what it has to say.
    """

    data_dir: Path
    initialised: bool
    running: bool
    pid: int | None
    version: int | None
    dsn: str | None
    socket_dir: Path | None
    kept: bool
    binaries_version: str | None
    log: Path


def _silent(_message: str) -> None:
    """Announce nothing."""


class EmbeddedServer:
    """The embedded PostgreSQL of one data directory.

    Several processes may use it at once: the first starts the server, the last stops it.
    """

    def __init__(self, data_dir: Path, *, settings: Mapping[str, str] | None = None) -> None:
        """Describe the server; nothing is touched.

        Args:
            data_dir: the directory to keep everything in. It is created when it is needed.
            settings: parameters of PostgreSQL for a server that we start, by name.

        Raises:
            UsageError: the path of the directory cannot be used.
        """
        self.data_dir = data_dir
        self._layout = Layout.of(data_dir)
        self._settings = dict(settings or {})

    def attach(self, announce: Announce = _silent) -> EmbeddedSession:
        """Use the server: create and start it if necessary, and keep it alive.

        Args:
            announce: told in one line what takes time.

        Returns:
            The session. The server is there until it is closed.

        Raises:
            DatabaseUnavailableError: the server cannot be created, started or reached.
        """
        with self._explained():
            self._layout.create()
            account = server_account(self._layout)
            with self._transition(announce) as transition:
                users = FileLock(self._layout.users_lock)
                started = None
                try:
                    # Only a holder of the transition lock ever takes this one alone.
                    users.try_shared()
                    started, found = self._ensure_running(account, transition, announce)
                except BaseException:
                    self._release(users, account, announce, started)
                    raise

        def leave() -> None:
            with self._explained(), self._transition(announce):
                self._release(users, account, announce, started)

        return EmbeddedSession(process.dsn_of(found.socket_dir), leave)

    def start(self, announce: Announce = _silent) -> str:
        """Start the server and leave it running until `stop`.

        Returns:
            Its DSN.

        Raises:
            DatabaseUnavailableError: as for `attach`.
        """
        with self.attach(announce) as session, self._explained():
            self._layout.keep.touch(mode=0o600)
            return session.dsn

    def stop(self, announce: Announce = _silent, *, force: bool = False) -> StopOutcome:
        """Stop the server; in use, it stops when its last user leaves, or now by force.

        Raises:
            DatabaseUnavailableError: it runs where we cannot stop it.
        """
        with self._explained():
            if not self._layout.server_lock.exists():
                return StopOutcome.NOT_RUNNING
        with self._explained(), self._transition(announce):
            self._layout.keep.unlink(missing_ok=True)
            if not is_held(self._layout.server_lock):
                return StopOutcome.NOT_RUNNING
            with FileLock(self._layout.users_lock) as users:
                if not users.try_exclusive() and not force:
                    return StopOutcome.IN_USE
                account = server_account(self._layout)
                if not process.stop(self._layout, account, announce, None):
                    raise DatabaseUnavailableError(
                        "The embedded PostgreSQL runs, but not where this command can see it.",
                        hint="Stop it in the container in which it was started.",
                    )
        return StopOutcome.STOPPED

    def status(self) -> ServerStatus:
        """Look at the database and its server, changing nothing.

        Raises:
            DatabaseUnavailableError: the data directory cannot be read.
        """
        with self._explained():
            version = cluster.data_version(self._layout)
            running = is_held(self._layout.server_lock)
            found = cluster.read_postmaster(self._layout.data) if running else None
            binaries = installed_binaries()
            return ServerStatus(
                data_dir=self.data_dir,
                initialised=version is not None,
                running=running,
                pid=found.pid if found else None,
                version=version,
                dsn=process.dsn_of(found.socket_dir) if found else None,
                socket_dir=found.socket_dir if found else None,
                kept=self._layout.keep.exists(),
                binaries_version=binaries.version if binaries else None,
                log=self._layout.log,
            )

    def check_startable(self) -> str:
        """Check, without doing anything, whether the server could be created and started.

        Returns:
            The version of PostgreSQL that would run, for example `18.6`.

        Raises:
            DatabaseUnavailableError: it could not; the message says why.
        """
        with self._explained():
            account = server_account(self._layout)
            place = self._layout.root
            while not place.exists():
                place = place.parent
            check_reach(place, account)
            major = cluster.data_version(self._layout)
            if major is None:
                cluster.check_creatable(self._layout, account)
            ourselves = Account(os.geteuid(), os.getegid())
            with self._upgrade_explained(account, major):
                return choose_binaries(ourselves, None, major).version

    def _ensure_running(
        self, account: Account, transition: FileLock, announce: Announce
    ) -> tuple[process.Started | None, cluster.Postmaster]:
        """Return the server if we started it, and where it is; it takes connections."""
        while True:
            started = None
            with FileLock(self._layout.server_lock) as lock:
                if lock.try_exclusive():
                    started = self._start(account, transition, lock, announce)
            try:
                found = process.wait_until_ready(self._layout, announce)
            except BaseException:
                if started:
                    process.stop(self._layout, account, announce, started)
                raise
            if found:
                return started, found
            if started:
                raise process.start_failure(self._layout, account, started)

    def _start(
        self, account: Account, transition: FileLock, lock: FileLock, announce: Announce
    ) -> process.Started:
        check_reach(self._layout.root, account)
        major = cluster.data_version(self._layout)
        binaries = self._binaries(account, major)
        if major is None:
            announce(
                f"Creating an embedded PostgreSQL {binaries.major} database in {self.data_dir}"
            )
            cluster.initialise(
                self._layout,
                account,
                binaries,
                durable=self._settings.get("fsync") != "off",
                inherited=transition.fileno(),
            )
        cluster.clean_up(self._layout, account)
        return process.start(self._layout, account, binaries, settings=self._settings, lock=lock)

    def _binaries(self, account: Account, major: int | None) -> Binaries:
        with self._upgrade_explained(account, major):
            return choose_binaries(account, self._layout.copies, major)

    @contextmanager
    def _upgrade_explained(self, account: Account, major: int | None) -> Iterator[None]:
        """Say how data of another major version are taken over."""
        try:
            yield
        except DatabaseUnavailableError as error:
            if major is not None and not error.hint:
                error.hint = cluster.upgrade_hint(self._layout, account, major)
            raise

    def _release(
        self,
        users: FileLock,
        account: Account,
        announce: Announce,
        started: process.Started | None,
    ) -> None:
        """Stop using the server; the last to leave stops it. We hold the transition lock."""
        try:
            users.unlock()
            if not self._layout.keep.exists() and users.try_exclusive():
                process.stop(self._layout, account, announce, started)
        finally:
            users.close()
            if started:
                process.leave_running(started)

    @contextmanager
    def _transition(self, announce: Announce) -> Iterator[FileLock]:
        """Hold the lock under which the server is created, started and stopped."""
        with FileLock(self._layout.transition_lock) as lock:
            news = News(announce)
            for elapsed in pauses():
                if lock.try_exclusive():
                    break
                news.tell(elapsed, "Waiting for another process that starts or stops PostgreSQL")
            yield lock

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn errors of the system into ours."""
        try:
            yield
        except PermissionError as error:
            raise DatabaseUnavailableError(
                f"The embedded database in {self.data_dir} is not ours to use: "
                f"{error.strerror}: {error.filename or self._layout.root}.",
                hint="Run the command as the owner of that directory, or choose another with "
                "--data-dir.",
            ) from error
        except OSError as error:
            raise DatabaseUnavailableError(
                f"The embedded database in {self.data_dir} cannot be used: {error.strerror}: "
                f"{error.filename or self._layout.root}."
            ) from error
        except psycopg.Error as error:
            raise DatabaseUnavailableError(
                f"The embedded PostgreSQL in {self.data_dir} runs but cannot be used: "
                f"{cluster.last_lines(str(error))}"
            ) from error


class EmbeddedSession:
    """The use of an embedded server, which stays while the session is open.

    Attributes:
        dsn: the libpq URI of the database `tapes`, as user postgres through the unix socket.
    """

    def __init__(self, dsn: str, leave: Callable[[], None]) -> None:
        self.dsn = dsn
        self._leave: Callable[[], None] | None = leave

    def __enter__(self) -> Self:
        """Return the session."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the session."""
        self.close()

    def close(self) -> None:
        """Stop using the server. If nobody else does and it is not kept, it is stopped.

        Raises:
            DatabaseUnavailableError: its files cannot be reached any more.
        """
        leave, self._leave = self._leave, None
        if leave:
            leave()
