"""Real rollouts, counted a second time in another way. Skipped where they are absent."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from tapes_cli.model.records import Accepted
from tests.support.real import REAL
from tests.support.rollouts import accepted, chains, identities, records_of

if TYPE_CHECKING:
    from pathlib import Path

_FOLDER = REAL / "codex"
_FILES = sorted(_FOLDER.glob("**/*.jsonl"))

pytestmark = pytest.mark.skipif(not _FILES, reason="no real captures")

_TOTAL = re.compile(r'"total_token_usage":(\{[^}]*\})')
_CALL = re.compile(
    r'^\{[^{]*"type":"response_item","payload":\{(?:"[a-z]+":"[^"]*",)*?"type":"(\w+_call)"'
)


def _totals(path: Path) -> list[dict[str, Any]]:
    """Return the totals of a file, without those that repeat the one before."""
    totals: list[dict[str, Any]] = []
    for found in _TOTAL.findall(path.read_text("utf-8").replace(": ", ":")):
        total = json.loads(found)
        if not totals or total != totals[-1]:
            totals.append(total)
    return totals


@pytest.mark.parametrize("path", _FILES, ids=lambda path: path.stem[-12:])
class TestFile:
    def test_nothing_but_turns_each_of_which_changes_the_total(self, path: Path) -> None:
        """Codex adds to the total when a call of the API is over, and at no other time.

        That is so where nothing was compacted, since the call that compacts leaves no items.
        """
        found = records_of(path)
        assert {type(record) for record in found} == {Accepted}
        assert len(found) == len(_totals(path))

    def test_the_usage_adds_up_to_the_last_total(self, path: Path) -> None:
        """The total is the sum over all calls, none of which is counted twice or left out."""
        usages = [turn.usage for turn in accepted(records_of(path))]
        last = _totals(path)[-1]
        assert {
            "input_tokens": sum(usage.prompt_tokens or 0 for usage in usages),
            "cached_input_tokens": sum(usage.cache_read_input_tokens or 0 for usage in usages),
            "output_tokens": sum(usage.completion_tokens or 0 for usage in usages),
            "total_tokens": sum(usage.total_tokens or 0 for usage in usages),
        } == {name: last[name] for name in last if name != "reasoning_output_tokens"}

    def test_every_call_of_a_tool_is_said_once(self, path: Path) -> None:
        """A call is an item of its own, and an item is part of one response."""
        lines = path.read_text("utf-8").splitlines()
        written = sum(bool(_CALL.match(line.replace('": ', '":'))) for line in lines)
        blocks = [b for turn in accepted(records_of(path)) for b in turn.response.content]
        kinds = [block["type"] for block in blocks]
        assert written == sum(kind == "tool_use" or kind.endswith("_call") for kind in kinds)
        assert written > 50

    def test_every_output_is_in_the_last_request(self, path: Path) -> None:
        """Nothing was compacted or rolled back, so the last request holds all that was said."""
        found = accepted(records_of(path))
        outputs = re.findall(r'"call_id": ?"([^"]*)", ?"output"', path.read_text("utf-8"))
        results = [b for m in found[-1].history for b in m.content if "tool_result_id" in b]
        assert {block["tool_result_id"] for block in results} == set(outputs)

    def test_each_turn_builds_on_the_one_before(self, path: Path) -> None:
        built = chains(accepted(records_of(path)))
        for earlier, later in pairwise(built):
            assert later.hashes[: len(earlier)] == earlier.hashes
        assert len({node for chain in built for node in chain.hashes}) == len(built[-1])


class TestGrowth:
    def test_every_moment_is_the_beginning_of_the_next(self) -> None:
        paths = sorted(_FOLDER.glob("growth/*.jsonl"), key=lambda path: path.stat().st_size)
        moments = [identities(accepted(records_of(path))) for path in paths]
        assert len(moments) > 1
        for earlier, later in pairwise(moments):
            assert 0 < len(earlier) < len(later)
            assert later[: len(earlier)] == earlier
