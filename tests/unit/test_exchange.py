"""HTTP exchanges: what is the same in every capture format that holds them."""

from __future__ import annotations

import json
from base64 import encodebytes, urlsafe_b64encode
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapes_cli.capture import exchange as made
from tapes_cli.capture.decode import decode
from tapes_cli.capture.formats.base import SkipError
from tapes_cli.capture.headers import Headers, UnreadBytes, kept_fields
from tapes_cli.capture.history import Histories, OpenedRecord
from tapes_cli.capture.providers import PROVIDERS
from tapes_cli.model.reasons import Reason
from tapes_cli.model.records import Accepted, Rejected, RejectError
from tests.fuzz.check import faults, read_broken
from tests.support.exchanges import (
    ENDED,
    SECRET_HEADERS,
    SESSION,
    Exchange,
    as_text,
    chain_of,
    exchange,
    har,
    har_entry,
    history,
    in_one_piece,
    log_line,
    read_files,
    read_values,
    tainted,
    turn_record,
    turns_of,
    wire_files,
)
from tests.support.provider_bodies import APIS, echo, whole

if TYPE_CHECKING:
    from tapes_cli.model.blocks import ContentBlock
    from tapes_cli.model.json import JSON
    from tapes_cli.model.records import Record

UUID = "0B0f2c1d-1111-4222-8333-944445555666"
CANARY = "canary-4f1d"
ANTHROPIC = made.Call(PROVIDERS["anthropic"])


def dumped(value: Any) -> bytes:
    return json.dumps(value).encode()


def captures(told: Exchange) -> dict[str, dict[str, bytes]]:
    """Return the files of every format that can hold an exchange."""
    line = log_line(told)
    return {
        "wire": wire_files(told),
        "wire, compressed": wire_files(told, "gzip", "gzip"),
        "http-log": {"a.jsonl": dumped(line)},
        "http-log, text": {"a.jsonl": dumped(as_text(line))},
        "har": {"a.har": json.dumps(har(har_entry(told)), indent=2).encode()},
    }


def headers(value: JSON) -> Headers:
    return Headers.of(value, "/request/headers")


def told_by(**changes: str) -> JSON:
    return headers(SESSION | {name.replace("_", "-"): text for name, text in changes.items()})


class TestHeaders:
    @pytest.mark.parametrize(
        "value",
        [
            {"Accept": "a", "X-B": ["1", " 2 "]},
            [["accept", "a"], ["x-b", "1"], ["X-B", "2"]],
            [{"name": n, "value": v} for n, v in (("ACCEPT", "a"), ("x-b", "1"), ("x-B", "2"))],
            {"accept": "a", "x-B": ["1", 5, "2"], "c": 5},
            [["accept", "a"], ["x-b", "1"], ["x-b", "2"], ["x-b"], 5, None, ["x-b", None], {}],
        ],
    )
    def test_forms(self, value: JSON) -> None:
        found = headers(value)
        assert (found.first("accept"), found.joined("x-b")) == ("a", "1,2")
        assert (found.first("x-b"), found.first("c"), found.joined("c")) == ("1", "", "")

    def test_none(self) -> None:
        assert headers(None).values == {}

    @pytest.mark.parametrize("value", ["Authorization: x", 5, True])
    def test_something_else_is_rejected(self, value: JSON) -> None:
        with pytest.raises(RejectError) as caught:
            headers(value)
        assert caught.value.reason is Reason.EXCHANGE_INVALID
        assert caught.value.message == "request.headers are neither an object nor a list"


