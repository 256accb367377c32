from __future__ import annotations

import bz2
import gzip
import io
import json
import tracemalloc
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapes_cli.capture import batch_inputs, batch_requests
from tapes_cli.capture.batch_inputs import BatchInputs, Indexes
from tapes_cli.capture.formats.base import Capture, Draft, Memory
from tapes_cli.capture.formats.batch_api import OUTPUT
from tapes_cli.capture.lines import LineSplitter
from tapes_cli.capture.reader import Options, read
from tapes_cli.capture.sources import Source
from tapes_cli.model.reasons import Reason
from tapes_cli.model.records import Accepted, Incomplete, Location, Rejected, Skipped
from tests.fuzz.check import faults, read_broken
from tests.support.exchanges import PATHS, chain_of, history, read_files, turn_record, turns_of
from tests.support.exchanges import exchange as exchanged
from tests.support.provider_bodies import whole

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from tapes_cli.model.records import Record

LARGE = 123456789012345678901234567890
APIS = ("openai", "openai-responses", "anthropic")


def asked(custom_id: Any, words: str = "", api: str = "openai") -> dict[str, Any]:
    """A request of a batch."""
    request = history(api, [words or f"question {custom_id}"])
    if api == "anthropic":
        return {"custom_id": custom_id, "params": request}
    url = PATHS[api].replace("/codex", "/v1")
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": request}


def answered(custom_id: Any, api: str = "openai", **changes: Any) -> dict[str, Any]:
    """An answer; the changes are to `response`, or to `result`."""
    body = json.loads(whole(api, [{"type": "text", "text": "Hi"}]))
    if api == "anthropic":
        return {"custom_id": custom_id, "result": {"type": "succeeded", "message": body} | changes}
    response = {"status_code": 200, "request_id": "r", "body": body} | changes
    return {"id": "batch_req_1", "custom_id": custom_id, "response": response, "error": None}


def lines(*values: Any) -> bytes:
    return b"".join(json.dumps(value).encode() + b"\n" for value in values)


def outputs(files: Mapping[str, bytes]) -> list[Record]:
    """Return the records of the files whose name begins with `out`."""
    return [r for r in read_files(files) if "/out" in r.location.source]


def reasons(records: list[Record]) -> list[Reason | None]:
    return [getattr(record, "reason", None) for record in records]


NAMES = st.sampled_from("abc")
WORDS = st.sampled_from(["one", "two", "three"])


def said(record: Record) -> str:
    """Return the first words of a turn."""
    assert isinstance(record, Accepted), record
    return str(record.turn.history[0].content[0]["text"])


@pytest.mark.parametrize("api", APIS)
def test_an_answer_is_joined_to_its_request(api: str) -> None:
    questions = lines(*(asked(name, api=api) for name in "abc"))
    answers = lines(*(answered(name, api) for name in "cab"))
    records = read_files({"in.jsonl": questions, "out.jsonl": answers})
    assert reasons(records) == [Reason.BATCH_INPUT] * 3 + [None] * 3
    turns = turns_of(records[3:])
    assert [said(record) for record in records[3:]] == [f"question {name}" for name in "cab"]
    told = exchanged(api, ["question c"])
    (same,) = turns_of(read_files({"a": lines(turn_record(told))}))
    assert chain_of(turns[0]) == chain_of(same)
    assert [record.location.line for record in records[3:]] == [1, 2, 3]
    assert {turn.envelope for turn in turns} == {None}
    first = records[3]
    assert isinstance(first, Accepted)
    assert first.location.format == "batch-api-output"
    assert json.loads(first.raw())["meta"]["request_id"] == "c"
    assert turns[0].captured.dated is (api != "anthropic")


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("compress", [bytes, gzip.compress, bz2.compress])
def test_inputs_may_be_a_document_and_compressed(
    indent: int | None, compress: Callable[[bytes], bytes]
) -> None:
    requests = [asked("a", api="anthropic"), asked("b", api="anthropic")]
    document = json.dumps({"requests": requests}, indent=indent).encode()
    files = {"in.json": compress(document), "out.jsonl": lines(answered("b", "anthropic"))}
    records = read_files(files)
    assert reasons(records) == [Reason.BATCH_INPUT, Reason.BATCH_INPUT, None]
    assert [record.location.index for record in records[:2]] == [0, 1]
    assert said(records[2]) == "question b"


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_lines_of_every_kind(compress: Callable[[bytes], bytes]) -> None:
    """A byte order mark, CR LF, blank lines, and a last line without an end."""
    questions = [json.dumps(asked(name)).encode() for name in "abc"]
    data = compress(b"\xef\xbb\xbf" + b"\r\n\r\n".join(questions))
    records = outputs({"in": data, "out": lines(answered("c"), answered("a"))})
    assert [said(record) for record in records] == ["question c", "question a"]


