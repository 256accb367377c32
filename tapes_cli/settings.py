"""The one place that reads the environment: variables, and the name of the machine."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tapes_cli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

_LIBPQ_VARIABLES = ("PGHOST", "PGHOSTADDR", "PGPORT", "PGSERVICE", "PGDATABASE", "PGSERVICEFILE")


@dataclass(frozen=True, slots=True)
class Connection:
    """Which database to use.

    `dsn` is a libpq connection string, empty for libpq's own environment, or None for the
    embedded PostgreSQL. `origin` says in words where it came from.
    """

    dsn: str | None
    origin: str

    @property
    def embedded(self) -> bool:
        """Whether nobody named a server."""
        return self.dsn is None


def connection(dsn: str | None, environ: Mapping[str, str] = os.environ) -> Connection:
    """Choose the database: the option, TAPES_DSN, DATABASE_URL, libpq's variables, embedded.

    Raises:
        UsageError: the option is given and empty, as an unset variable of a script makes it.
    """
    if dsn is not None and not dsn.strip():
        raise UsageError("--dsn is empty.", hint="Name a server, or leave the option out.")
    if dsn:
        return Connection(dsn, "--dsn")
    for variable in ("TAPES_DSN", "DATABASE_URL"):
        if value := environ.get(variable):
            return Connection(value, variable)
    for variable in _LIBPQ_VARIABLES:
        if environ.get(variable):
            return Connection("", variable)
    return Connection(None, "embedded")


def data_dir(option: Path | None, environ: Mapping[str, str] = os.environ) -> Path:
    """Return the directory of the embedded database and of kept rejects, made absolute.

    The option, else TAPES_DATA_DIR, else the platform's directory for a user's data.
    """
    from tapes_cli.store.embedded import default_data_dir  # noqa: PLC0415  # keeps start-up fast

    return Path(os.path.abspath(option)) if option else default_data_dir(environ)  # noqa: PTH100  # resolve() would follow links


def host_name() -> str:
    """Return the name of this machine."""
    return socket.gethostname()


def wants_color(environ: Mapping[str, str] = os.environ) -> bool:
    """Tell whether colour is allowed (https://no-color.org)."""
    return not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