class TestSession:
    def test_every_field(self) -> None:
        found = told_by(x_tapes_parent_harness_session_id="p", x_paper_auth_org_id=UUID)
        assert found.session() == {
            "harness_id": "claude",
            "harness_session_id": "s-1",
            "harness_version": "2.1",
            "cwd": "/home/me/a folder+more",
            "name": "näme",
            "parent_harness_session_id": "p",
            "org_id": UUID,
            "auth_subject": "subject-1",
            "harness_metadata": {"k": 1},
        }
        assert found.agent_name() == "helper"

    def test_an_empty_header_is_absent(self) -> None:
        found = told_by(x_tapes_parent_harness_session_id="", x_tapes_harness_metadata=" ")
        session = found.session()
        assert session is not None
        assert not {"parent_harness_session_id", "harness_metadata"} & session.keys()

    @pytest.mark.parametrize(
        "value", [{}, {"x-paper-auth-org-id": UUID, "x-paper-auth-subject": "s"}]
    )
    def test_without_tapes_headers_there_is_none(self, value: JSON) -> None:
        assert headers(value).session() is None

    @given(st.dictionaries(st.text(), st.integers() | st.text()))
    def test_metadata_of_any_kind(self, metadata: dict[str, Any]) -> None:
        encoded = urlsafe_b64encode(dumped(metadata)).decode().rstrip("=")
        session = headers({"x-tapes-harness-metadata": encoded}).session()
        assert session == {"harness_metadata": json.loads(dumped(metadata))}

    @pytest.mark.parametrize("text", ["%%%", "e", "bm8", urlsafe_b64encode(b"[1]").decode()])
    def test_metadata_that_are_none_are_refused_with_the_envelope(self, text: str) -> None:
        told = exchange(headers=SESSION | {"x-tapes-harness-metadata": text})
        for files in captures(told).values():
            (record,) = read_files(files)
            assert isinstance(record, Rejected)
            assert record.reason is Reason.METADATA_INVALID
            kept = json.loads(record.raw)
            assert kept.keys() & {"request", "log"}

    @pytest.mark.parametrize(
        "user",
        [
            f"user_0a_account_1b_session_{UUID}",
            f"user_0a_account__session_{UUID}",
            json.dumps({"device_id": "d", "account_uuid": "", "session_id": UUID}),
        ],
    )
    def test_claude_codes_own(self, user: str) -> None:
        request = {"metadata": {"user_id": user}}
        session = made.session_of(ANTHROPIC, headers({}), request)
        assert session == {"harness_id": "claude", "harness_session_id": UUID}
        assert made.session_of(made.Call(PROVIDERS["openai"]), headers({}), request) is None
        told = headers({"x-tapes-harness-id": "other", "x-tapes-harness-session-id": "s"})
        named = {"harness_id": "other", "harness_session_id": "s"}
        assert made.session_of(ANTHROPIC, told, request) == named

    def test_headers_without_a_session_add_to_claude_codes_own(self) -> None:
        request = {"metadata": {"user_id": f"user_0a_account__session_{UUID}"}}
        told = headers({"x-tapes-cwd": "/x", "x-paper-auth-org-id": UUID})
        assert made.session_of(ANTHROPIC, told, request) == {
            "harness_id": "claude",
            "harness_session_id": UUID,
            "cwd": "/x",
            "org_id": UUID,
        }
        assert made.session_of(ANTHROPIC, told, {}) == {"cwd": "/x", "org_id": UUID}

    @pytest.mark.parametrize(
        "metadata",
        [
            None,
            5,
            {},
            {"user_id": 5},
            {"user_id": "me"},
            {"user_id": f"x_session_{UUID}x"},
            {"user_id": "_session_1234"},
            {"user_id": "{}"},
            {"user_id": '{"session_id": 5}'},
            {"user_id": '{"session_id": ""}'},
            {"user_id": "[" * 5000},
            {"user_id": "\ud800"},
        ],
    )
    def test_no_session_of_claude_code(self, metadata: JSON) -> None:
        assert made.session_of(ANTHROPIC, headers({}), {"metadata": metadata}) is None


class TestCalled:
    @pytest.mark.parametrize("api", APIS)
    @pytest.mark.parametrize("method", ["POST", "post", None])
    def test_a_turn(self, api: str, method: str | None) -> None:
        told = exchange(api)
        call = made.called(method, told.address, "/request")
        assert call.provider.name == turn_record(told)["provider"]
        assert call.model == ("asked" if api == "gemini" else "")

    @pytest.mark.parametrize(
        ("method", "url", "reason"),
        [
            ("GET", "/v1/messages", Reason.NON_TURN_REQUEST),
            ("POST", "/v1/messages/count_tokens", Reason.NON_TURN_REQUEST),
            ("GET", "/v1/models", Reason.NON_TURN_REQUEST),
            ("POST", "https://telemetry.test/collect", Reason.UNKNOWN_PROVIDER),
            ("POST", "", Reason.UNKNOWN_PROVIDER),
            ("POST", "http://[::1/", Reason.UNKNOWN_PROVIDER),
        ],
    )
    def test_no_turn(self, method: str, url: str, reason: Reason) -> None:
        with pytest.raises(SkipError) as caught:
            made.called(method, url, "/request")
        assert caught.value.reason is reason

    @pytest.mark.parametrize(("method", "url"), [("POST", None), ("POST", 5), (5, "/v1/messages")])
    def test_wrong_types(self, method: JSON, url: JSON) -> None:
        with pytest.raises(RejectError) as caught:
            made.called(method, url, "/request")
        assert caught.value.reason is Reason.EXCHANGE_INVALID


