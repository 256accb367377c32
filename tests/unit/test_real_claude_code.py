"""Transcripts that others have published, against a count that is made in another way.

They are no part of this repository: without them, the tests are skipped.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from tapes_cli.capture.reader import read
from tapes_cli.capture.sources import Source
from tapes_cli.merkle.chain import Chain, ChainBuilder
from tapes_cli.model.reasons import Reason
from tapes_cli.model.records import Accepted, Incomplete, Record, Rejected, Skipped
from tests.support.real import REAL

if TYPE_CHECKING:
    from pathlib import Path

    from tapes_cli.model.turn import Turn

FOLDER = REAL / "claude-code"
FILES = sorted(FOLDER.glob("*.jsonl"))
GROWTH = sorted((FOLDER / "growth").glob("*.jsonl"))
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)

pytestmark = pytest.mark.skipif(not FILES, reason="no real captures at hand")


def read_file(path: Path, *, finished: bool) -> list[Record]:
    source = Source(path.name, path, LONG_AGO if finished else None)
    return list(read(source))


def turns(records: list[Record]) -> list[Turn]:
    return [record.turn for record in records if isinstance(record, Accepted)]


@dataclass
class Figures:
    """What a file adds up to."""

    turns: int
    tool_uses: int
    tokens_in: int
    tokens_out: int


def objects(path: Path) -> list[dict[str, Any]]:
    """Return the objects of a file, with no regard to lines."""
    decoder, found = json.JSONDecoder(), []
    rest = path.read_text("utf-8").lstrip()
    position = 0
    while position < len(rest):
        value, position = decoder.raw_decode(rest, position)
        found.append(value)
        while position < len(rest) and rest[position].isspace():
            position += 1
    return found


def counted(path: Path) -> Figures:
    """Count with two dictionaries: the last line of each message, and each tool call by its id.

    The reader goes by threads, places and proofs, and builds requests; here, nothing but ids
    matters, and lines of one message may stand anywhere. The two have to agree because what a
    message says and costs does not depend on where its lines stand. Ids of messages and calls are
    the provider's, and unique; the harness's own messages have the model `<synthetic>`.
    """
    last: dict[str, dict[str, Any]] = {}
    calls: set[str] = set()
    seen: set[str] = set()
    for line in objects(path):
        if line.get("type") != "assistant":
            continue
        message = line["message"]
        if message["model"] == "<synthetic>":
            continue
        if line["uuid"] not in seen:
            seen.add(line["uuid"])
            last[message["id"]] = line
        calls |= {block["id"] for block in message["content"] if block["type"] == "tool_use"}
    figures = Figures(len(last), len(calls), 0, 0)
    for line in last.values():
        major, minor, patch = map(int, line["version"].split("."))
        if (major, minor) == (2, 1) and patch in range(12, 50):
            continue
        usage = line["message"]["usage"]
        figures.tokens_in += sum(
            usage[f"{kind}input_tokens"] for kind in ("", "cache_creation_", "cache_read_")
        )
        figures.tokens_out += usage["output_tokens"]
    return figures


def open_calls(path: Path) -> int:
    """Count the calls of the last message if the file ends before they were answered.

    So it does if the message has no stop reason and the last call's id is nowhere else in the file.
    """
    lines = [line for line in objects(path) if line.get("type") == "assistant"]
    message = lines[-1]["message"]
    own = [line["message"] for line in lines if line["message"]["id"] == message["id"]]
    calls = [b["id"] for m in own for b in m["content"] if b["type"] == "tool_use"]
    if message["stop_reason"] or not calls:
        return 0
    answered = f'"tool_use_id":"{calls[-1]}"' in path.read_text("utf-8").replace('": "', '":"')
    return 0 if answered else len(calls)


def added_up(found: list[Turn]) -> Figures:
    blocks = Counter(block["type"] for turn in found for block in turn.response.content)
    return Figures(
        len(found),
        blocks["tool_use"],
        sum(turn.usage.prompt_tokens or 0 for turn in found),
        sum(turn.usage.completion_tokens or 0 for turn in found),
    )


def is_piece(path: Path) -> bool:
    """Whether the file begins in the middle: its first line follows one that is not there."""
    first = next(line for line in objects(path) if "parentUuid" in line)
    return first["parentUuid"] is not None


@pytest.mark.parametrize("path", [*FILES, *GROWTH], ids=lambda path: path.name[:20])
class TestFiles:
    def test_figures(self, path: Path) -> None:
        records = read_file(path, finished=True)
        assert not [r for r in records if isinstance(r, Rejected)]
        skipped = Counter(r.reason for r in records if isinstance(r, Skipped))
        expected = counted(path)
        left = [r for r in records if isinstance(r, Incomplete)]
        if calls := open_calls(path):
            assert len(left) == 1
            expected.turns -= 1
            expected.tool_uses -= calls
        else:
            assert not left
        if is_piece(path):
            assert skipped.pop(Reason.HISTORY_MISSING) == expected.turns
            expected = Figures(0, 0, 0, 0)
        assert added_up(turns(records)) == expected
        assert set(skipped) <= {Reason.SYNTHETIC_MESSAGE}

    def test_every_call_has_its_results_behind_it(self, path: Path) -> None:
        for turn in turns(read_file(path, finished=True))[::10]:
            messages = [*turn.history]
            for message, following in pairwise(messages):
                assert message.role != following.role
                if message.role == "assistant":
                    answered = {block.get("tool_result_id") for block in following.content}
                    asked = {block.get("tool_use_id") for block in message.content}
                    assert asked <= answered | {None}

    def test_sessions_grow_and_do_not_fork(self, path: Path) -> None:
        builder = ChainBuilder()
        latest: dict[str, Chain] = {}
        heads = set()
        begun = 0
        for turn in turns(read_file(path, finished=True)):
            assert turn.envelope is not None
            chain = builder.build(turn)
            before = latest.get(turn.envelope.harness_session_id)
            if before is None or before.root_hash != chain.root_hash:
                begun += 1
            else:
                assert chain.hashes[: len(before)] == before.hashes
            latest[turn.envelope.harness_session_id] = chain
            heads.add(chain.head.hash)
        lines = objects(path)
        # A chain begins with the file, with a sub-agent, and where the harness began anew.
        roots = [line for line in lines if line.get("uuid") and line["parentUuid"] is None]
        assert begun == len(roots)
        assert len(heads) == added_up(turns(read_file(path, finished=True))).turns

    def test_cuts_give_a_part_of_the_turns(self, path: Path) -> None:
        data = path.read_bytes()
        whole = identities(read_file(path, finished=False))
        lines = data.splitlines(keepends=True)
        for cut in range(1, len(lines), max(len(lines) // 12, 1)):
            assert identities(cut_off(path, sum(map(len, lines[:cut])))) <= whole


def identities(records: list[Record]) -> set[object]:
    """Return what turns are in the database."""
    builder = ChainBuilder()
    found: set[object] = set()
    for turn in turns(records):
        assert turn.envelope is not None
        chain = builder.build(turn)
        key = turn.envelope.session_key(chain.root_hash)
        found.add((key, chain.head.hash, turn.stop_reason, turn.usage, turn.captured))
    return found


def cut_off(path: Path, size: int) -> list[Record]:
    return list(read(Source(path.name, path, limit=size)))


@pytest.mark.skipif(not GROWTH, reason="no real captures at hand")
def test_one_file_at_several_moments() -> None:
    moments = [identities(read_file(path, finished=False)) for path in GROWTH]
    assert len(moments) > 1
    for earlier, later in pairwise(moments):
        assert earlier < later
    assert set().union(*moments) == moments[-1]
    assert moments[-1] == identities(read_file(GROWTH[-1], finished=True))
