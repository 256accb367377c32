"""As whom the server runs, and how its programs are launched.

PostgreSQL refuses to run as root. Root therefore starts it as another user: the owner of the
data, else `postgres`, else `nobody`.
"""

from __future__ import annotations

import errno
import os
import pwd
import subprocess
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from tapes_cli.errors import DatabaseUnavailableError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tapes_cli.store.embedded.layout import Layout


@dataclass(frozen=True, slots=True)
class Account:
    """A user and group. `switch` tells that it is not our own."""

    uid: int
    gid: int
    switch: bool = False

    def __str__(self) -> str:
        """Return the name of the user, or its number where it has none."""
        try:
            return pwd.getpwuid(self.uid).pw_name
        except KeyError:
            return f"id {self.uid}"

    @property
    def has_passwd_entry(self) -> bool:
        """Whether the user has a name, without which initdb does not run."""
        try:
            pwd.getpwuid(self.uid)
        except KeyError:
            return False
        return True

    def own(self, path: Path) -> None:
        """Make the user the owner of what we created for it."""
        if self.switch:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)


def server_account(layout: Layout) -> Account:
    """Return as whom the server of a data directory runs.

    Raises:
        DatabaseUnavailableError: we are root and there is no other user to run it.
    """
    if os.geteuid() != 0:
        return Account(os.geteuid(), os.getegid())
    for place in (layout.data, layout.root, layout.root.parent):
        try:
            status = place.stat()
        except FileNotFoundError:
            continue
        if status.st_uid != 0:
            return Account(status.st_uid, status.st_gid, switch=True)
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_uid, entry.pw_gid, switch=True)
    raise DatabaseUnavailableError(
        "PostgreSQL refuses to run as root, and there is no user postgres or nobody to run it.",
        hint="Give the data directory to an ordinary user, or name a server with --dsn.",
    )


def launch(
    command: Sequence[str | Path],
    account: Account,
    *,
    output: int | IO[bytes],
    inherited: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Start a program of PostgreSQL: no shell, no terminal, a session of its own.

    Args:
        command: the program, as an absolute path, and its arguments.
        account: as whom it runs.
        output: where its stdout and stderr go.
        inherited: the file descriptors it gets besides.

    Raises:
        DatabaseUnavailableError: we may not run programs as that user.
        OSError: the program cannot be executed.
    """
    try:
        return subprocess.Popen(  # noqa: S603  # an argument list of ours
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd="/",
            env=_environment(),
            umask=0o077,
            # Ctrl-C on the terminal is for the importer, not for the server.
            start_new_session=True,
            pass_fds=inherited,
            user=account.uid if account.switch else None,
            group=account.gid if account.switch else None,
            extra_groups=[] if account.switch else None,
        )
    except PermissionError as error:
        if error.errno != errno.EPERM:
            raise
        raise DatabaseUnavailableError(
            f"PostgreSQL cannot be run as user {account}: this root may not become other users.",
            hint="Run the command as an ordinary user, or name a server with --dsn.",
        ) from error


def run(
    command: Sequence[str | Path], account: Account, *, inherited: Sequence[int] = ()
) -> tuple[int, str]:
    """Run a program like `launch`; return its exit status and what it printed."""
    process = launch(command, account, output=subprocess.PIPE, inherited=inherited)
    with process:
        try:
            printed, _ = process.communicate()
        except BaseException:
            process.kill()
            raise
    return process.returncode, printed.decode(errors="replace").strip()


def check_reach(place: Path, account: Account) -> None:
    """Check that the server's user can enter a directory.

    Raises:
        DatabaseUnavailableError: it cannot. We never change the mode of what we did not create.
    """
    if not account.switch:
        return
    status, _ = run(["/bin/sh", "-c", 'cd -- "$1"', "sh", place], account)
    if status != 0:
        raise DatabaseUnavailableError(
            f"PostgreSQL runs as user {account} here, who cannot enter {place}.",
            hint=f"Choose a --data-dir whose parents {account} may enter (chmod o+x), or give "
            "the data directory to a user who may.",
        )


def _environment() -> dict[str, str]:
    """Return our environment without what changes PostgreSQL's language and settings."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("LC_", "PG")) and name not in {"LANG", "LANGUAGE"}
    }
