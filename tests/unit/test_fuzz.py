"""Broken captures for every reader, in the short form; `python -m tests.fuzz` is the long one."""

from __future__ import annotations

from random import Random

import pytest

from tapes_cli.capture.formats import supported
from tapes_cli.model.records import Accepted
from tests.fuzz.captures import CAPTURES
from tests.fuzz.check import faults, read_broken, read_files

CASES = 80


@pytest.mark.parametrize("name", CAPTURES)
def test_sound_captures_are_read(name: str) -> None:
    records = read_files(CAPTURES[name])
    assert faults(records) == []
    turns = [found for found in records if isinstance(found, Accepted)]
    formats = {found.location.format for found in turns}
    assert len(turns) > 0
    assert all(found.startswith(name) for found in formats)


@pytest.mark.parametrize("name", CAPTURES)
def test_broken_captures_give_records(name: str) -> None:
    seeds = Random(name)
    for _ in range(CASES):
        seed = seeds.randrange(2**32)
        assert faults(read_broken(CAPTURES, name, seed)) == [], f"seed {seed}"


def test_every_format_is_tried() -> None:
    missing = {found.name for found in supported()} - CAPTURES.keys()
    assert missing == {"batch-api-input", "batch-api-output"}