@pytest.mark.parametrize(
    ("times", "said"),
    [
        ((1767225600, "x"), "2026-01-01T00:00:00Z"),
        ((1767225600.25,), "2026-01-01T00:00:00.250000Z"),
        ((None, "2026-01-01T01:00:00+01:00"), "2026-01-01T00:00:00Z"),
        (("soon", 0, -5, True, 1e300, 10**400, 1767225600000000, [1]), ""),
        ((), ""),
    ],
)
def test_moment(times: tuple[JSON, ...], said: str) -> None:
    assert made.moment(*times) == said


@pytest.mark.parametrize(
    ("status", "error"), [(404, SkipError), (None, RejectError), (True, RejectError)]
)
def test_status(status: JSON, error: type[Exception]) -> None:
    with pytest.raises(error):
        made.check_status(status, "/response/status")
    made.check_status(200, "/response/status")


class TestSpliced:
    @pytest.mark.parametrize("request_", [b"{}", b' {"a": 1,\r\n"contents": []} ', b"{ }"])
    @pytest.mark.parametrize("model", ["", 'a"b'])
    def test_is_what_would_be_dumped(self, request_: bytes, model: str) -> None:
        call = made.Call(PROVIDERS["gemini"], model)
        context = made.Context({"harness_id": "h"}, "agent", {"captured_at": "t"})
        data = made.spliced(call, request_, {"response": {"x": 1}}, context)
        decoded = made.turn_record(call, decode(request_), {"x": 1}, context)
        assert decode(data) == decoded
        assert decoded["request"].get("model", "") == model

    @pytest.mark.parametrize(
        "body", [b'{},"session":{}', b"{}{}", b"[]", b"", b"{", b'"a"', b"\xff", b"{}\0"]
    )
    def test_nothing_but_an_object_is_spliced(self, body: bytes) -> None:
        with pytest.raises(RejectError) as caught:
            made.request_object(body)
        assert caught.value.reason is Reason.REQUEST_DECODE

    def test_what_a_session_sends_again_is_recognised(self) -> None:
        """The bytes of a request stay as they are, so that the next one can continue them."""
        histories, texts = Histories(), [f"said {number} " * 20 for number in range(9)]
        shared = []
        for count in (3, 5, 7):
            body = dumped(exchange(texts=texts[:count]).request)
            context = made.Context({"harness_id": "h", "harness_session_id": "s"})
            data = made.spliced(ANTHROPIC, body, {"response": {}}, context)
            opened = histories.open(data)
            assert isinstance(opened, OpenedRecord)
            found = histories.messages(opened, opened.value["request"], ANTHROPIC.provider)
            shared.append(found.shared)
            assert len(found) == count
        assert shared == [0, 3, 5]


def test_half_a_character_stays_one() -> None:
    assert decode(made.text_bytes('"\ud83d\ude00 \ud800"')) == "\U0001f600 \ud800"
    assert made.text_bytes("ä\U0001f600").decode() == "ä\U0001f600"


WORDS = st.text(max_size=20).filter(lambda text: text.strip() != "")
BLOCKS = st.lists(
    st.builds(lambda text: {"type": "text", "text": text}, WORDS)
    | st.builds(
        lambda name, given: {
            "type": "tool_use",
            "tool_use_id": "call_1",
            "tool_name": name,
            "tool_input": given,
        },
        st.text("abc", min_size=1, max_size=5),
        st.dictionaries(st.text(max_size=5), st.integers() | WORDS, max_size=3),
    ),
    min_size=1,
    max_size=1,
)


