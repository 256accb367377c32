from __future__ import annotations

import gzip
import json
import os
from base64 import b64encode
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tapes_cli.capture import bodies
from tapes_cli.capture.formats import wire_recording
from tapes_cli.merkle.chain import ChainBuilder
from tapes_cli.model.reasons import Reason
from tapes_cli.model.records import Accepted, Incomplete, Rejected, Skipped
from tests.fuzz.check import faults, read_broken
from tests.support.exchanges import (
    BEGAN,
    ENDED,
    SESSION,
    chain_of,
    coded,
    exchange,
    in_one_piece,
    read_files,
    read_path,
    rfc_3339,
    turns_of,
    wire_files,
)
from tests.support.real import REAL

if TYPE_CHECKING:
    from tapes_cli.model.records import Record
    from tapes_cli.model.turn import Turn

REQUEST, META, RESPONSE = "request.json", "meta.json", "response.sse"


def changed(name: str, **changes: Any) -> dict[str, bytes]:
    """Files of a sound recording, with fields of one changed; None takes a field away."""
    files = wire_files(exchange(), "gzip")
    value = {**json.loads(files[name]), **changes}
    kept = {key: item for key, item in value.items() if item is not None}
    return {**files, name: json.dumps(kept).encode()}


def only(records: list[Record]) -> Record:
    (record,) = records
    return record


def turn_in(files: dict[str, bytes]) -> Turn:
    (turn,) = turns_of(read_files(files))
    return turn


def test_a_folder_is_one_turn() -> None:
    told = exchange(headers=SESSION)
    files = {f"turn-{n}/{name}": data for n in "12" for name, data in wire_files(told).items()}
    records = read_files({**files, "turn-1/notes.txt": b"", "a.txt": b""})
    assert [type(record) for record in records] == [Accepted, Accepted]
    first = records[0]
    assert isinstance(first, Accepted)
    location = first.location
    assert (location.line, location.byte_offset, location.index) == (1, 0, None)
    assert (location.format, Path(location.source).name) == ("wire-recording", "turn-1")
    turn = turns_of(records)[0]
    assert turn.captured.at == ENDED
    assert turn.envelope is not None
    assert turn.envelope.harness_metadata == {"k": 1}
    assert json.loads(first.raw())["meta"] == {
        "request_id": "turn-1",
        "captured_at": rfc_3339(ENDED),
        "ts_request": rfc_3339(BEGAN),
    }


@pytest.mark.parametrize("headers", [{}, {"user-agent": "claude-cli"}])
def test_without_tapes_headers_there_is_no_session(headers: dict[str, str]) -> None:
    told = exchange(headers=headers)
    told.request["metadata"] = {"user_id": "_session_0b0f2c1d-1111-4222-8333-944445555666"}
    turn = turn_in(wire_files(told))
    assert (turn.envelope, turn.agent_name) == (None, "")


@pytest.mark.parametrize("coding", ["", "gzip", "gzip, gzip", "x-gzip", "identity"])
def test_codings_of_both_bodies(coding: str) -> None:
    told = exchange()
    files = wire_files(told, coding, coding)
    twice = coding.count("gzip")
    request = json.loads(files[REQUEST])
    body = json.dumps(told.request).encode()
    for _ in range(twice):
        body, files[RESPONSE] = gzip.compress(body), gzip.compress(told.response)
    if coding == "gzip, gzip":
        files[RESPONSE] = gzip.compress(files[RESPONSE])
    files[REQUEST] = json.dumps({**request, "body_b64": b64encode(body).decode()}).encode()
    assert chain_of(turn_in(files)) == chain_of(turn_in(wire_files(told)))


def test_the_coding_may_stand_among_the_response_headers_only() -> None:
    files = changed(META, content_encoding=None, response_headers=[["Content-Encoding", "gzip"]])
    assert isinstance(only(read_files(files)), Accepted)


@pytest.mark.parametrize("name", ["response.json", "response.txt", "response.bin"])
def test_the_response_may_have_another_name(name: str) -> None:
    files = wire_files(in_one_piece())
    files[name] = files.pop(RESPONSE)
    assert isinstance(only(read_files(files)), Accepted)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"ts_complete": None}, rfc_3339(BEGAN)),
        ({"ts_complete": "soon", "ts_request": [5]}, "2026-05-01T10:00:00Z"),
    ],
)
def test_the_best_time_there_is(changes: dict[str, Any], said: str) -> None:
    assert rfc_3339(turn_in(changed(META, **changes)).captured.at) == said


def test_a_response_that_was_cut_short_is_salvaged() -> None:
    told = exchange(blocks=[{"type": "text", "text": "one two three four"}])
    plain = replace(told, response=told.response[: told.response.index(b'"o t"')])
    files = wire_files(plain, "gzip")
    files[RESPONSE] = files[RESPONSE][:-9]
    record = only(read_files(files))
    assert isinstance(record, Accepted)
    assert record.turn.response.content == [{"type": "text", "text": "one tw"}]
    said = json.loads(record.raw())["response"]
    assert said["done"] is False
    assert said["extra"]["cut_short"] is said["extra"]["incomplete"] is True


