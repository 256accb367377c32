from __future__ import annotations

import gzip
import json
from base64 import b64encode
from typing import Any
from uuid import UUID

import pytest

from tapes_cli.model.reasons import Reason
from tapes_cli.model.records import Accepted, Rejected, Skipped
from tests.fuzz.check import faults, read_broken
from tests.support.exchanges import chain_of, exchange, read_files, read_path, read_values, turns_of
from tests.support.real import REAL

ORG = "0b0f2c1d-1111-4222-8333-944445555666"
NIL = "00000000-0000-0000-0000-000000000000"
LARGE = 123456789012345678901234567890


def row(**changes: Any) -> dict[str, Any]:
    """A row of the table, made from the wire."""
    return {
        "id": 1,
        "org_id": ORG,
        "source": "wire",
        "provider": "anthropic",
        "agent_name": "helper",
        "harness_id": "claude",
        "harness_session_id": "s-1",
        "request_id": "r-1",
        "raw_request": {"model": "asked", "messages": [{"role": "user", "content": "hi"}]},
        "response": {
            "model": "answered",
            "message": {"role": "assistant", "content": [{"type": "text", "text": "ok"}]},
        },
        "meta": {"captured_at": "2026-05-01T10:00:00Z"},
        "session_envelope": {"harness_id": "codex", "harness_session_id": "s-2", "cwd": "/w"},
        "received_at": "2026-05-01T11:00:00Z",
        **changes,
    }


def test_a_row_from_the_wire_is_a_turn() -> None:
    (turn,) = turns_of(read_values(row()))
    assert turn.envelope is not None
    assert (turn.envelope.harness_id, turn.envelope.harness_session_id) == ("codex", "s-2")
    assert turn.envelope.org_id == UUID(NIL)
    assert (turn.agent_name, turn.request_model, turn.response_model) == (
        "helper",
        "asked",
        "answered",
    )
    assert turn.captured.at.hour == 10


def test_without_meta_the_row_was_captured_when_it_was_received() -> None:
    (turn,) = turns_of(read_values(row(meta=None)))
    assert turn.captured.at.hour == 11


def test_without_an_envelope_the_columns_make_one() -> None:
    (turn,) = turns_of(read_values(row(session_envelope=None)))
    assert turn.envelope is not None
    assert (turn.envelope.harness_id, turn.envelope.harness_session_id) == ("claude", "s-1")
    assert turn.envelope.org_id == UUID(ORG)


@pytest.mark.parametrize(("org", "envelope"), [(NIL, False), ("", False), (ORG, True)])
def test_columns_that_say_nothing_make_no_envelope(org: str, *, envelope: bool) -> None:
    empty = {"session_envelope": None, "harness_id": "", "harness_session_id": None}
    (turn,) = turns_of(read_values(row(org_id=org, **empty)))
    assert (turn.envelope is not None) is envelope
    if turn.envelope is not None:
        assert (turn.envelope.org_id, turn.envelope.synthetic) == (UUID(ORG), True)


def test_a_row_of_a_transcript_is_skipped() -> None:
    transcript = row(source="transcript", provider="", raw_request=[{}], response=None)
    (record,) = read_values(transcript)
    assert isinstance(record, Skipped)
    assert (record.reason, record.location.format) == (Reason.TRANSCRIPT_ROW, "raw-turns")


@pytest.mark.parametrize("coding", ["", "gzip"])
def test_the_raw_response_is_reduced(coding: str) -> None:
    body = exchange().response
    raw = gzip.compress(body) if coding else body
    told = row(
        response=None, raw_response=b64encode(raw).decode(), raw_response_encoding=coding or None
    )
    (turn,) = turns_of(read_values(told))
    assert turn.response.content == [{"type": "text", "text": "Hi"}]


def test_columns_may_hold_json_as_text() -> None:
    names = ("raw_request", "response", "meta", "session_envelope")
    plain = row()
    (turn,) = turns_of(read_values(plain))
    (same,) = turns_of(read_values(row(**{name: json.dumps(plain[name]) for name in names})))
    assert chain_of(same) == chain_of(turn)
    assert (same.envelope, same.captured) == (turn.envelope, turn.captured)


