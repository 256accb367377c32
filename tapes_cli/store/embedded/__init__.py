"""The embedded PostgreSQL: the default database, started by the command that needs it.

    layout     which file is where, and the default data directory
    accounts   as whom the server runs, and how its programs are launched
    locks      flock: who uses the server, and whether it lives
    binaries   where the programs of PostgreSQL come from
    cluster    the data on disk: created, checked, cleaned up after a crash
    process    the running server: started, waited for, stopped
    server     what callers use

Nothing listens on TCP: the server is reached through a unix socket that only its own user, and
root, can open.
"""

from tapes_cli.store.embedded.binaries import Binaries, find_binaries
from tapes_cli.store.embedded.layout import default_data_dir
from tapes_cli.store.embedded.server import (
    EmbeddedServer,
    EmbeddedSession,
    ServerStatus,
    StopOutcome,
)

__all__ = [
    "Binaries",
    "EmbeddedServer",
    "EmbeddedSession",
    "ServerStatus",
    "StopOutcome",
    "default_data_dir",
    "find_binaries",
]