class TestSkipped:
    @pytest.mark.parametrize("response", [None, b""])
    def test_without_a_response(self, response: bytes | None) -> None:
        files = wire_files(exchange(), "gzip")
        del files[RESPONSE]
        record = only(read_files(files if response is None else {**files, RESPONSE: response}))
        assert isinstance(record, Skipped)
        assert record.reason is Reason.EMPTY_RESPONSE

    @pytest.mark.parametrize(
        ("url", "status", "truncated", "reason"),
        [
            ("/collect", 500, True, Reason.UNKNOWN_PROVIDER),
            ("/v1/messages/count_tokens", 500, True, Reason.NON_TURN_REQUEST),
            ("/v1/messages", 500, True, Reason.UPSTREAM_STATUS),
            ("/v1/messages", 200, True, Reason.REQUEST_DECODE),
        ],
    )
    def test_the_order_of_checks(
        self, url: str, status: int, reason: Reason, *, truncated: bool
    ) -> None:
        files = changed(REQUEST, url=url, body_truncated=truncated)
        files[META] = changed(META, status=status)[META]
        record = only(read_files(files))
        assert isinstance(record, Skipped | Rejected)
        assert record.reason is reason
        assert isinstance(record, Rejected) is (reason is Reason.REQUEST_DECODE)


class TestRejected:
    @pytest.mark.parametrize(
        ("name", "changes", "reason"),
        [
            (REQUEST, {"body_b64": None}, Reason.REQUEST_DECODE),
            (REQUEST, {"body_b64": ""}, Reason.REQUEST_DECODE),
            (REQUEST, {"body_b64": "e3"}, Reason.REQUEST_DECODE),
            (REQUEST, {"body_b64": "ä"}, Reason.REQUEST_DECODE),
            (REQUEST, {"body_b64": "W10="}, Reason.REQUEST_DECODE),
            (REQUEST, {"body_b64": 5}, Reason.EXCHANGE_INVALID),
            (REQUEST, {"body_truncated": 1}, Reason.REQUEST_DECODE),
            (REQUEST, {"headers": 5}, Reason.EXCHANGE_INVALID),
            (REQUEST, {"headers": [["content-encoding", "br"]]}, Reason.REQUEST_DECODE),
            (REQUEST, {"headers": [["content-encoding", "gzip"]]}, Reason.REQUEST_DECODE),
            (REQUEST, {"url": None}, Reason.EXCHANGE_INVALID),
            (META, {"status": None}, Reason.EXCHANGE_INVALID),
            (META, {"status": "200"}, Reason.EXCHANGE_INVALID),
            (META, {"content_type": 5}, Reason.EXCHANGE_INVALID),
        ],
    )
    def test_nothing_can_be_imported_again(
        self, name: str, changes: dict[str, Any], reason: Reason
    ) -> None:
        record = only(read_files(changed(name, **changes)))
        assert isinstance(record, Rejected)
        assert (record.reason, record.raw) == (reason, b"")

    def test_a_request_that_was_cut_short(self) -> None:
        files = wire_files(exchange(), request_coding="gzip")
        value = json.loads(files[REQUEST])
        whole = coded(json.dumps(exchange().request).encode(), "gzip")
        value["body_b64"] = b64encode(whole[:-5]).decode()
        record = only(read_files({**files, REQUEST: json.dumps(value).encode()}))
        assert isinstance(record, Rejected)
        assert record.reason is Reason.REQUEST_DECODE

    def test_the_response_of_another_coding(self) -> None:
        files = {**wire_files(exchange(), "gzip"), RESPONSE: b"no archive"}
        record = only(read_files(files))
        assert isinstance(record, Rejected)
        assert record.reason is Reason.RESPONSE_DECODE
        kept = json.loads(record.raw)
        assert kept["raw_response_encoding"] == "gzip"
        files[RESPONSE] = wire_files(exchange(), "gzip")[RESPONSE]
        kept["raw_response"] = b64encode(files[RESPONSE]).decode()
        (repaired,) = turns_of(read_files({"a.jsonl": json.dumps(kept).encode()}))
        assert chain_of(repaired) == chain_of(turn_in(files))

    def test_a_turn_that_the_parser_refuses_is_kept_as_a_turn_record(self) -> None:
        told = exchange(request={"messages": 5})
        record = only(read_files(wire_files(told)))
        assert isinstance(record, Rejected)
        assert record.reason is Reason.REQUEST_INVALID
        assert json.loads(record.raw)["request"] == told.request