def test_numbers_stay_exact() -> None:
    call = {"type": "tool_use", "id": "i", "name": "n", "input": {"a": LARGE}}
    request = {"messages": [{"role": "assistant", "content": [call]}]}
    response = {"message": {"role": "assistant", "content": [call]}}
    for asked in (request, json.dumps(request)):
        (turn,) = turns_of(read_values(row(raw_request=asked, response=response)))
        assert turn.history[0].content[0]["tool_input"] == {"a": LARGE}
        assert turn.response.content[0]["tool_input"] == {"a": LARGE}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"raw_request": None}, Reason.REQUEST_INVALID),
        ({"raw_request": [1]}, Reason.REQUEST_INVALID),
        ({"raw_request": "{"}, Reason.REQUEST_DECODE),
        ({"raw_request": "[]"}, Reason.REQUEST_DECODE),
        ({"raw_request": '{},"session":{}'}, Reason.REQUEST_DECODE),
        ({"raw_request": '{"messages": 5}'}, Reason.REQUEST_INVALID),
        ({"response": None}, Reason.RESPONSE_INVALID),
        ({"response": "{"}, Reason.RESPONSE_INVALID),
        ({"provider": "x"}, Reason.PROVIDER_UNSUPPORTED),
        ({"session_envelope": 5}, Reason.SESSION_INVALID),
        ({"session_envelope": "x"}, Reason.SESSION_INVALID),
        ({"meta": "x"}, Reason.RECORD_INVALID),
        ({"session_envelope": None, "org_id": "x"}, Reason.ORG_ID_INVALID),
    ],
)
def test_rejected(changes: dict[str, Any], reason: Reason) -> None:
    (record,) = read_values(row(**changes))
    assert isinstance(record, Rejected)
    assert record.reason is reason
    (again,) = read_files({"a.jsonl": record.raw})
    assert isinstance(again, Rejected)
    assert (again.reason, again.message) == (reason, record.message)


@pytest.mark.parametrize("seed", range(150))
def test_broken_rows_give_records(seed: int) -> None:
    rows = [row(), row(raw_request=json.dumps(row()["raw_request"])), row(source="transcript")]
    lines = b"".join(json.dumps(one).encode() + b"\n" for one in rows)
    captures = {"raw-turns": {"a.jsonl": lines}}
    assert faults(read_broken(captures, "raw-turns", seed)) == []


@pytest.mark.parametrize(
    ("name", "turns", "nodes"),
    [("corpus-codex-delta", 13, 48), ("corpus-codex-parallel", 7, 93)],
)
def test_real_rows(name: str, turns: int, nodes: int) -> None:
    path = REAL / "raw-turns" / f"{name}.jsonl.gz"
    if not path.exists():
        pytest.skip("no real captures")
    records = read_path(path)
    found = [record.turn for record in records if isinstance(record, Accepted)]
    reasons = [record.reason for record in records if isinstance(record, Skipped)]
    assert (len(found), reasons) == (turns, [Reason.TRANSCRIPT_ROW] * 2)
    assert len(records) == turns + 2
    assert len({address for turn in found for address in chain_of(turn)}) == nodes
    assert all(turn.envelope and turn.envelope.harness_id == "codex" for turn in found)
    assert all(turn.captured.dated for turn in found)


def test_headers_beside_the_request_are_not_kept() -> None:
    row = {
        "raw_request": 5,
        "provider": "anthropic",
        "request_headers": {"Authorization": "s3cret"},
    }
    (found,) = read_values(row | {"Headers": [["Cookie", "s3cret"]], "big": 2**70})
    assert isinstance(found, Rejected)
    assert json.loads(found.raw) == {"raw_request": 5, "provider": "anthropic", "big": 2**70}
    (found,) = read_values({"raw_request": 5, "note": "no header"})
    assert isinstance(found, Rejected)
    assert json.loads(found.raw) == {"raw_request": 5, "note": "no header"}
