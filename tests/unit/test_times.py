from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapes_cli.capture.times import Fallback, capture_time, parse_time, utc_now
from tapes_cli.model.turn import CaptureTime, TimeSource

FILE = datetime(2020, 1, 1, tzinfo=UTC)
CLOCK = datetime(2030, 1, 1, tzinfo=UTC)


def clock() -> datetime:
    return CLOCK


def at(text: str) -> CaptureTime:
    return CaptureTime(datetime.fromisoformat(text).replace(tzinfo=UTC))


def capture(
    meta: dict[str, Any] | None = None,
    created_at: Any = None,
    received_at: Any = None,
    mtime: datetime | None = FILE,
) -> CaptureTime:
    return capture_time(meta or {}, created_at, received_at, Fallback(mtime, clock))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-05-01T00:00:00Z", "2026-05-01T00:00:00"),
        ("2026-05-01t00:00:00z", "2026-05-01T00:00:00"),
        ("2026-05-01 00:00:00Z", "2026-05-01T00:00:00"),
        ("2026-05-01T02:30:00+02:30", "2026-05-01T00:00:00"),
        ("2026-05-01T00:00:00-00:00", "2026-05-01T00:00:00"),
        ("2026-05-01T00:00:00.1Z", "2026-05-01T00:00:00.1"),
        ("2026-05-01T00:00:00.123456789Z", "2026-05-01T00:00:00.123456"),
        ("2026-05-01T00:00:00.999999999Z", "2026-05-01T00:00:00.999999"),
    ],
)
def test_times_are_utc_in_microseconds(text: str, expected: str) -> None:
    assert parse_time(text) == datetime.fromisoformat(expected).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        0,
        1777593600,
        True,
        [],
        "2026-05-01",
        "2026-05-01T00:00:00",
        "20260501T000000Z",
        "2026-13-01T00:00:00Z",
        "2026-02-30T00:00:00Z",
        "2026-05-01T24:00:00Z",
        "2026-05-01T00:00:60Z",
        "2026-05-01T00:00:00+24:00",
        "2026-05-01T00:00:00.Z",
        " 2026-05-01T00:00:00Z",
        "2026-05-01T00:00:00Z\n",
        "٢٠٢٦-05-01T00:00:00Z",
        "0001-01-01T00:00:00Z",
        "0001-01-01T01:00:00+01:00",
        "0001-01-01T00:00:00+01:00",
        "9999-12-31T23:59:59-01:00",
        "\ud800",
    ],
)
def test_malformed_and_zero_times_count_as_absent(value: Any) -> None:
    assert parse_time(value) is None


@settings(max_examples=200, deadline=None)
@given(
    st.datetimes(
        min_value=datetime(2, 1, 1),  # noqa: DTZ001  hypothesis wants bounds without a zone
        max_value=datetime(9998, 1, 1),  # noqa: DTZ001
        timezones=st.integers(-1439, 1439).map(lambda m: timezone(timedelta(minutes=m))),
    )
)
def test_what_python_writes_is_read_back(moment: datetime) -> None:
    assert parse_time(moment.isoformat()) == moment


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="0123456789-:TZ+. ", max_size=30))
def test_no_text_is_a_crash(text: str) -> None:
    parsed = parse_time(text)
    assert parsed is None or parsed.utcoffset() == timedelta(0)


def test_order_of_preference() -> None:
    meta: dict[str, Any] = {
        "captured_at": "2026-01-01T00:00:00Z",
        "ts_request": "2026-01-02T00:00:00Z",
        "elapsed_seconds": 1.5,
    }
    rest = ("2026-01-03T00:00:00Z", "2026-01-04T00:00:00Z")
    assert capture(meta, *rest) == at("2026-01-01T00:00:00")
    meta["captured_at"] = "0001-01-01T00:00:00Z"
    assert capture(meta, *rest) == at("2026-01-02T00:00:01.5")
    meta["ts_request"] = "yesterday"
    assert capture(meta, *rest) == at("2026-01-03T00:00:00")
    assert capture(meta, "", rest[1]) == at("2026-01-04T00:00:00")
    assert capture(meta) == CaptureTime(FILE, TimeSource.FILE)
    assert capture(meta, mtime=None) == CaptureTime(CLOCK, TimeSource.CLOCK)
    assert not capture(meta).dated


@pytest.mark.parametrize(
    "elapsed", [None, 0, 0.0, -1, 604800.1, 10**400, float("nan"), float("inf"), True, "1", []]
)
def test_elapsed_time_must_be_plausible(elapsed: Any) -> None:
    meta = {"ts_request": "2026-01-02T00:00:00Z", "elapsed_seconds": elapsed}
    assert capture(meta).source is TimeSource.FILE


@pytest.mark.parametrize(
    ("elapsed", "expected"),
    [
        (1.585692, "2026-01-02T00:00:01.585692"),
        (0.0000019, "2026-01-02T00:00:00.000001"),
        (1, "2026-01-02T00:00:01"),
        (604800, "2026-01-09T00:00:00"),
    ],
)
def test_elapsed_time_is_added(elapsed: float, expected: str) -> None:
    meta = {"ts_request": "2026-01-02T00:00:00Z", "elapsed_seconds": elapsed}
    assert capture(meta) == at(expected)


def test_sum_beyond_the_last_year_counts_as_absent() -> None:
    meta = {"ts_request": "9999-12-31T23:59:59Z", "elapsed_seconds": 60}
    assert capture(meta).source is TimeSource.FILE


def test_clock_is_utc() -> None:
    assert utc_now().tzinfo is UTC
