from __future__ import annotations

import psycopg
import pytest
from psycopg.errors import lookup

from tapes_cli.errors import DatabaseUnavailableError, SchemaError
from tapes_cli.store.postgres.retry import Backoff, Fault, explained, fault, repeat

QUICK = Backoff(limit=1.0, first=0.001, longest=0.002)


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        ("08006", Fault.CONNECTION),
        ("57P01", Fault.CONNECTION),
        ("57P03", Fault.CONNECTION),
        ("40001", Fault.TRANSIENT),
        ("40P01", Fault.TRANSIENT),
        ("53300", Fault.TRANSIENT),
        ("53100", Fault.TRANSIENT),
        ("XX000", Fault.TRANSIENT),
        ("23505", Fault.BELIEF),
        ("23514", Fault.BELIEF),
        ("23503", Fault.BELIEF),
        ("23502", Fault.RECORD),
        ("22P05", Fault.RECORD),
        ("54000", Fault.RECORD),
        ("42P01", Fault.OTHER),
        ("25006", Fault.OTHER),
    ],
)
def test_failures_are_classified_by_sqlstate(state: str, kind: Fault) -> None:
    assert fault(lookup(state)()) is kind


def test_a_failure_without_a_state() -> None:
    assert fault(psycopg.OperationalError("gone")) is Fault.CONNECTION
    assert fault(psycopg.InterfaceError("closed")) is Fault.CONNECTION
    assert fault(psycopg.DataError("a NUL in a text")) is Fault.RECORD


def test_what_cannot_be_mended_is_explained_without_the_servers_words() -> None:
    missing = explained(psycopg.errors.UndefinedTable("secret"))
    refused = explained(psycopg.errors.InsufficientPrivilege("secret"))
    assert isinstance(missing, SchemaError)
    assert isinstance(refused, DatabaseUnavailableError)
    assert "secret" not in str(missing) + str(refused)


def test_it_tries_again_after_the_databases_faults_and_recovers_before() -> None:
    steps: list[str] = []

    def attempt() -> str:
        steps.append("attempt")
        if len(steps) < 5:
            raise psycopg.errors.SerializationFailure
        return "done"

    assert repeat(attempt, lambda: steps.append("recover"), QUICK) == "done"
    assert steps == ["attempt", "recover", "attempt", "recover", "attempt"]


def test_it_gives_up_in_the_end() -> None:
    def attempt() -> None:
        raise psycopg.OperationalError("gone")

    def recover() -> None:
        raise DatabaseUnavailableError("still gone")

    with pytest.raises(DatabaseUnavailableError, match=r"did not come back within 0\.05 s"):
        repeat(attempt, recover, Backoff(limit=0.05, first=0.001))


def test_it_does_not_repeat_what_repeating_cannot_mend() -> None:
    def attempt() -> None:
        raise psycopg.errors.UndefinedTable

    with pytest.raises(psycopg.errors.UndefinedTable):
        repeat(attempt, lambda: None, QUICK)
