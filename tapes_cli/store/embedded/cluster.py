"""The data on disk: created whole or not at all, checked, and cleaned up after a crash."""

from __future__ import annotations

import os
import shlex
import shutil
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tapes_cli.errors import DatabaseUnavailableError
from tapes_cli.store.embedded.accounts import Account, run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tapes_cli.store.embedded.binaries import Binaries
    from tapes_cli.store.embedded.layout import Layout

SOCKET_NAME = ".s.PGSQL.5432"
PRIVATE_SOCKET_PREFIX = "tapes-"
PRIVATE_SOCKET_PARENT = Path("/tmp")  # noqa: S108  # short and everywhere; a 0700 directory in it
# Where the choice of a locale provider appeared.
_FIRST_WITH_BUILTIN_LOCALE = 17
_SHOWN_LINES = 5


@dataclass(frozen=True, slots=True)
class Postmaster:
    """What a server writes about itself into postmaster.pid (PostgreSQL's miscadmin.h).

    Attributes:
        pid: its process id.
        socket_dir: where its socket is.
        ready: whether it has begun to take connections.
    """

    pid: int
    socket_dir: Path
    ready: bool


def read_postmaster(data: Path) -> Postmaster | None:
    """Return what postmaster.pid says, or None while it is missing or half written."""
    try:
        lines = os.fsdecode((data / "postmaster.pid").read_bytes()).split("\n")
    except FileNotFoundError:
        return None
    try:
        return Postmaster(int(lines[0]), Path(lines[4]), lines[7].strip() == "ready")
    except (IndexError, ValueError):
        return None


def data_version(layout: Layout) -> int | None:
    """Return the major version of PostgreSQL that created the data, None if there are none."""
    try:
        return int((layout.data / "PG_VERSION").read_text("ascii"))
    except FileNotFoundError:
        return None
    except ValueError:
        raise DatabaseUnavailableError(
            f"{layout.data / 'PG_VERSION'} does not hold the version of PostgreSQL.",
            hint="Restore the data directory from a backup, or move it away to begin anew.",
        ) from None


def check_creatable(layout: Layout, account: Account) -> None:
    """Check what can be checked before data are created.

    Raises:
        DatabaseUnavailableError: the user cannot run initdb, or something else is in its place.
    """
    if not account.has_passwd_entry:
        raise DatabaseUnavailableError(
            f"User {account} has no passwd entry, and PostgreSQL's initdb does not run without.",
            hint="Add one (in a container: run as a user that exists), or name a server "
            "with --dsn.",
        )
    if layout.data.exists() and any(layout.data.iterdir()):
        raise DatabaseUnavailableError(
            f"{layout.data} exists but holds no PostgreSQL database.",
            hint="Move it away, or choose another --data-dir.",
        )


def initialise(
    layout: Layout,
    account: Account,
    binaries: Binaries,
    *,
    durable: bool,
    inherited: int,
) -> None:
    """Create the data, under another name until they are whole.

    Args:
        layout: where.
        account: as whom.
        binaries: with what.
        durable: whether it shall survive a power failure.
        inherited: the descriptor of the transition lock. initdb holds it too, so that an initdb
            that outlives us is over before the next one looks.

    Raises:
        DatabaseUnavailableError: initdb failed.
    """
    check_creatable(layout, account)
    for leftover in layout.root.glob("data.new-*"):
        shutil.rmtree(leftover)
    fresh = layout.root / f"data.new-{os.getpid()}"
    fresh.mkdir(mode=0o700)
    account.own(fresh)
    status, printed = run(
        [binaries.directory / "initdb", *_initdb_options(binaries, durable=durable), "-D", fresh],
        account,
        inherited=[inherited],
    )
    if status != 0:
        shutil.rmtree(fresh, ignore_errors=True)
        raise DatabaseUnavailableError(
            f"The embedded database could not be created in {layout.root}: "
            f"{last_lines(printed) or f'initdb ended with status {status}'}"
        )
    fresh.rename(layout.data)
    _sync_directory(layout.root)


