"""What a check is, and the ways it can end."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tapes_cli.errors import TapesError

_UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB")
_THOUSAND = 1000
_FEW_DIGITS = 10


class Verdict(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: what was looked at, a word of a closed list.
        verdict: how it ended.
        found: what was found, as a phrase.
        remedy: what to do about it, as a sentence; empty where nothing need be done.
        exit_status: with what an import would end because of it; 0 unless the check failed.
    """

    name: str
    verdict: Verdict
    found: str
    remedy: str = ""
    exit_status: int = 0


def ok(name: str, found: str) -> Check:
    """Return a check that found all well."""
    return Check(name, Verdict.OK, found)


def skipped(name: str, found: str) -> Check:
    """Return a check that could not be made, which is nothing against what it is about."""
    return Check(name, Verdict.SKIPPED, found)


def warning(name: str, found: str, remedy: str) -> Check:
    """Return a check that found what an import can live with."""
    return Check(name, Verdict.WARNING, found, remedy)


def failed(name: str, found: str, remedy: str, error: type[TapesError] | TapesError) -> Check:
    """Return a check that found what no import can live with, and the error it would end with."""
    return Check(name, Verdict.FAILED, found, remedy, error.exit_status)


def failed_by(name: str, error: TapesError) -> Check:
    """Return the check that an error has ended."""
    return failed(name, phrase(error), error.hint, error)


def phrase(error: TapesError) -> str:
    """Return the sentence of an error without its full stop."""
    return str(error).rstrip(".")


def exit_status(checks: list[Check]) -> int:
    """Return with what an import would end: the first check that failed decides."""
    return next((check.exit_status for check in checks if check.verdict is Verdict.FAILED), 0)


def amount(count: int) -> str:
    """Return a number of bytes as people read it, for example `1.4 GB`."""
    value, unit = float(count), 0
    while value >= _THOUSAND and unit < len(_UNITS) - 1:
        value, unit = value / _THOUSAND, unit + 1
    digits = 1 if unit and value < _FEW_DIGITS else 0
    return f"{value:.{digits}f} {_UNITS[unit]}"
