"""Connections, and what may be said about where they go: never a password.

libpq's own messages can repeat parts of a connection string, so they are classified here and
shown only where nothing secret can be in them.
"""

from __future__ import annotations

import logging
import re
import time
from typing import TYPE_CHECKING, Any, TypeAlias

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tapes_cli.errors import DatabaseUnavailableError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

# What psycopg logs when a pipeline ends early names the user, and every error is told anyway.
logging.getLogger("psycopg").addHandler(logging.NullHandler())

PgConnection: TypeAlias = "psycopg.Connection[tuple[Any, ...]]"
"""A connection whose rows are tuples."""

APPLICATION_NAME = "tapes-cli"
CONNECT_TIMEOUT = 10
"""Seconds to wait for a server, unless the DSN or PGCONNECT_TIMEOUT says otherwise."""

_WAIT_SECONDS = 0.5

# By its own defaults, the system notices after two hours that the other machine is gone.
_KEEPALIVE: dict[str, str | int] = {
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}

_UNREADABLE = "The DSN cannot be read."
_UNREADABLE_HINT = (
    "Write postgresql://USER:PASSWORD@HOST:PORT/DATABASE or 'host=HOST dbname=DATABASE user=USER'; "
    "in a URI, @ : / % of a password become %40 %3A %2F %25."
)
_TIMEOUT = ("no answer in time", "Check host and port, and whether a firewall is in between.")
_KNOWN_FAILURES: tuple[tuple[str, str, str], ...] = (
    (
        r'database ".*" does not exist',
        "there is no such database",
        "Create it with createdb, or name another one.",
    ),
    (
        r'role ".*" does not exist',
        "the server does not know this user",
        "Name another user, or create it with createuser.",
    ),
    (
        "password authentication failed",
        "the server refuses this user or this password",
        "Check both; a password can also stand in PGPASSWORD or in ~/.pgpass.",
    ),
    (
        "no password supplied",
        "the server asks for a password",
        "Put it into the DSN, PGPASSWORD or ~/.pgpass.",
    ),
    (
        r"no pg_hba\.conf entry|pg_hba\.conf rejects",
        "the server lets nobody in from here with this user and database",
        "A line in its pg_hba.conf has to allow it, perhaps only with sslmode=require.",
    ),
    (
        "authentication failed|authentication method",
        "the server refuses this user",
        "Check the user, and what the server's pg_hba.conf asks of it.",
    ),
    (
        "failed to resolve host|could not translate host name",
        "there is no such host",
        "Check the host's name; a / @ or : of a password in a URI must be percent-encoded.",
    ),
    (
        "Connection refused|No such file or directory",
        "no server listens there",
        "Start the server, or check host and port.",
    ),
    (
        "too many clients|remaining connection slots|too many connections",
        "all connections of the server are taken",
        "Try again later, or raise its max_connections.",
    ),
    (
        "starting up|shutting down|recovery mode|not yet accepting",
        "the server is starting or stopping",
        "Try again in a moment.",
    ),
    (
        "due to statement timeout",
        "its statements are cancelled, as by statement_timeout",
        "Raise it for this user (ALTER ROLE … SET statement_timeout = …).",
    ),
    ("timeout expired|timed out", *_TIMEOUT),
)
_SECRETS = ("password", "sslpassword", "oauth_client_secret")
_NAMING = (
    "service",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "sslmode",
    "options",
    "target_session_attrs",
)


class OptionsRefusedError(DatabaseUnavailableError):
    """A proxy does not pass on the options that were asked for."""


def connect(dsn: str, *, autocommit: bool = True, options: str = "") -> PgConnection:
    """Open a connection that speaks UTF-8, counts time in UTC and names itself `tapes-cli`.

    It prepares no statement by itself: a proxy that pools transactions may hand it to others.

    Args:
        dsn: a libpq URI or connection string; empty for libpq's own environment.
        autocommit: whether each statement is a transaction of its own.
        options: command-line options for the server, in addition to those of the DSN.

    Raises:
        OptionsRefusedError: a proxy does not pass on options.
        UsageError: the DSN is not well-formed.
        DatabaseUnavailableError: no connection came about; the message says where it should
            have gone and why it did not.
    """
    parameters = _parameters(dsn)
    settings: dict[str, str | int] = {
        "application_name": APPLICATION_NAME,
        "client_encoding": "UTF8",
    }
    if "connect_timeout" not in parameters:
        settings["connect_timeout"] = CONNECT_TIMEOUT
    settings |= {key: value for key, value in _KEEPALIVE.items() if key not in parameters}
    if options:
        settings["options"] = f"{parameters.get('options', '')} {options}".strip()
    conninfo = make_conninfo(dsn, **settings)
    try:
        conn = psycopg.connect(conninfo, autocommit=True, prepare_threshold=None)
    except psycopg.ProgrammingError:
        raise UsageError(_UNREADABLE, hint=_UNREADABLE_HINT) from None
    except psycopg.Error as error:
        if options and "unsupported startup parameter" in str(error):
            raise OptionsRefusedError("The server takes no options.") from None
        raise _unavailable(error, dsn, parameters) from error
    try:
        conn.execute("SET TIME ZONE 'UTC'")
        conn.autocommit = autocommit
    except psycopg.Error as error:
        conn.close()
        raise _unavailable(error, dsn, parameters) from error
    return conn