def test_a_single_request_over_several_lines() -> None:
    data = json.dumps(asked("a"), indent=1).replace("\n", "\r\n").encode()
    assert said(outputs({"in": data, "out": lines(answered("a"))})[0]) == "question a"


class TestWhere:
    def test_the_folder_comes_before_the_files_of_the_run(self) -> None:
        files = {
            "1/in.jsonl": lines(asked("a", "far")),
            "2/in.jsonl": lines(asked("a", "near")),
            "2/out.jsonl": lines(answered("a")),
            "3/out.jsonl": lines(answered("a")),
        }
        near, far = outputs(files)
        assert said(near) == "near"
        # The other two are as far away, and differ.
        assert reasons([far]) == [Reason.BATCH_UNMATCHED]

    def test_the_files_of_the_run(self) -> None:
        files = {"1/in.jsonl": lines(asked("a")), "2/out.jsonl": lines(answered("a"))}
        assert said(outputs(files)[0]) == "question a"

    def test_stdin_has_no_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path / "in.jsonl"
        path.write_bytes(lines(asked("a")))
        for paths, found in (((path,), [None]), ((), [Reason.BATCH_UNMATCHED])):
            data = io.TextIOWrapper(io.BytesIO(lines(answered("a"))))
            monkeypatch.setattr("sys.stdin", data)
            monkeypatch.chdir(tmp_path)
            records = list(read(Source("in", None), Options(paths=paths)))
            assert reasons(records) == found

    def test_what_is_no_input_is_passed_over(self, tmp_path: Path) -> None:
        (tmp_path / "folder").mkdir()
        (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
        (tmp_path / "in").write_bytes(lines(asked("a")))
        (tmp_path / "log").write_bytes(lines({"event": 1}, asked("a", "another")))
        (tmp_path / "text").write_bytes(b"words\n" + lines(asked("a", "another")))
        (tmp_path / "out").write_bytes(lines(answered("a")))
        source = Source("out", tmp_path / "out")
        (record,) = read(source, Options(paths=(tmp_path / "gone", tmp_path / "none")))
        assert said(record) == "question a"

    def test_what_stands_before_a_damage_is_found(self) -> None:
        data = gzip.compress(lines(asked("a"), *(asked(str(n), "x" * 999) for n in range(999))))
        records = outputs({"in": data[:-20], "out": lines(answered("a"))})
        assert said(records[0]) == "question a"

    def test_the_one_that_has_all_ids_comes_before_the_folder(self) -> None:
        files = {
            "1/in": lines(asked("a", "other"), asked("b", "other")),
            "1/out": lines(*map(answered, "abc")),
            "2/in": lines(*map(asked, "abc")),
        }
        assert [said(r) for r in outputs(files)] == [f"question {name}" for name in "abc"]

    @pytest.mark.parametrize("far", [{}, {"2/in": lines(asked("a", "other"))}])
    def test_one_that_was_split_in_the_folder(self, far: dict[str, bytes]) -> None:
        files = {
            "1/in1": lines(asked("a"), asked("b")),
            "1/in2": gzip.compress(lines(asked("c"), asked("b"))),
            "1/out": lines(*map(answered, "abc")),
        }
        assert [said(r) for r in outputs(files | far)] == [f"question {name}" for name in "abc"]

    def test_pieces_in_the_folder_against_a_whole_one_elsewhere(self) -> None:
        """Either may be the input: what they say alike is taken."""
        files = {
            "1/in1": lines(asked("a")),
            "1/in2": lines(asked("b", "other")),
            "1/out": lines(*map(answered, "ab")),
            "2/in": lines(asked("a"), asked("b")),
        }
        first, second = outputs(files)
        assert said(first) == "question a"
        assert reasons([second]) == [Reason.BATCH_UNMATCHED]
        # Pieces that differ belong to several batches.
        files["1/in3"] = lines(asked("b", "third"))
        assert [said(r) for r in outputs(files)] == ["question a", "question b"]

    def test_one_that_was_split_over_folders(self) -> None:
        files = {
            "1/in": lines(asked("a"), asked("b", "other")),
            "1/out": lines(*map(answered, "abcd")),
            "2/in": lines(asked("b"), asked("c")),
        }
        records = outputs(files)
        assert reasons(records) == [None, Reason.BATCH_UNMATCHED, None, Reason.BATCH_UNMATCHED]
        assert (said(records[0]), said(records[2])) == ("question a", "question c")

    @settings(max_examples=80)
    @given(st.lists(st.tuples(st.booleans(), st.dictionaries(NAMES, WORDS))))
    def test_no_output_is_joined_from_two_batches(
        self, held: list[tuple[bool, dict[str, str]]]
    ) -> None:
        files = {"near/out": lines(*map(answered, "abc"))}
        for number, (near, requests) in enumerate(held):
            data = lines(*(asked(name, words) for name, words in requests.items()))
            files[f"{'near' if near else 'far'}/in{number}"] = data
        found = {
            name: said(record) if isinstance(record, Accepted) else None
            for name, record in zip("abc", outputs(files), strict=True)
        }
        near_ones = [requests for near, requests in held if near and len(requests) == 3]
        whole_ones = near_ones or [requests for _, requests in held if len(requests) == 3]
        for name, words in found.items():
            told = {requests[name] for requests in whole_ones}
            anywhere = {requests[name] for _, requests in held if name in requests}
            assert words is None or words in anywhere
            if near_ones:
                assert words == (told.pop() if len(told) == 1 else None)
            elif whole_ones:
                assert words is None or told == {words}
            elif len(anywhere) == 1:
                assert words in anywhere


class TestDamaged:
    @pytest.mark.parametrize("compress", [bytes, gzip.compress])
    def test_inputs_have_damaged_lines(self, compress: Callable[[bytes], bytes]) -> None:
        """The first one, and glued ones, behind which another is cut short."""
        glued = lines(asked("a")).strip() + lines(asked("b")).strip()
        data = b'{"custom_id": "0", "met\n{}x\n' + glued + b'{"custom\n' + lines(asked("c"))
        records = outputs({"in": compress(data), "out": lines(*map(answered, "cab"))})
        assert [said(record) for record in records] == [f"question {name}" for name in "cab"]

    @pytest.mark.parametrize("damaged", [[], [b'{"custom']])
    def test_the_first_record_that_can_be_read_decides(self, damaged: list[bytes]) -> None:
        data = b"\n".join([*damaged, b'{"event": 1}', lines(asked("a"))])
        records = outputs({"in": data, "out": lines(answered("a"))})
        assert reasons(records) == [Reason.BATCH_UNMATCHED]

    @pytest.mark.parametrize(
        ("limits", "reason"),
        [
            ({"LOOK_AT_LINES": 8}, Reason.BATCH_UNMATCHED),
            ({"LOOK_AT_LINES": 9}, None),
            ({"LOOK_AT_BYTES": 8}, Reason.BATCH_UNMATCHED),
            ({"LOOK_AT_BYTES": 8, "LOOK_AT_LEAST": 9}, None),
        ],
    )
    def test_a_file_that_cannot_be_read_is_given_up(
        self, limits: dict[str, int], reason: Reason | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name, limit in limits.items():
            monkeypatch.setattr(batch_requests, name, limit)
        records = outputs({"in": b"{\r\n" * 8 + lines(asked("a")), "out": lines(answered("a"))})
        assert reasons(records) == [reason]

    @pytest.mark.parametrize("sizes", [[1], [3], [1, 1, 1, 1, 1], [6], [20, 7]])
    def test_archives_of_several_members(self, sizes: list[int]) -> None:
        """Where the chunks end that are read says nothing."""
        data = b"\xef\xbb\xbf\r\n\n" + lines(asked("a"))
        members = []
        for size in sizes:
            members.append(gzip.compress(data[:size]))
            data = data[size:]
        files = {"in": b"".join([*members, gzip.compress(data)]), "out": lines(answered("a"))}
        assert [said(record) for record in outputs(files)] == ["question a"]


class TestMemory:
    """Of the files of a run, each is read once for all outputs."""

    @pytest.fixture
    def looked_at(self, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
        counted: Counter[str] = Counter()
        read_requests = batch_requests.requests_in

        def counting(path: Path) -> Any:
            counted[path.name] += 1
            return read_requests(path)

        monkeypatch.setattr(batch_inputs, "requests_in", counting)
        return counted

    def join(self, folder: Path, name: str, indexes: Indexes) -> str:
        """Return the first words that the request with this id has."""
        inputs = BatchInputs(frozenset({("body", name)}), folder / f"out {name}", (), indexes)
        return str(inputs.request(("body", name))["body"]["messages"][0]["content"])

    def folder(self, path: Path) -> Path:
        for name in "abc":
            (path / f"in {name}").write_bytes(lines(asked(name)))
            (path / f"out {name}").write_bytes(lines(answered(name)))
        return path

    def test_of_what_formats_remember(self, tmp_path: Path, looked_at: Counter[str]) -> None:
        folder, memory = self.folder(tmp_path), Memory()
        for name in "abc":
            path = folder / f"out {name}"
            capture = Capture(
                Location(name, 0, 0),
                LineSplitter().split([path.read_bytes()]),
                path,
                memory=memory,
            )
            (draft,) = OUTPUT.read(capture)
            assert isinstance(draft, Draft)
        assert len(looked_at) == 6
        assert set(looked_at.values()) == {1}

    def test_each_file_is_read_once(self, tmp_path: Path, looked_at: Counter[str]) -> None:
        folder, indexes = self.folder(tmp_path), Indexes()
        for _ in range(2):
            assert [self.join(folder, n, indexes) for n in "abc"] == [
                f"question {n}" for n in "abc"
            ]
        assert set(looked_at.values()) == {1}

    def test_a_file_that_was_changed_is_read_again(
        self, tmp_path: Path, looked_at: Counter[str]
    ) -> None:
        folder, indexes = self.folder(tmp_path), Indexes()
        self.join(folder, "a", indexes)
        (folder / "in a").write_bytes(lines(asked("a", "something longer")))
        assert self.join(folder, "a", indexes) == "something longer"
        assert looked_at["in a"] == 2
        assert looked_at["in b"] == 1

    def test_what_was_not_asked_for_lately_is_forgotten(
        self, tmp_path: Path, looked_at: Counter[str]
    ) -> None:
        folder, indexes = self.folder(tmp_path), Indexes(2000)
        for _ in range(2):
            for name in "abc":
                assert self.join(folder, name, indexes) == f"question {name}"
        assert looked_at["in a"] > 1
        assert indexes._size <= 2000
        assert indexes._size == sum(index.size for index in indexes._kept.values())

    def test_memory_is_bounded(self, tmp_path: Path) -> None:
        """Of a file with many ids, and of many files, no more is held than is asked for."""
        for number in range(4):
            names = (f"request {number} {i}" for i in range(1000))
            (tmp_path / f"in {number}").write_bytes(lines(*map(asked, names)))
        for most in (30_000, 800_000):
            indexes = Indexes(most)
            tracemalloc.start()
            for number in range(4):
                name = f"request {number} 999"
                assert self.join(tmp_path, name, indexes) == f"question {name}"
            held, _ = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert held < most
        assert held > most / 3


class TestSeveral:
    def test_identical_requests_are_one(self) -> None:
        same = json.loads(json.dumps(asked("a"), sort_keys=True))
        files = {
            "in1": lines(asked("a"), asked("a")),
            "in2": lines(same),
            "out": lines(answered("a")),
        }
        assert said(outputs(files)[0]) == "question a"

    def test_the_one_that_has_all_ids_of_the_output(self) -> None:
        files = {
            "in1": lines(asked("a", "other"), asked("a", "third"), asked("c")),
            "in2": lines(asked("a"), asked("b"), asked("c")),
            "out": lines(answered("a"), answered("b"), {"custom_id": "c", "error": {}}),
        }
        first, second, third = outputs(files)
        assert (said(first), said(second)) == ("question a", "question b")
        assert reasons([third]) == [Reason.BATCH_FAILED]

    @pytest.mark.parametrize(
        "files",
        [
            {"in1": lines(asked("a")), "in2": lines(asked("a", "other"))},
            {"in1": lines(asked("a"), asked("a", "other"), asked("a", "third"))},
            {"in1": gzip.compress(lines(asked("a"))), "in2": lines(asked("a", "other"))},
        ],
    )
    def test_different_ones_are_told(self, files: dict[str, bytes]) -> None:
        answer = lines(answered("a"))
        (record,) = outputs({**files, "out": answer})
        assert isinstance(record, Rejected)
        assert (record.reason, record.pointer) == (Reason.BATCH_UNMATCHED, "/custom_id")
        assert "several batch inputs" in record.message
        assert record.raw + b"\n" == answer

    def test_those_of_another_api_do_not_count(self) -> None:
        files = {
            "in1": lines(asked("a", api="anthropic")),
            "in2": lines(asked("a")),
            "out": lines(answered("a")),
        }
        assert said(outputs(files)[0]) == "question a"


def test_without_an_input() -> None:
    (record,) = outputs({"out": lines(answered("a"))})
    assert isinstance(record, Rejected)
    assert record.reason is Reason.BATCH_UNMATCHED
    assert record.message == (
        "no batch input at hand holds its custom_id; put the input file into the same folder"
    )
    (again,) = outputs({"in": lines(asked("a")), "out": record.raw})
    assert said(again) == "question a"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ({**answered("a"), "response": None}, Reason.BATCH_FAILED),
        ({**answered("a"), "error": {"code": "batch_expired"}}, Reason.BATCH_FAILED),
        ({"custom_id": "a", "result": {"type": "expired"}}, Reason.BATCH_FAILED),
        ({"custom_id": "a", "result": {"type": "errored", "error": {}}}, Reason.BATCH_FAILED),
        ({"custom_id": "a", "result": {"type": "canceled"}}, Reason.BATCH_FAILED),
        (answered("a", status_code=400, body={"error": {}}), Reason.UPSTREAM_STATUS),
        (asked("a"), Reason.BATCH_INPUT),
    ],
)
def test_skipped(answer: dict[str, Any], reason: Reason) -> None:
    records = outputs({"out": lines(answered("z"), answer)})
    assert reasons(records) == [Reason.BATCH_UNMATCHED, reason]
    assert isinstance(records[1], Skipped)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (answered(5), Reason.EXCHANGE_INVALID),
        (answered("a", status_code="200"), Reason.EXCHANGE_INVALID),
        (answered("a", body=None), Reason.EXCHANGE_INVALID),
        (answered("a", body={"id": 5}), Reason.REDUCER_ERROR),
        ({**answered("a"), "response": 5}, Reason.EXCHANGE_INVALID),
        ({"custom_id": "a", "result": {"type": "new"}}, Reason.EXCHANGE_INVALID),
        (answered("a", "anthropic", message=5), Reason.EXCHANGE_INVALID),
        ({"custom_id": "a"}, Reason.UNRECOGNISED),
        ([1], Reason.NOT_OBJECT),
        (answered("b"), Reason.REQUEST_DECODE),
        (answered("c"), Reason.REQUEST_INVALID),
    ],
)
def test_rejected(answer: Any, reason: Reason) -> None:
    questions = lines(
        asked("a"),
        asked("a", api="anthropic"),
        {**asked("b"), "body": 5},
        {**asked("c"), "body": {"messages": 5}},
    )
    records = outputs({"in": questions, "out": lines(answered("a"), answer)})
    assert isinstance(records[0], Accepted)
    assert isinstance(records[1], Rejected)
    assert records[1].reason is reason


