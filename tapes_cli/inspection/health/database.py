"""Checks of the database: what is asked, and what is made of the answers."""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING

from tapes_cli.errors import DatabaseUnavailableError, SchemaError, TapesError
from tapes_cli.inspection.health.check import (
    Check,
    amount,
    failed,
    failed_by,
    ok,
    phrase,
    skipped,
    warning,
)
from tapes_cli.inspection.health.machine import LITTLE_SPACE
from tapes_cli.store.postgres.connect import describe
from tapes_cli.store.postgres.health import LONG_OPEN_SECONDS, HealthQueries
from tapes_cli.store.postgres.schema_status import SchemaState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from tapes_cli.settings import Connection
    from tapes_cli.store.postgres.health import (
        Connections,
        Disk,
        LeaseRow,
        LongTransaction,
        Rights,
        Server,
    )
    from tapes_cli.store.postgres.schema_status import SchemaStatus

CONNECTION = "connection"

OLDEST_SERVER = 140000
"""The oldest PostgreSQL that its own developers still care for, as libpq counts versions."""

SHORTEST_STATEMENT = 5000
"""Milliseconds that a statement may need on a busy server."""

FEW_CONNECTIONS = 10
"""So many free connections others may take while an import begins."""

UNREACHED = "not looked at: there is no connection"

_DURABILITY = ("fsync", "full_page_writes", "synchronous_commit")
_LOSABLE = "what is reported as stored may be lost at a power failure"


@dataclass(slots=True)
class Examination:
    """The database that is looked at.

    Attributes:
        queries: the connection to it.
        chosen: how it was chosen.
        schema: which schema it has, once that is known.
    """

    queries: HealthQueries
    chosen: Connection
    schema: SchemaStatus | None = None


def check_database(chosen: Connection, dsn: str) -> Iterator[Check]:
    """Look at a database: a check for each name in `NAMES`, in that order."""
    began = perf_counter()
    try:
        queries = HealthQueries(dsn)
    except TapesError as error:
        yield failed_by(CONNECTION, error)
        yield from (skipped(name, UNREACHED) for name in NAMES[1:])
        return
    try:
        yield _connected(chosen, dsn, perf_counter() - began)
        yield from _ask_all(Examination(queries, chosen))
    finally:
        queries.close()


def _connected(chosen: Connection, dsn: str, seconds: float) -> Check:
    origin = "" if chosen.embedded else f" (from {chosen.origin})"
    return ok(CONNECTION, f"{describe(dsn)}{origin}, {seconds * 1000:.0f} ms")


def _ask_all(examined: Examination) -> Iterator[Check]:
    lost = False
    for name, ask, needed in _QUESTIONS:
        if lost:
            yield skipped(name, UNREACHED)
            continue
        try:
            yield ask(name, examined)
        except DatabaseUnavailableError as error:
            lost = True
            yield failed_by(name, error)
        except TapesError as error:
            yield failed_by(name, error) if needed else warning(name, phrase(error), error.hint)


def judge_server(name: str, found: Server) -> Check:
    """An old server lacks what the statements use; one that takes no writes takes no turns."""
    shown = f"PostgreSQL {found.version_text}"
    if found.version < OLDEST_SERVER:
        remedy = f"Use PostgreSQL {OLDEST_SERVER // 10000} or newer."
        return failed(name, f"{shown} is too old", remedy, TapesError)
    if found.in_recovery:
        return failed(
            name,
            f"{shown} is a standby and takes no writes",
            "Name the primary; with several hosts in the DSN, target_session_attrs=read-write "
            "finds it.",
            DatabaseUnavailableError,
        )
    if found.read_only:
        return failed(
            name,
            f"{shown}, where sessions may only read",
            "default_transaction_read_only is on for the server, this database, this user or this "
            "DSN: turn it off there.",
            DatabaseUnavailableError,
        )
    return ok(name, f"{shown}, takes writes")


def judge_encoding(name: str, found: Server) -> Check:
    """Captures hold every character there is, and escapes for them that only UTF8 takes."""
    if found.encoding == "UTF8":
        return ok(name, found.encoding)
    return failed(
        name,
        f"{found.encoding}, where captures need UTF8",
        "Make another database: createdb --template template0 --encoding UTF8 NAME",
        TapesError,
    )


def judge_schema(name: str, found: SchemaStatus, remedy: str, *, migrates: bool) -> Check:
    """Judge the schema.

    Args:
        name: the check's.
        found: the schema.
        remedy: what to do unless it is current.
        migrates: whether the next import brings it up to date by itself.
    """
    if found.state is SchemaState.CURRENT:
        return ok(name, f"current, version {found.current}")
    sentence = found.sentence.rstrip(".")
    if migrates and found.state in {SchemaState.MISSING, SchemaState.BEHIND}:
        return ok(name, f"{sentence}: the next import brings it up to date")
    return failed(name, sentence, remedy, SchemaError)


def judge_rights(name: str, found: Rights, *, pending: bool) -> Check:
    """Judge the rights; `pending` tells that tables are still to be made or changed."""
    if found.closed_schemas and not found.tables:
        schemas = ", ".join(found.closed_schemas)
        remedy = f"Let its owner run: GRANT USAGE ON SCHEMA {schemas} TO {found.role}"
        return failed(
            name, f"{found.role} may not use the schema {schemas}", remedy, DatabaseUnavailableError
        )
    if found.missing:
        lacking = _grouped(found.missing)
        lacks = "; ".join(f"{privileges} on {tables}" for privileges, tables in lacking)
        grants = "; ".join(
            f"GRANT {privileges} ON {tables} TO {found.role}" for privileges, tables in lacking
        )
        return failed(
            name,
            f"{found.role} lacks {lacks}",
            f"Let the owner of the tables run: {grants}",
            DatabaseUnavailableError,
        )
    if pending and not found.may_create:
        place = f"the schema {found.schema}" if found.schema else "any schema of its search_path"
        return warning(
            name,
            f"{found.role} may not create tables in {place}, as the migrations do",
            "Let somebody migrate who may, or apply by hand what `tapes-cli migrate sql` prints.",
        )
    if not found.tables:
        return ok(name, f"{found.role} may create tables; there are none yet")
    return ok(name, f"{found.role} may read and write {', '.join(found.tables)}")