def wait_for(dsn: str, seconds: float) -> None:
    """Wait until a connection comes about, for so many seconds; 0 does not look at all.

    Raises:
        UsageError: the DSN is not well-formed.
        DatabaseUnavailableError: none came about; see `connect`.
    """
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        try:
            connect(dsn).close()
        except DatabaseUnavailableError:
            if left <= _WAIT_SECONDS:
                raise
            time.sleep(_WAIT_SECONDS)
        else:
            return


def describe(dsn: str) -> str:
    """Say where a DSN leads: database, host, port and user, and nothing else of it."""
    try:
        parameters = _parameters(dsn)
    except UsageError:
        return "a database whose DSN cannot be read"
    user = parameters.get("user", "")
    database = _behind_credentials(parameters.get("dbname") or user)
    place = _place(parameters)
    return f"database {database} at {place} as {user}"


def naming_option(conn: PgConnection) -> str:
    """Return a DSN without secrets that leads where the connection leads."""
    parameters = conn.info.get_parameters()
    return make_conninfo(**{key: parameters[key] for key in _NAMING if key in parameters})


def _parameters(dsn: str) -> dict[str, str]:
    """Return what libpq makes of a DSN and of its environment."""
    try:
        given = conninfo_to_dict(dsn)
    except (psycopg.Error, UnicodeError):
        raise UsageError(_UNREADABLE, hint=_UNREADABLE_HINT) from None
    defaults = {
        option.keyword.decode(): option.val.decode(errors="replace")
        for option in pq.Conninfo.get_defaults()
        if option.val is not None
    }
    return defaults | {key: str(value) for key, value in given.items() if value is not None}


def _place(parameters: Mapping[str, str]) -> str:
    hosts = parameters.get("host") or parameters.get("hostaddr")
    if not hosts:
        service = parameters.get("service")
        return f"service {service}" if service else "the local socket"
    ports = parameters.get("port", "").split(",")
    # With a / in its password a URI is cut elsewhere, and what stands as port is not one.
    if "@" in parameters.get("dbname", ""):
        ports = [""]
    names = [_behind_credentials(host) for host in hosts.split(",")]
    if len(ports) != len(names):
        ports = ports[:1] * len(names)
    return ",".join(
        f"{name}:{port}" if port.isdecimal() else name
        for name, port in zip(names, ports, strict=True)
    )


def _behind_credentials(value: str) -> str:
    """Drop the piece of a password that an unescaped @ or / put into a host or database."""
    return value.rpartition("@")[2]


def _unavailable(
    error: psycopg.Error, dsn: str, parameters: Mapping[str, str]
) -> DatabaseUnavailableError:
    reason, hint = _explain(error, parameters)
    return DatabaseUnavailableError(f"Cannot connect to {describe(dsn)}: {reason}.", hint=hint)


def _explain(error: psycopg.Error, parameters: Mapping[str, str]) -> tuple[str, str]:
    if isinstance(error, psycopg.errors.ConnectionTimeout):
        return _TIMEOUT
    text = str(error)
    for pattern, reason, hint in _KNOWN_FAILURES:
        if re.search(pattern, text):
            return reason, hint
    shown = re.split(" failed: |^connection is bad: ", text.partition("\n")[0])[-1].strip(". ")
    if not shown or _may_tell_secrets(shown, parameters):
        shown = "the connection failed"
    return shown, "Check the DSN; the server's log may tell more."


def _may_tell_secrets(text: str, parameters: Mapping[str, str]) -> bool:
    named = parameters.get("host", "") + parameters.get("dbname", "")
    return "@" in named or any(parameters[key] in text for key in _SECRETS if parameters.get(key))