@pytest.mark.parametrize(
    ("url", "reason"),
    [("/v1/embeddings", Reason.NON_TURN_REQUEST), ("/x", Reason.UNKNOWN_PROVIDER)],
)
def test_batches_of_something_else(url: str, reason: Reason) -> None:
    files = {"in": lines({**asked("a"), "url": url}), "out": lines(answered("a"))}
    assert reasons(outputs(files)) == [reason]


def test_numbers_stay_exact() -> None:
    call = {"type": "tool_use", "id": "i", "name": "n", "input": {"a": LARGE}}
    question = asked("a", api="anthropic")
    question["params"]["messages"].append({"role": "assistant", "content": [call]})
    answer = answered("a", "anthropic")
    answer["result"]["message"]["content"] = [call]
    for compress in (bytes, gzip.compress):
        (turn,) = turns_of(outputs({"in": compress(lines(question)), "out": lines(answer)}))
        assert turn.history[1].content[0]["tool_input"] == {"a": LARGE}
        assert turn.response.content[0]["tool_input"] == {"a": LARGE}


def test_damaged_lines() -> None:
    whole_line = lines(answered("a"))
    glued = whole_line.strip() + lines(answered("b"))
    data = whole_line + glued + b"{broken\n" + whole_line + b'{"custom_id": "a'
    records = outputs({"in": lines(asked("a"), asked("b")), "out": data})
    assert [type(record) for record in records] == [
        *(Accepted, Accepted, Accepted, Rejected, Accepted, Incomplete)
    ]
    assert [record.location.line for record in records] == [1, 2, 2, 3, 4, 5]
    assert said(records[2]) == "question b"


