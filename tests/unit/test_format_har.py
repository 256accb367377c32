from __future__ import annotations

import gzip
import json
from base64 import b64encode
from copy import deepcopy
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tapes_cli.model.reasons import Reason
from tapes_cli.model.records import Accepted, Record, Rejected, Skipped
from tests.support.exchanges import (
    BEGAN,
    ENDED,
    chain_of,
    exchange,
    har,
    har_entry,
    read_files,
    read_values,
    turns_of,
)

if TYPE_CHECKING:
    from datetime import datetime

UUID = "0b0f2c1d-1111-4222-8333-944445555666"


def entry(*path: str, value: Any = None) -> dict[str, Any]:
    """A sound entry with the field at a path changed."""
    whole = deepcopy(har_entry(exchange()))
    holder = whole
    for name in path[:-1]:
        holder = holder[name]
    if path:
        holder[path[-1]] = value
    return whole


def only(value: Any) -> Record:
    (record,) = read_values(har(value))
    return record


@pytest.mark.parametrize("indent", [None, 2])
def test_each_entry_is_a_record(indent: int | None) -> None:
    entries = [entry(), entry("response", "status", value=0), entry("request", value=5), entry()]
    data = json.dumps(har(*entries), indent=indent).encode()
    records = read_files({"a.har": data})
    assert [type(record) for record in records] == [Accepted, Skipped, Rejected, Accepted]
    assert [record.location.index for record in records] == [0, 1, 2, 3]
    assert {(r.location.line, r.location.format) for r in records} == {(1, "har")}


def test_a_reject_keeps_its_own_entry_only() -> None:
    bad = entry("response", "content", "text", value="<html>")
    records = read_values(har(*[entry()] * 3, bad))
    last = records[-1]
    assert isinstance(last, Rejected)
    kept = json.loads(last.raw)["log"]["entries"]
    assert len(kept) == 1
    assert kept[0]["request"]["postData"] == bad["request"]["postData"]
    assert kept[0]["request"].keys() == {"method", "url", "headers", "postData"}


@pytest.mark.parametrize(
    ("began", "elapsed", "said"),
    [
        ("2026-05-01T10:00:00.25Z", 2500, ENDED),
        ("2026-05-01T12:00:00.250+02:00", 2500.0, ENDED),
        ("2026-05-01T10:00:00.25Z", 0.001, BEGAN + timedelta(microseconds=1)),
        ("2026-05-01T10:00:00.25Z", -1, BEGAN),
        ("2026-05-01T10:00:00.25Z", None, BEGAN),
        ("2026-05-01T10:00:00.25Z", True, BEGAN),
        ("2026-05-01T10:00:00.25Z", 7 * 24 * 3600 * 1000 + 1, BEGAN),
        ("2026-05-01T10:00:00.25Z", 1e300, BEGAN),
    ],
)
def test_when_it_was_captured(began: str, elapsed: Any, said: datetime) -> None:
    whole = {**entry(), "startedDateTime": began, "time": elapsed}
    (turn,) = turns_of(read_values(har(whole)))
    assert (turn.captured.at, turn.captured.dated) == (said, True)


@pytest.mark.parametrize(
    ("began", "elapsed"), [(None, 5), ("soon", None), ("9999-12-31T23:59:59Z", 5000), ([1], 5)]
)
def test_a_time_that_is_none(began: Any, elapsed: Any) -> None:
    (turn,) = turns_of(read_values(har({**entry(), "startedDateTime": began, "time": elapsed})))
    assert not turn.captured.dated


def test_bodies_may_be_base64() -> None:
    told = exchange()
    asked = json.dumps(told.request).encode()
    whole = entry()
    content = {"encoding": "base64", "text": b64encode(told.response).decode()}
    whole["response"]["content"] |= content
    whole["request"]["postData"] |= {"encoding": "base64", "text": b64encode(asked).decode()}
    (turn,) = turns_of(read_values(har(entry())))
    (same,) = turns_of(read_values(har(whole)))
    assert chain_of(same) == chain_of(turn)
    # Of a request, the codings may still be there.
    whole["request"]["headers"] = [{"name": "Content-Encoding", "value": "gzip"}]
    (same,) = turns_of(read_values(har(whole)))
    assert chain_of(same) == chain_of(turn)
    whole["request"]["postData"]["text"] = b64encode(gzip.compress(asked)).decode()
    (same,) = turns_of(read_values(har(whole)))
    assert chain_of(same) == chain_of(turn)


def test_session_of_claude_code() -> None:
    body = {**exchange().request, "metadata": {"user_id": json.dumps({"session_id": UUID})}}
    whole = entry("request", "postData", value={"text": json.dumps(body)})
    for headers in ([], [{"name": "X-Tapes-Harness-Version", "value": "2.1"}]):
        whole["request"]["headers"] = headers
        (turn,) = turns_of(read_values(har(whole)))
        assert turn.envelope is not None
        assert turn.envelope.session_key("").harness_session_id == UUID


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, Reason.EXCHANGE_INVALID),
        ({}, Reason.EXCHANGE_INVALID),
        (entry("request", value=None), Reason.EXCHANGE_INVALID),
        (entry("response", value=None), Reason.EXCHANGE_INVALID),
        (entry("response", "status", value=None), Reason.EXCHANGE_INVALID),
        (entry("response", "content", value=None), Reason.EXCHANGE_INVALID),
        (entry("response", "content", "text", value=5), Reason.EXCHANGE_INVALID),
        (entry("request", "postData", value=5), Reason.EXCHANGE_INVALID),
        (entry("request", "postData", "text", value=5), Reason.EXCHANGE_INVALID),
        (entry("request", "headers", value="x"), Reason.EXCHANGE_INVALID),
        (entry("request", "url", value=None), Reason.EXCHANGE_INVALID),
        (entry("request", "postData", value=None), Reason.REQUEST_DECODE),
        (entry("request", "postData", "text", value="a=b"), Reason.REQUEST_DECODE),
        (entry("request", "postData", "encoding", value="base64"), Reason.REQUEST_DECODE),
        (entry("response", "content", "encoding", value="base64"), Reason.RESPONSE_DECODE),
    ],
)
def test_rejected(value: Any, reason: Reason) -> None:
    record = only(value)
    assert isinstance(record, Rejected)
    assert record.reason is reason
    (again,) = read_files({"a": record.raw})
    assert isinstance(again, Rejected)
    assert again.raw == record.raw


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (entry("response", "content", "text", value=None), Reason.EMPTY_RESPONSE),
        (entry("response", "content", value={}), Reason.EMPTY_RESPONSE),
        (entry("request", "method", value="OPTIONS"), Reason.NON_TURN_REQUEST),
        (
            entry("request", "postData", value={"params": [{"name": "a", "value": "b"}]}),
            Reason.NON_TURN_REQUEST,
        ),
    ],
)
def test_skipped(value: Any, reason: Reason) -> None:
    record = only(value)
    assert isinstance(record, Skipped)
    assert record.reason is reason


@pytest.mark.parametrize("entries", [None, 5, {}])
def test_a_document_without_a_list(entries: Any) -> None:
    (record,) = read_values({"log": {"entries": entries, "creator": "canary"}})
    assert isinstance(record, Rejected)
    assert record.reason is Reason.EXCHANGE_INVALID
    assert json.loads(record.raw) == {"log": {"entries": None}}


def test_a_document_without_entries() -> None:
    assert read_values(har()) == []
