"""A strict reader of Prometheus' text exposition format, as far as this program writes it."""

from __future__ import annotations

import re

_HELP = re.compile(r"# HELP ([a-z_]+) ((?:[^\\\n]|\\[\\n])+)")
_TYPE = re.compile(r"# TYPE ([a-z_]+) (gauge)")
_SAMPLE = re.compile(r'([a-z_]+)(?:\{([a-z_]+)="((?:[^"\\\n]|\\[\\n"])*)"\})? (-?\d+(?:\.\d+)?)')
_ESCAPE = re.compile(r"\\(.)")

Key = str | tuple[str, str, str]
"""The name of a metric, with label and value where it has one."""


def parse_metrics(text: str) -> dict[Key, float]:
    """Return the samples of a text; every metric is described, then follows as one group."""
    assert text.endswith("\n")
    samples: dict[Key, float] = {}
    described: list[str] = []
    lines = iter(text.split("\n")[:-1])
    for line in lines:
        if told := _HELP.fullmatch(line):
            assert told[1] not in described
            described.append(told[1])
            typed = _TYPE.fullmatch(next(lines))
            assert typed is not None
            assert typed[1] == told[1]
            continue
        sample = _SAMPLE.fullmatch(line)
        assert sample is not None, line
        assert sample[1] == described[-1]
        name, label, value, number = sample.groups()
        key = name if label is None else (name, label, _ESCAPE.sub(_unescaped, value))
        assert key not in samples
        samples[key] = float(number)
    assert {key if isinstance(key, str) else key[0] for key in samples} == set(described)
    return samples


def _unescaped(escape: re.Match[str]) -> str:
    return "\n" if escape[1] == "n" else escape[1]