class TestEveryFormat:
    @settings(max_examples=30)
    @given(st.sampled_from(APIS), st.lists(WORDS, min_size=1, max_size=4), BLOCKS)
    def test_says_the_same(self, api: str, texts: list[str], blocks: list[Any]) -> None:
        told = exchange(api, texts, blocks)
        (same,) = turns_of(read_files({"a.jsonl": dumped(turn_record(told))}))
        for files in captures(told).values():
            (turn,) = turns_of(read_files(files))
            assert chain_of(turn) == chain_of(same)
            assert (turn.usage, turn.stop_reason) == (same.usage, same.stop_reason)
            assert (turn.request_model, turn.response_model) == ("asked", same.response_model)
            assert (turn.captured, turn.provider) == (same.captured, same.provider)
            assert turn.captured.at == ENDED

    @pytest.mark.parametrize("api", APIS)
    def test_in_one_piece_or_streamed(self, api: str) -> None:
        pieces = captures(exchange(api))
        for name, files in captures(in_one_piece(api)).items():
            (one,), (other,) = turns_of(read_files(files)), turns_of(read_files(pieces[name]))
            assert chain_of(one) == chain_of(other)

    def test_session_of_the_headers(self) -> None:
        for files in captures(exchange(headers=SESSION)).values():
            (turn,) = turns_of(read_files(files))
            assert turn.envelope is not None
            assert (turn.envelope.cwd, turn.envelope.name) == ("/home/me/a folder+more", "näme")
            assert turn.envelope.auth_subject == "subject-1"
            assert turn.agent_name == "helper"

    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"url": "/v1/models"}, Reason.NON_TURN_REQUEST),
            ({"url": "/collect", "status": 500}, Reason.UNKNOWN_PROVIDER),
            ({"method": "GET"}, Reason.NON_TURN_REQUEST),
            ({"status": 529, "response": b"no"}, Reason.UPSTREAM_STATUS),
            ({"response": b""}, Reason.EMPTY_RESPONSE),
            ({"response": b"data: [DONE]\n\n"}, Reason.EMPTY_RESPONSE),
        ],
    )
    def test_skipped(self, changes: dict[str, Any], reason: Reason) -> None:
        for files in captures(exchange(**changes)).values():
            (record,) = read_files(files)
            assert getattr(record, "reason", None) is reason
            assert not isinstance(record, Rejected)

    @pytest.mark.parametrize(
        ("response", "reason"),
        [
            (b"<html>", Reason.RESPONSE_DECODE),
            (b'{"type": "message"}', Reason.REDUCER_ERROR),
            (b'{"type": "error", "error": {}}', Reason.REDUCER_ERROR),
        ],
    )
    def test_rejected_with_what_can_be_imported_again(
        self, response: bytes, reason: Reason
    ) -> None:
        for files in captures(exchange(response=response)).values():
            (record,) = read_files(files)
            assert isinstance(record, Rejected)
            assert record.reason is reason
            (again,) = read_files({"a": record.raw})
            assert isinstance(again, Rejected)
            assert again.reason is reason

    def test_a_large_integer_stays_exact(self) -> None:
        number = 123456789012345678901234567890
        call: ContentBlock = {
            "type": "tool_use",
            "tool_use_id": "i",
            "tool_name": "n",
            "tool_input": {"a": number, "b": 1.5},
        }
        asked = history("anthropic", ["Hello"])
        asked["messages"].append(echo("anthropic", [call])["messages"][0])
        body = whole("anthropic", [call])
        for told in (exchange(blocks=[call], request=asked), exchange(response=body)):
            for files in captures(told).values():
                (turn,) = turns_of(read_files(files))
                for message in (turn.response, *turn.history[1:]):
                    assert message.content == [call]


def test_base64_may_stand_in_lines() -> None:
    told = exchange()
    record = turn_record(told)
    (turn,) = turns_of(read_values(record))
    record["raw_response"] = encodebytes(told.response).decode()
    (same,) = turns_of(read_values(record))
    assert chain_of(same) == chain_of(turn)
    record["raw_response"] += "%"
    (refused,) = read_values(record)
    assert isinstance(refused, Rejected)
    assert (refused.reason, refused.message) == (
        Reason.RESPONSE_DECODE,
        "raw_response is not base64",
    )


