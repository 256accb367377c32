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


class LostTurnsError(DatabaseUnavailableError):
    """The database no longer holds turns that it had confirmed."""

    def __init__(self) -> None:
        super().__init__(
            "The database has lost turns that it had confirmed: it may be another server than "
            "before, or have crashed with fsync off.",
            hint="Import again: what is missing is stored anew.",
        )


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
    reason = f" {error}" if isinstance(error, DatabaseUnavailableError) else ""
    return DatabaseUnavailableError(
        f"The database was lost and did not come back within {limit:g} s.{reason}", hint=_TRY_AGAIN
    )


def repeat(
    attempt: Callable[[], T],
    recover: Callable[[], None],
    backoff: Backoff,
    progress: Callable[[], int] = lambda: 0,
) -> T:
    """Call `attempt` until it succeeds, after failures that are the database's.

    Args:
        attempt: what to do.
        recover: is called before each further attempt and may fail for the same reasons.
        backoff: how long to go on trying, from the first failure on.
        progress: how much is done; a failure after some progress counts as the first.

    Raises:
        DatabaseUnavailableError: the database did not come back within the limit.
        LostTurnsError: it did, but has lost what it had confirmed.
        psycopg.Error: a failure that repeating cannot mend.
    """
    deadline, pause, done = 0.0, backoff.first, -1
    while True:
        try:
            if deadline:
                recover()
            return attempt()
        except (psycopg.Error, DatabaseUnavailableError) as error:
            if not _may_pass(error):
                raise
            if progress() > done:
                done, pause = progress(), backoff.first
                deadline = time.monotonic() + backoff.limit
            if time.monotonic() + pause > deadline:
                raise _given_up(error, backoff.limit) from error
        time.sleep(pause)
        pause = min(pause * 2, backoff.longest)


def _may_pass(error: psycopg.Error | DatabaseUnavailableError) -> bool:
    """Tell whether repeating may mend a failure."""
    if isinstance(error, psycopg.Error):
        return fault(error) in {Fault.CONNECTION, Fault.TRANSIENT}
    return not isinstance(error, LostTurnsError)