class TestFiles:
    @pytest.mark.parametrize("name", [REQUEST, META])
    @pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff"])
    def test_one_that_somebody_may_be_writing(self, name: str, data: bytes, tmp_path: Path) -> None:
        for file, content in {**wire_files(exchange()), name: data}.items():
            (tmp_path / file).write_bytes(content)
        record = only(read_path(tmp_path))
        assert isinstance(record, Incomplete)
        assert record.reason is Reason.INCOMPLETE_RECORDING
        long_ago = datetime(2020, 1, 1, tzinfo=UTC).timestamp()
        for path in tmp_path.iterdir():
            os.utime(path, (long_ago, long_ago))
        record = only(read_path(tmp_path))
        assert isinstance(record, Rejected)
        assert (record.reason, record.message) == (
            Reason.EXCHANGE_INVALID,
            f"{name} is not a JSON object",
        )

    def test_they_vanish_while_they_are_read(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for file, content in wire_files(exchange()).items():
            (tmp_path / file).write_bytes(content)
        read = wire_recording._contents

        def vanishing(path: Path, most: int) -> bytes | None:
            if path.name == META:
                path.unlink()
            return read(path, most)

        monkeypatch.setattr(wire_recording, "_contents", vanishing)
        record = only(read_path(tmp_path))
        assert isinstance(record, Rejected)
        assert (record.reason, record.message) == (Reason.SOURCE_UNREADABLE, "meta.json is gone")

    @pytest.mark.parametrize("name", [REQUEST, RESPONSE])
    def test_a_pipe_or_a_folder_is_not_waited_for(self, name: str, tmp_path: Path) -> None:
        for file, content in wire_files(exchange()).items():
            (tmp_path / file).write_bytes(content)
        (tmp_path / name).unlink()
        os.mkfifo(tmp_path / name)
        record = only(read_path(tmp_path))
        assert isinstance(record, Rejected)
        assert record.reason is Reason.SOURCE_UNREADABLE
        assert record.message == f"{name} is no regular file"

    def test_one_that_cannot_be_read(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for file, content in wire_files(exchange()).items():
            (tmp_path / file).write_bytes(content)

        def denied(*_arguments: Any) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "open", denied)
        record = only(read_path(tmp_path))
        assert isinstance(record, Rejected)
        assert (record.reason, record.message) == (
            Reason.SOURCE_UNREADABLE,
            "request.json cannot be read: permission denied",
        )

    @pytest.mark.parametrize("name", [REQUEST, META, RESPONSE])
    def test_one_that_is_too_large_is_not_read(self, name: str, tmp_path: Path) -> None:
        for file, content in wire_files(exchange()).items():
            (tmp_path / file).write_bytes(content)
        with (tmp_path / name).open("ab") as stream:
            stream.truncate(1 << 36)
        record = only(read_path(tmp_path))
        assert isinstance(record, Rejected)
        assert record.reason is Reason.BODY_TOO_LARGE

    @pytest.mark.parametrize("name", [REQUEST, RESPONSE])
    def test_bombs_are_bounded(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(bodies, "MAX_BODY_BYTES", 1 << 20)
        bomb = gzip.compress(b"{" + bytes(1 << 21))
        files = wire_files(exchange(), "gzip", "gzip")
        if name == RESPONSE:
            files[RESPONSE] = bomb
        else:
            request = json.loads(files[REQUEST])
            request["body_b64"] = b64encode(bomb).decode()
            files[REQUEST] = json.dumps(request).encode()
        record = only(read_files(files))
        assert isinstance(record, Rejected)
        assert record.reason is Reason.BODY_TOO_LARGE


@pytest.mark.parametrize("seed", range(150))
def test_broken_recordings_give_records(seed: int) -> None:
    files = wire_files(exchange(headers=SESSION), "gzip", "gzip")
    assert faults(read_broken({"wire": files}, "wire", seed)) == []


def test_a_session_is_hashed_once() -> None:
    texts = [f"said {number}" for number in range(9)]
    files: dict[str, bytes] = {}
    for count in (3, 5, 7, 9):
        told = exchange(texts=texts[:count], headers=SESSION)
        files |= {f"turn-{count}/{name}": data for name, data in wire_files(told).items()}
    builder = ChainBuilder()
    for turn in turns_of(read_files(files)):
        builder.build(turn)
    assert builder.hashes_computed == len(texts) + 4


class TestReal:
    def test_says_what_the_turn_records_of_the_same_run_say(self) -> None:
        folder, golden = REAL / "wire-recordings", REAL / "claude-recordings.turns.jsonl"
        if not folder.exists() or not golden.exists():
            pytest.skip("no real captures")
        found, expected = turns_of(read_path(folder)), turns_of(read_path(golden))
        assert len(found) == len(expected) == 17
        for turn, same in zip(found, expected, strict=True):
            assert chain_of(turn) == chain_of(same)
            assert (turn.usage, turn.stop_reason) == (same.usage, same.stop_reason)
            assert turn.captured == same.captured
            assert (turn.request_model, turn.response_model) == (
                same.request_model,
                same.response_model,
            )
            assert turn.envelope is not None
            assert same.envelope is not None
            assert turn.envelope.session_key("") == same.envelope.session_key("")
            assert (turn.envelope.cwd, turn.envelope.harness_version) == (
                same.envelope.cwd,
                same.envelope.harness_version,
            )
        assert len({address for turn in found for address in chain_of(turn)}) == 34
        assert sum(turn.usage.prompt_tokens or 0 for turn in found) == 565_318
        assert sum(turn.usage.completion_tokens or 0 for turn in found) == 3_827
