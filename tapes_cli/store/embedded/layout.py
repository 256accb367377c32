"""Which file of the embedded database is where."""

from __future__ import annotations

import os
import pwd
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tapes_cli.errors import DatabaseUnavailableError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

_PRIVATE = 0o700
# As root the server runs as somebody else, who must be able to pass through.
_PASSABLE = 0o711


def default_data_dir(environ: Mapping[str, str]) -> Path:
    """Return the directory for the data of whoever runs the command, as an absolute path.

    TAPES_DATA_DIR, else /var/lib/tapes for root, else the place where the platform keeps a
    user's data (XDG base directories, https://specifications.freedesktop.org/basedir-spec/).

    Raises:
        DatabaseUnavailableError: the user has no home directory.
    """
    if named := environ.get("TAPES_DATA_DIR"):
        return _absolute(named)
    if os.geteuid() == 0:
        return Path("/var/lib/tapes")
    if sys.platform == "darwin":
        return _home(environ) / "Library" / "Application Support" / "tapes"
    shared = Path(environ.get("XDG_DATA_HOME", ""))
    # The specification wants relative paths ignored.
    return (shared if shared.is_absolute() else _home(environ) / ".local" / "share") / "tapes"


def _home(environ: Mapping[str, str]) -> Path:
    if named := environ.get("HOME"):
        return _absolute(named)
    try:
        return Path(pwd.getpwuid(os.geteuid()).pw_dir)
    except KeyError:
        raise DatabaseUnavailableError(
            f"User id {os.geteuid()} has no home directory to keep the embedded database in.",
            hint="Set TAPES_DATA_DIR, or name a server with --dsn.",
        ) from None


def _absolute(path: str | Path) -> Path:
    return Path(os.path.abspath(path))  # noqa: PTH100  # resolve() would follow links


@dataclass(frozen=True, slots=True)
class Layout:
    """The files of one embedded database, all under `<data directory>/postgres`."""

    root: Path

    @classmethod
    def of(cls, data_dir: Path) -> Layout:
        """Return the layout below a data directory, links in its path resolved.

        Raises:
            UsageError: the path holds a control character, which postmaster.pid cannot.
        """
        resolved = data_dir.resolve()
        if any(char < " " for char in str(resolved)):
            raise UsageError(
                "The path of the data directory holds a control character.",
                hint="Choose another one with --data-dir.",
            )
        return cls(resolved / "postgres")

    @property
    def data(self) -> Path:
        """What PostgreSQL calls PGDATA."""
        return self.root / "data"

    @property
    def log(self) -> Path:
        """What the server has to say."""
        return self.root / "server.log"

    @property
    def transition_lock(self) -> Path:
        """Held while the server is created, started or stopped."""
        return self.root / "transition.lock"

    @property
    def users_lock(self) -> Path:
        """Shared by everybody who uses the server."""
        return self.root / "users.lock"

    @property
    def server_lock(self) -> Path:
        """Held by the server and each of its processes, from birth to death."""
        return self.root / "server.lock"

    @property
    def keep(self) -> Path:
        """Exists while the server shall outlive those who use it."""
        return self.root / "keep"

    @property
    def copies(self) -> Path:
        """Binaries copied from where the user of the server cannot read them."""
        return self.root / "binaries"

    def create(self) -> None:
        """Make the directories that are missing, private to the user, or passable for root's."""
        mode = _PASSABLE if os.geteuid() == 0 else _PRIVATE
        missing = []
        place = self.root
        while not place.exists():
            missing.append(place)
            place = place.parent
        for directory in reversed(missing):
            directory.mkdir(exist_ok=True)
            # Not through mkdir, where the umask could take away what is needed.
            directory.chmod(mode)
        if self.root in missing and os.geteuid() == 0:
            # Root visits a user's data directory: the user must be able to come back.
            owner = self.root.parent.stat()
            os.chown(self.root, owner.st_uid, owner.st_gid)