def everything(records: list[Record]) -> str:
    """Return all that leaves the reader."""
    parts = []
    for record in records:
        if isinstance(record, Accepted):
            parts += [repr(record.location), repr(record.turn), repr([*record.turn.history])]
            parts.append(repr(record.raw()))
        else:
            parts.append(repr(record))
    return "".join(parts)


class TestSecrets:
    @pytest.mark.parametrize(
        "changes",
        [
            {},
            {"headers": SESSION},
            {"headers": SESSION | {"x-tapes-harness-metadata": "%"}},
            {"status": 500},
            {"response": b"<html>"},
            {"response": b""},
            {"response": b'{"type": "message"}'},
            {"request": {"messages": 5}},
            {"request": {"messages": [{"role": 5}]}},
            {"method": "GET"},
        ],
    )
    def test_none_leaves_the_reader(self, changes: dict[str, Any]) -> None:
        for name, files in captures(tainted(exchange(**changes), CANARY)).items():
            assert any(CANARY.encode() in data for data in files.values())
            records = read_files(files)
            assert len(records) == 1
            assert CANARY not in everything(records), name

    @pytest.mark.parametrize(
        ("place", "value"),
        [
            (("request", "url"), 5),
            (("request", "url"), {"key": CANARY}),
            (("request", "method"), {"key": CANARY}),
            (("request", "headers"), f"Authorization: {CANARY}"),
            (("request", "headers"), [[CANARY, CANARY], [CANARY], CANARY]),
            (("response", "headers"), f"Set-Cookie: {CANARY}"),
            (("response", "status_code"), None),
            (("response", "status"), None),
            (("response",), CANARY),
        ],
    )
    def test_not_even_where_types_are_wrong(self, place: tuple[str, ...], value: Any) -> None:
        told = tainted(exchange(response=b"<html>"), CANARY)
        for said in (log_line(told), har_entry(told)):
            holder = said
            for name in place[:-1]:
                holder = holder[name]
            holder[place[-1]] = value
            line = said if "logged_at" in said else har(5, said, {"request": said["request"]})
            records = read_files({"a.jsonl": dumped(line)})
            assert any(isinstance(record, Rejected) for record in records)
            assert CANARY not in everything(records)

    def test_what_is_kept_can_be_imported_again(self) -> None:
        for name, files in captures(tainted(exchange(headers=SESSION), CANARY)).items():
            (record,) = read_files(files)
            assert isinstance(record, Accepted)
            (again,) = turns_of(read_files({"a": record.raw().replace(b"\n", b" ")}))
            assert chain_of(again) == chain_of(record.turn), name
            assert (again.envelope, again.captured) == (record.turn.envelope, record.turn.captured)

    @pytest.mark.parametrize("name", SECRET_HEADERS[:-1])
    def test_a_line_that_was_cut_short_names_them(self, name: str) -> None:
        told = exchange(headers={name: CANARY})
        for whole_line in (log_line(told), har(har_entry(told)), {"headers": dumped(told.headers)}):
            line = json.dumps(whole_line, default=bytes.decode)
            assert UnreadBytes().kept(line[: line.index(CANARY) + 3].encode()) == b""
        plain = dumped(turn_record(exchange(headers=SESSION)))
        assert UnreadBytes().kept(plain) == plain

    @pytest.mark.parametrize(
        ("url", "kept"),
        [
            ("https://me:pass@h.test:1/v1/messages?key=x#y", "/v1/messages"),
            ("//me:pass@h/v1", "/v1"),
            ("/v1/messages?a", "/v1/messages"),
            ("https://h.test?key=x", ""),
            ("", ""),
        ],
    )
    def test_address(self, url: str, kept: str) -> None:
        assert kept_fields({"url": url}) == {"url": kept}


FUZZED = {
    name: files
    for number, told in enumerate(
        (exchange(headers=SESSION), exchange("openai-responses"), in_one_piece("gemini"))
    )
    for name, files in ((f"{number} {key}", held) for key, held in captures(told).items())
}


@settings(max_examples=250)
@given(st.sampled_from(sorted(FUZZED)), st.integers(0, 2**32))
def test_broken_captures_give_records(name: str, seed: int) -> None:
    assert faults(read_broken(FUZZED, name, seed)) == []