def _grouped(missing: Mapping[str, Sequence[str]]) -> list[tuple[str, str]]:
    """Return each set of privileges with all tables for which it is missing."""
    tables: dict[str, list[str]] = {}
    for table, privileges in missing.items():
        tables.setdefault(", ".join(privileges), []).append(table)
    return [(privileges, ", ".join(names)) for privileges, names in tables.items()]


def judge_disk(name: str, found: Disk, free: int | None) -> Check:
    """Judge the disk of the server by its free bytes, None where they cannot be seen."""
    size = "" if found.database_bytes is None else f"database {amount(found.database_bytes)}, "
    if free is None:
        return ok(name, f"{size}free disk not visible from here")
    if free < LITTLE_SPACE:
        return warning(
            name, f"{size}only {amount(free)} free on its disk", "Make room on that disk."
        )
    return ok(name, f"{size}{amount(free)} free on its disk")


def judge_settings(name: str, found: Mapping[str, str]) -> Check:
    """Judge the parameters that hurt; `found` has those that the server knows, times in ms."""
    harm, remedies = [], []
    for parameter in ("statement_timeout", "transaction_timeout"):
        limit = int(found.get(parameter, "0"))
        if 0 < limit < SHORTEST_STATEMENT:
            harm.append(f"{parameter} is only {limit} ms")
            remedies.append(f"Raise {parameter} for this user (ALTER ROLE … SET …).")
    risky = [parameter for parameter in _DURABILITY if found.get(parameter) == "off"]
    if risky:
        harm.append(f"{' and '.join(risky)} off: {_LOSABLE}")
        remedies.append(f"Turn on {' and '.join(risky)}.")
    if harm:
        return warning(name, "; ".join(harm), " ".join(remedies))
    return ok(name, "none that hurts an import")


def judge_connections(name: str, found: Connections) -> Check:
    """Each worker of an import takes a connection."""
    shown = f"{found.used} of {found.limit} are in use"
    if found.limit - found.used < FEW_CONNECTIONS:
        return warning(
            name,
            shown,
            "Import with fewer --workers, end what is idle, or raise max_connections.",
        )
    return ok(name, shown)


def judge_leases(name: str, found: Sequence[LeaseRow]) -> Check:
    """Somebody who imports is no fault; somebody who has vanished need not be waited for."""
    alive = [lease for lease in found if not lease.expired]
    shown = "; ".join(
        f"process {lease.pid} on {lease.host}, since {lease.started_at:%Y-%m-%d %H:%M:%S} UTC"
        for lease in alive or found
    )
    if alive:
        return ok(name, f"held by {shown}")
    if found:
        return warning(
            name, f"its holder is gone: {shown}", "Nothing: the next import takes it over."
        )
    return ok(name, "free")


def judge_transactions(name: str, found: Sequence[LongTransaction]) -> Check:
    """Whoever has changed rows and does not commit is waited for."""
    if not found:
        return ok(name, f"nobody keeps locks for more than {LONG_OPEN_SECONDS} s")
    shown = "; ".join(
        f"process {each.pid} ({each.application or 'without a name'}) for {each.seconds} s"
        for each in found
    )
    return warning(
        name,
        f"locks on the tables are kept by {shown}",
        "Let it commit, or end it: SELECT pg_terminate_backend(PID)",
    )


def _schema(name: str, examined: Examination) -> Check:
    found = examined.schema = examined.queries.schema()
    remedy = examined.queries.schema_remedy(found, examined.chosen.origin)
    return judge_schema(name, found, remedy, migrates=examined.chosen.embedded)


def _rights(name: str, examined: Examination) -> Check:
    pending = examined.schema is not None and bool(examined.schema.pending)
    return judge_rights(name, examined.queries.rights(), pending=pending)


def _disk(name: str, examined: Examination) -> Check:
    found = examined.queries.disk()
    free = None
    if found.data_directory is not None:
        # In a container it is elsewhere, and behind directories that are not ours to enter.
        with suppress(OSError):
            free = shutil.disk_usage(found.data_directory).free
    return judge_disk(name, found, free)


# Name, question, and whether no import can do without a good answer.
_QUESTIONS: tuple[tuple[str, Callable[[str, Examination], Check], bool], ...] = (
    ("server", lambda name, e: judge_server(name, e.queries.server()), True),
    ("encoding", lambda name, e: judge_encoding(name, e.queries.server()), True),
    ("schema", _schema, True),
    ("rights", _rights, True),
    ("disk", _disk, False),
    ("settings", lambda name, e: judge_settings(name, e.queries.settings()), False),
    ("free_connections", lambda name, e: judge_connections(name, e.queries.connections()), False),
    ("import_lock", lambda name, e: judge_leases(name, e.queries.leases()), False),
    (
        "long_transactions",
        lambda name, e: judge_transactions(name, e.queries.long_transactions()),
        False,
    ),
)

NAMES = (CONNECTION, *(name for name, _, _ in _QUESTIONS))
"""The checks of a database, in order."""