def _initdb_options(binaries: Binaries, *, durable: bool) -> Iterator[str]:
    yield from ("-U", "postgres", "--encoding=UTF8", "--locale=C")
    if binaries.major >= _FIRST_WITH_BUILTIN_LOCALE:
        yield from ("--locale-provider=builtin", "--builtin-locale=C.UTF-8")
    yield from ("--auth-local=trust", "--auth-host=reject")
    if not durable:
        yield "--no-sync"


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def last_lines(text: str) -> str:
    """Return the last lines of what a program printed, as one line."""
    return " / ".join([line for line in text.splitlines() if line.strip()][-_SHOWN_LINES:])


def upgrade_hint(layout: Layout, account: Account, major: int) -> str:
    """Return the commands that take data of another major version over, as one line."""
    place, kept, dump = (
        shlex.quote(str(path))
        for path in (
            layout.root,
            layout.root.with_name(f"postgres.{major}"),
            layout.root.with_name("tapes.dump"),
        )
    )
    data = shlex.quote(str(layout.data))
    option = f"--data-dir {shlex.quote(str(layout.root.parent))}"
    return (
        f"Dump and restore it, with OLD for the bin directory of PostgreSQL {major}, the pg_ctl "
        f"lines as user {account}: "
        f"OLD/pg_ctl -D {data} -o '-k /tmp -c listen_addresses=' start; "
        f"OLD/pg_dump -h /tmp -U postgres -Fc tapes > {dump}; OLD/pg_ctl -D {data} stop; "
        f"mv {place} {kept}; tapes-cli db start {option}; "
        f'pg_restore -d "$(tapes-cli db url {option})" {dump}'
    )


def serves(pid: int, data: Path) -> bool:
    """Tell whether a process is the PostgreSQL server of a data directory.

    A process id alone proves nothing: after a crash it may have gone to somebody else.
    """
    return any(_same(place, data) for place in _directories_of(pid))


def _same(place: Path, data: Path) -> bool:
    try:
        return place.samefile(data)
    except OSError:
        return False


def _directories_of(pid: int) -> Iterator[Path]:
    """Yield where a server may have its data: its working directory, and its option -D."""
    process = Path(f"/proc/{pid}")
    # A root without the right to trace cannot see the working directory of others.
    yield process / "cwd"
    try:
        arguments = [os.fsdecode(part) for part in (process / "cmdline").read_bytes().split(b"\0")]
    except OSError:
        arguments = _arguments_by_ps(pid)
    if "-D" in arguments[:-1]:
        yield Path(arguments[arguments.index("-D") + 1])


def _arguments_by_ps(pid: int) -> list[str]:
    """Return the arguments of a server where there is no /proc: -D, its directory, the rest."""
    ps = shutil.which("ps", path=os.defpath)
    if ps is None:
        return []
    listed = subprocess.run(  # noqa: S603  # an argument list of ours
        [ps, "-ww", "-o", "args=", "-p", str(pid)], capture_output=True, check=False
    )
    _, found, rest = os.fsdecode(listed.stdout.strip()).partition(" -D ")
    return ["-D", *rest.split(" -c ")] if found else []


def clean_up(layout: Layout, account: Account) -> None:
    """Remove what a server that crashed left behind. The caller holds the server lock.

    Raises:
        DatabaseUnavailableError: a server runs that does not know of our lock.
    """
    left = read_postmaster(layout.data)
    if left and serves(left.pid, layout.data):
        raise DatabaseUnavailableError(
            f"A PostgreSQL server that this command did not start (pid {left.pid}) uses "
            f"{layout.data}.",
            hint=f"Stop it (kill -INT {left.pid}), or connect to it with --dsn.",
        )
    if left:
        remove_socket(left.socket_dir, layout, account)
    (layout.data / "postmaster.pid").unlink(missing_ok=True)


def remove_socket(socket_dir: Path, layout: Layout, account: Account) -> None:
    """Remove the socket of a server that is gone, and the directory that was made for it."""
    private = socket_dir != layout.data
    if private and not _is_private_socket_dir(socket_dir, account):
        return
    for name in (SOCKET_NAME, f"{SOCKET_NAME}.lock"):
        (socket_dir / name).unlink(missing_ok=True)
    if private:
        socket_dir.rmdir()


def _is_private_socket_dir(place: Path, account: Account) -> bool:
    """Tell whether a directory is one of those made for a socket, and still ours."""
    if place.parent != PRIVATE_SOCKET_PARENT or not place.name.startswith(PRIVATE_SOCKET_PREFIX):
        return False
    try:
        status = place.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == account.uid
