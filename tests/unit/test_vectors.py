"""The content address against the golden vectors, from a line's bytes to the hashes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tapes_cli.capture.reader import Reader
from tapes_cli.capture.sources import Source
from tapes_cli.merkle.chain import ChainBuilder, check_chain
from tapes_cli.model.envelope import NIL_ORG, Envelope
from tapes_cli.model.records import Accepted, Rejected

if TYPE_CHECKING:
    from tapes_cli.model.records import Record

VECTORS = Path(__file__).parents[1] / "data" / "hash-vectors.jsonl"
CASES: list[dict[str, Any]] = [
    json.loads(line) for line in VECTORS.read_text("utf-8").split("\n") if line
]


def read(path: Path) -> list[Record]:
    return list(Reader().read(Source(path.name, path)))


def test_all_vectors_are_here() -> None:
    assert len(CASES) == 222
    assert sum(case["ok"] for case in CASES) == 199


@pytest.mark.parametrize("case", CASES, ids=[case["case"] for case in CASES])
def test_the_real_reader_agrees(case: dict[str, Any], tmp_path: Path) -> None:
    capture = tmp_path / "capture.jsonl"
    capture.write_bytes(case["line"].encode() + b"\n")

    [record] = read(capture)

    if not case["ok"]:
        assert isinstance(record, Rejected)
        return
    assert isinstance(record, Accepted)
    chain = ChainBuilder().build(record.turn)
    check_chain(chain)
    assert [node.hash for node in chain.nodes] == chain.hashes == case["chain"]
    key = (record.turn.envelope or Envelope()).session_key(chain.root_hash)
    if "harness_session_id" in case:
        assert key.harness_session_id == case["harness_session_id"]
    if "org_id" in case:
        assert str(key.org_id) == (case["org_id"] or str(NIL_ORG))


def test_one_reader_for_all_of_them_gives_the_same_hashes(tmp_path: Path) -> None:
    """What a reader and a builder remember from one turn changes nothing in the next."""
    capture = tmp_path / "capture.jsonl"
    capture.write_bytes(b"".join(case["line"].encode() + b"\n" for case in CASES * 2))
    builder = ChainBuilder()

    chains = [
        [node.hash for node in builder.build(record.turn).nodes]
        if isinstance(record, Accepted)
        else None
        for record in read(capture)
    ]

    assert chains == [case.get("chain") for case in CASES] * 2
