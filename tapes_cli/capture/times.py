"""When a turn was captured. The only place of the reading side that reads the clock."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from tapes_cli.model.turn import CaptureTime, TimeSource

if TYPE_CHECKING:
    from collections.abc import Callable

    from tapes_cli.model.json import JSON, JSONObject

MAX_ELAPSED_SECONDS = 7 * 24 * 3600
"""A response that took longer than this has a broken clock."""

_ZERO = datetime(1, 1, 1, tzinfo=UTC)

# RFC 3339; digits past the microsecond are dropped. ASCII digits only.
_RFC_3339 = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ]((?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d)(?:\.(\d+))?"
    r"([Zz]|[+-](?:[01]\d|2[0-3]):[0-5]\d)",
    re.ASCII,
)


def utc_now() -> datetime:
    """Return the present moment (UTC)."""
    return datetime.now(UTC)


def rfc3339(moment: datetime) -> str:
    """Return a UTC time as RFC 3339, with milliseconds and a Z."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(frozen=True, slots=True)
class Fallback:
    """Where the time of an undated turn comes from.

    Attributes:
        mtime: the source's modification time, or None where it has none.
        now: the clock, asked last.
    """

    mtime: datetime | None
    now: Callable[[], datetime] = utc_now


@dataclass(frozen=True, slots=True)
class Period:
    """A stretch of time, from `since` on and before `until`; None is no bound."""

    since: datetime | None = None
    until: datetime | None = None

    def holds(self, moment: datetime) -> bool:
        """Tell whether a moment lies in it."""
        begun = self.since is None or moment >= self.since
        return begun and (self.until is None or moment < self.until)


def parse_time(value: JSON) -> datetime | None:
    """Return an RFC 3339 time in UTC, truncated to microseconds.

    Whatever is malformed, out of range or Go's zero time (0001-01-01T00:00:00Z) is None.
    """
    match = _RFC_3339.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return None
    day, clock, fraction, offset = match.groups()
    micros = (fraction or "")[:6].ljust(6, "0")
    zone = "+00:00" if offset in "Zz" else offset
    try:
        moment = datetime.fromisoformat(f"{day}T{clock}.{micros}{zone}").astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return None if moment == _ZERO else moment


def capture_time(
    meta: JSONObject, response_created_at: JSON, received_at: JSON, fallback: Fallback
) -> CaptureTime:
    """Return when a turn was captured: the best time there is.

    In this order: `meta.captured_at`; `meta.ts_request` + `meta.elapsed_seconds`; the response's
    `created_at`; the row's `received_at`; the file's modification time; the clock. A time that is
    malformed counts as absent. The rule is the ingest specification's, section 3.
    """
    moment = (
        parse_time(meta.get("captured_at"))
        or _request_end(meta)
        or parse_time(response_created_at)
        or parse_time(received_at)
    )
    if moment is not None:
        return CaptureTime(moment, TimeSource.RECORD)
    if fallback.mtime is not None:
        return CaptureTime(fallback.mtime, TimeSource.FILE)
    return CaptureTime(fallback.now(), TimeSource.CLOCK)


def _request_end(meta: JSONObject) -> datetime | None:
    start = parse_time(meta.get("ts_request"))
    elapsed = meta.get("elapsed_seconds")
    if start is None or isinstance(elapsed, bool) or not isinstance(elapsed, int | float):
        return None
    # False for NaN too.
    if not 0 < elapsed <= MAX_ELAPSED_SECONDS:
        return None
    try:
        # By way of nanoseconds: in microseconds, 1.585692 s would lose one to its binary form.
        return start + timedelta(microseconds=round(elapsed * 1e9) // 1000)
    except OverflowError:
        return None
