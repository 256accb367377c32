"""Whose fault a failure is: the database's, the record's, or that of what we believed.

Branches on SQLSTATE alone, which is all that a distributed PostgreSQL passes on.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, TypeVar

import psycopg

from tapes_cli.errors import DatabaseUnavailableError, SchemaError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tapes_cli.errors import TapesError

T = TypeVar("T")

NOT_PREPARED = frozenset({"26000", "42P05"})
"""A statement is not prepared that was, or is that was not: it is another connection."""

_CONNECTION = frozenset({"57P01", "57P02", "57P03"}) | NOT_PREPARED
_TRANSIENT = frozenset({"40001", "40P01", "55P03", "57014", "XX000"})
_TRANSIENT_CLASS = "53"  # out of disk, memory or connections: somebody may mend it
_BELIEF = frozenset({"23503", "23505", "23514"})
_RECORD_CLASSES = frozenset({"22", "23", "54"})


class Fault(Enum):
    """What to do about a failed statement."""

    CONNECTION = "the connection is gone: connect again and repeat"
    TRANSIENT = "the database was busy: connect again and repeat"
    BELIEF = "what was believed of the database no longer holds: look again and repeat"
    RECORD = "the database will never take this turn: reject it"
    OTHER = "nobody foresaw this: give up"


def fault(error: psycopg.Error) -> Fault:
    """Classify a failure by its SQLSTATE; a failure without one is a lost connection."""
    if error.sqlstate is not None:
        return fault_of(error.sqlstate)
    lost = isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    return Fault.CONNECTION if lost else Fault.RECORD


def fault_of(state: str) -> Fault:
    """Classify a SQLSTATE."""
    if state.startswith("08") or state in _CONNECTION:
        return Fault.CONNECTION
    if state in _TRANSIENT or state.startswith(_TRANSIENT_CLASS):
        return Fault.TRANSIENT
    if state in _BELIEF:
        return Fault.BELIEF
    return Fault.RECORD if state[:2] in _RECORD_CLASSES else Fault.OTHER


_SCHEMA = frozenset({"42P01", "42703", "42883", "42P10"})


def explained(error: psycopg.Error) -> TapesError:
    """Return what to tell the user of a failure that nothing here can mend."""
    if fault(error) is Fault.CONNECTION:
        return DatabaseUnavailableError("The database was lost.", hint=_TRY_AGAIN)
    state = error.sqlstate or "no SQLSTATE"
    if state in _SCHEMA:
        return SchemaError(
            f"A table, column or function is missing in the database (SQLSTATE {state}).",
            hint="Look at it with: tapes-cli migrate status",
        )
    condition = type(error).__name__
    return DatabaseUnavailableError(
        f"The database refuses to store anything: {condition} (SQLSTATE {state}).",
        hint="Check the user's rights and whether the server is read-only; then import again.",
    )


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to go on trying: doubling pauses up to `longest`, `limit` seconds in all."""

    limit: float = 30.0
    first: float = 0.05
    longest: float = 2.0


DEFAULT_BACKOFF = Backoff()

_TRY_AGAIN = "What was reported as stored is stored; run the import again to go on."
_BUSY: dict[str, tuple[str, str]] = {
    "53100": ("the server's disk is full", "Make room on the server; then import again."),
    "53200": ("the server is out of memory", "Give it more memory; then import again."),
    "53300": (
        "all connections of the server are taken",
        "Import again later, or raise its max_connections.",
    ),
    "57014": (
        "its statements are cancelled, as by statement_timeout",
        "Raise it for this user (ALTER ROLE … SET statement_timeout = …); then import again.",
    ),
    "55P03": ("others hold locks on the rows", _TRY_AGAIN),
    "40001": ("others keep changing the same rows", _TRY_AGAIN),
    "40P01": ("others keep changing the same rows", _TRY_AGAIN),
}


def _given_up(error: psycopg.Error | DatabaseUnavailableError, limit: float) -> TapesError:
    """Return what to tell of a failure that lasted for so many seconds."""
    state = error.sqlstate if isinstance(error, psycopg.Error) else None
    if state is not None and fault_of(state) is Fault.TRANSIENT:
        reason, hint = _BUSY.get(state, ("the server is in trouble", _TRY_AGAIN))
        return DatabaseUnavailableError(
            f"The database stored nothing for {limit:g} s: {reason} (SQLSTATE {state}).", hint=hint
        )
    return DatabaseUnavailableError(
        f"The database was lost and did not come back within {limit:g} s.", hint=_TRY_AGAIN
    )


def repeat(attempt: Callable[[], T], recover: Callable[[], None], backoff: Backoff) -> T:
    """Call `attempt` until it succeeds, after failures that are the database's.

    `recover` is called before each further attempt and may fail for the same reasons.

    Raises:
        DatabaseUnavailableError: the database did not come back within the limit.
        psycopg.Error: a failure that repeating cannot mend.
    """
    deadline = time.monotonic() + backoff.limit
    pause = backoff.first
    failed = False
    while True:
        try:
            if failed:
                recover()
            return attempt()
        except (psycopg.Error, DatabaseUnavailableError) as error:
            if isinstance(error, psycopg.Error) and fault(error) not in {
                Fault.CONNECTION,
                Fault.TRANSIENT,
            }:
                raise
            if time.monotonic() + pause > deadline:
                raise _given_up(error, backoff.limit) from error
        failed = True
        time.sleep(pause)
        pause = min(pause * 2, backoff.longest)
