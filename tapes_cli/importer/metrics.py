"""The metrics of a run, for the textfile collector of Prometheus' node_exporter.

Text exposition format 0.0.4. All are gauges of the last run: nothing is counted over several. The
texts never change, since two files may not describe a metric differently.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from tapes_cli.importer.outputs import Execution
    from tapes_cli.importer.report import Report

_PREFIX = "tapes_import_"
_LAST_SUCCESS = "last_success_timestamp_seconds"
_LAST_SUCCESS_SAMPLE = re.compile(rf"^{_PREFIX}{_LAST_SUCCESS} (\S+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Gauge:
    """A metric.

    Attributes:
        name: without the prefix that all have.
        meaning: one sentence.
        label: the name of the label that tells its samples apart, empty where there is only one.
        samples: the values by that label.
    """

    name: str
    meaning: str
    label: str
    samples: Mapping[str, float]

    def lines(self) -> Iterator[str]:
        """Yield it as text, a line at a time."""
        name = f"{_PREFIX}{self.name}"
        yield f"# HELP {name} {_escaped(self.meaning)}"
        yield f"# TYPE {name} gauge"
        for value, number in self.samples.items():
            label = f'{{{self.label}="{_quoted(value)}"}}' if self.label else ""
            yield f"{name}{label} {_number(number)}"


def metrics_text(report: Report, execution: Execution, last_success: float) -> str:
    """Return the metrics of a run.

    Args:
        report: its accounts.
        execution: when it took place.
        last_success: when a run last succeeded before this one, in seconds since 1970; 0 for
            never.
    """
    gauges = [*_outcome(report, execution, last_success), *_accounts(report)]
    return "".join(f"{line}\n" for gauge in gauges if gauge.samples for line in gauge.lines())


def last_success_in(text: str) -> float:
    """Return when a run last succeeded, from the metrics of the run before; 0 for never."""
    found = _LAST_SUCCESS_SAMPLE.search(text)
    try:
        moment = float(found[1]) if found else 0.0
    except ValueError:
        return 0.0
    return moment if math.isfinite(moment) and moment > 0 else 0.0


def _outcome(report: Report, execution: Execution, last_success: float) -> Iterable[Gauge]:
    finished = execution.finished_at.timestamp()
    success = last_success if report.exit_code else finished
    return (
        _single("last_run_timestamp_seconds", "When the last run ended, in Unix time.", finished),
        _single(
            _LAST_SUCCESS,
            "When a run last ended with exit status 0, in Unix time; 0 if none is known.",
            success,
        ),
        _single("duration_seconds", "How long the last run took.", execution.seconds),
        _single("exit_status", "Exit status of the last run; 0 is success.", report.exit_code),
    )


def _accounts(report: Report) -> Iterable[Gauge]:
    outcomes = report.records.as_dict()
    del outcomes["read"]  # their sum
    return (
        Gauge("records", "Records of the last run by what became of them.", "outcome", outcomes),
        Gauge(
            "sources",
            "Sources of the last run: read, or not changed since they were imported.",
            "state",
            {"read": report.sources, "unchanged": report.unchanged},
        ),
        _single("new_nodes", "Nodes that the last run added.", report.new_nodes),
        Gauge(
            "sessions",
            "Sessions that the last run created, and those to which it added turns.",
            "state",
            {"new": report.new_sessions, "touched": report.touched_sessions},
        ),
        Gauge(
            "tokens",
            "Tokens of the turns that the last run stored.",
            "direction",
            {"input": report.input_tokens, "output": report.output_tokens},
        ),
        Gauge(
            "reasons",
            "Records that the last run rejected or skipped, by reason.",
            "code",
            dict(sorted(report.reasons.items())),
        ),
    )


def _single(name: str, meaning: str, value: float) -> Gauge:
    return Gauge(name, meaning, "", {"": value})


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.3f}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n")


def _quoted(text: str) -> str:
    return _escaped(text).replace('"', r"\"")
