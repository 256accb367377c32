"""The law: `sessions` and `nodes` are a function of the set of turns imported."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tapes_cli.model.envelope import NIL_ORG, Envelope
from tapes_cli.model.turn import Usage
from tapes_cli.store.postgres.dry_run import DryRunStore
from tapes_cli.store.postgres.store import PostgresStore
from tests.support.turns import make_turn, rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from tapes_cli.store.base import ChainedTurn

ORG = UUID("11111111-1111-4111-8111-111111111111")
_SAYINGS = ("a", "b", "a <system-reminder>drift</system-reminder>")
_LAW = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

names = st.sampled_from(["", " ", "n1", "n2"])
envelopes = st.builds(
    Envelope,
    # Few sessions, so that their turns meet.
    org_id=st.sampled_from([NIL_ORG, NIL_ORG, NIL_ORG, ORG]),
    harness_id=st.sampled_from(["claude", "claude", "claude", "unknown"]),
    harness_session_id=st.sampled_from(["s1", "s1", "s2", ""]),
    auth_subject=names,
    harness_version=names,
    cwd=names,
    name=names,
    parent=st.sampled_from([None, ("claude", "s1"), ("claude", "p"), ("codex", "s1")]),
    harness_metadata=st.dictionaries(
        st.sampled_from(["k", "l"]), st.sampled_from([1, 1.0, "x", "", None, {"a": []}]), max_size=2
    ),
)
usages = st.builds(
    Usage, prompt_tokens=st.sampled_from([None, 0, 7, 2**40]), completion_tokens=st.just(3)
)


def turns_with(envelope: st.SearchStrategy[Any]) -> st.SearchStrategy[ChainedTurn]:
    return st.builds(
        make_turn,
        words=st.lists(st.sampled_from(_SAYINGS), min_size=1, max_size=4),
        at=st.integers(0, 3),
        envelope=envelope,
        usage=usages,
        project=st.sampled_from(["", "p"]),
    ).filter(lambda turn: turn.session is None or turn.session != turn.parent)


def _head(turn: ChainedTurn) -> tuple[UUID, str]:
    return turn.org_id, turn.chain.head.hash


# An identical whole turn counts once and stays as it was first brought, so it is left out here.
turn_sets = st.lists(turns_with(st.none() | envelopes), min_size=1, max_size=7, unique_by=_head)


@pytest.fixture
def conn(database: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database, autocommit=True) as connection:
        yield connection


def _import(
    conn: psycopg.Connection[Any], dsn: str, batches: Iterable[Sequence[ChainedTurn]]
) -> dict[str, list[dict[str, Any]]]:
    conn.execute("TRUNCATE nodes, sessions")
    for batch in batches:
        store = PostgresStore(dsn)
        store.ingest(batch)
        store.close()
    return rows(conn)


@given(data=st.data(), captured=turn_sets)
@_LAW
def test_order_repetition_and_split_change_nothing(
    data: st.DataObject, captured: list[ChainedTurn], conn: psycopg.Connection[Any], database: str
) -> None:
    expected = _import(conn, database, [captured])
    again = data.draw(st.permutations([*captured, *data.draw(st.lists(st.sampled_from(captured)))]))
    cut = data.draw(st.integers(0, len(again)))
    assert _import(conn, database, [again[:cut], again[cut:]]) == expected


@given(data=st.data(), captured=st.lists(turns_with(envelopes), min_size=1, max_size=7))
@_LAW
def test_identical_turns_count_once_and_sessions_keep_to_the_law(
    data: st.DataObject, captured: list[ChainedTurn], conn: psycopg.Connection[Any], database: str
) -> None:
    def described(found: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
        counters = {"turn_count", "total_input_tokens", "total_output_tokens"}
        return [{c: v for c, v in s.items() if c not in counters} for s in found["sessions"]]

    expected = _import(conn, database, [captured])
    found = _import(conn, database, [data.draw(st.permutations(captured))])
    assert sum(s["turn_count"] for s in found["sessions"]) == len(set(map(_head, captured)))
    assert len(found["nodes"]) == len(expected["nodes"])
    assert described(found) == described(expected)


@given(captured=turn_sets)
@_LAW
def test_counters_are_what_the_nodes_say(
    captured: list[ChainedTurn], conn: psycopg.Connection[Any], database: str
) -> None:
    _import(conn, database, [captured])
    wrong = conn.execute(
        """
        SELECT count(*) FROM sessions AS s
        WHERE turn_count <> (
            SELECT count(*) FROM nodes AS n
            WHERE n.org_id = s.org_id AND n.turn_session_id = s.id AND n.landings = 1
        )
        """
    ).fetchone()
    landed = conn.execute("SELECT count(*) FROM nodes WHERE landings = 1").fetchone()
    assert wrong == (0,)
    assert landed == (len(captured),)


@given(before=turn_sets, captured=st.lists(turns_with(st.none() | envelopes), max_size=7))
@_LAW
def test_a_dry_run_foretells_every_outcome(
    before: list[ChainedTurn],
    captured: list[ChainedTurn],
    conn: psycopg.Connection[Any],
    database: str,
) -> None:
    _import(conn, database, [before])
    trial, store = DryRunStore(database), PostgresStore(database)
    expected = [trial.ingest(captured[:3]), trial.ingest(captured[3:])]
    trial.close()
    assert [store.ingest(captured[:3]), store.ingest(captured[3:])] == expected
    store.close()


def test_importing_again_leaves_every_row_as_it_is(
    conn: psycopg.Connection[Any], database: str
) -> None:
    envelope = Envelope(harness_id="claude", harness_session_id="s", auth_subject="me")
    captured = [make_turn("abcdefgh"[: 2 * n], n, envelope) for n in range(1, 5)]
    _import(conn, database, [captured])
    versions = "SELECT xmin, ctid FROM nodes UNION ALL SELECT xmin, ctid FROM sessions"
    before = conn.execute(versions).fetchall()  # not even rewritten with equal values
    store = PostgresStore(database)
    outcomes = store.ingest(captured)
    store.close()
    assert {outcome.kind for outcome in outcomes} == {"duplicate"}
    assert conn.execute(versions).fetchall() == before