def test_a_line_that_is_too_long(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(lines(asked("a")))
    (tmp_path / "out").write_bytes(lines(answered("a"), "x" * 5000, answered("a")))
    records = list(read(Source("out", tmp_path / "out"), Options(max_line_bytes=2000)))
    assert reasons(records) == [None, Reason.LINE_TOO_LONG, None]


def test_an_output_that_ends_in_a_damage() -> None:
    data = lines(answered("a")) + bytes(9)
    records = outputs({"in": lines(asked("a")), "out": gzip.compress(lines(answered("a")))[:-4]})
    assert [type(record) for record in records] == [Accepted, Rejected]
    assert reasons(records)[1] is Reason.SOURCE_UNREADABLE
    assert len(outputs({"in": lines(asked("a")), "out": data})) == 2


def test_an_input_that_changes_while_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(lines(asked("a"), asked("b")))
    (tmp_path / "out").write_bytes(lines(answered("a"), answered("b")))
    records = read(Source("out", tmp_path / "out"))
    assert said(next(records)) == "question a"
    (tmp_path / "in").write_bytes(lines(asked("b")))
    assert reasons([*records]) == [Reason.BATCH_UNMATCHED]


def test_large_inputs_are_not_kept_in_memory(tmp_path: Path) -> None:
    names = [str(number) for number in range(400)]
    questions = lines(*(asked(name, "x" * 50_000 + name) for name in names))
    (tmp_path / "in").write_bytes(questions)
    (tmp_path / "out").write_bytes(lines(*map(answered, names)))
    assert len(questions) > 16 << 20
    tracemalloc.start()
    count = sum(isinstance(r, Accepted) for r in read(Source("out", tmp_path / "out")))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == len(names)
    assert peak < 8 << 20


@pytest.mark.parametrize("seed", range(150))
def test_broken_batches_give_records(seed: int) -> None:
    document = json.dumps({"requests": [asked(n, api="anthropic") for n in "de"]}).encode()
    files = {
        "in1.jsonl": lines(*map(asked, "abc")),
        "in2.json": document,
        "out1.jsonl": lines(*map(answered, "abc")),
        "out2.jsonl": lines(answered("e", "anthropic"), answered("d", "anthropic")),
    }
    assert faults(read_broken({"batch-api": files}, "batch-api", seed)) == []
