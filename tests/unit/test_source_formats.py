"""Formats that see a whole source or a whole folder, with one of each made up for the purpose."""

from __future__ import annotations

import gzip
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tapes_cli.capture import detection, formats, line_reader
from tapes_cli.capture.decode import decode_exact, dump
from tapes_cli.capture.detection import is_divisible
from tapes_cli.capture.expansion import expand
from tapes_cli.capture.formats import batch, turn_records
from tapes_cli.capture.formats.base import Capture, Draft, FolderFormat, Found, SourceFormat
from tapes_cli.capture.history import OpenedRecord
from tapes_cli.capture.reader import Options, Reader
from tapes_cli.capture.sources import Source
from tapes_cli.model.reasons import Reason
from tapes_cli.model.records import Accepted, Incomplete, Record, Rejected, Skipped
from tests.support.captures import line, record

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
DAY = line({"diary": "a"})


def _draft(capture: Capture, number: int, words: str) -> Draft:
    turn = record(words)
    return Draft(capture.at(number, 5), OpenedRecord(turn), lambda: dump(turn), 10)


def read_diary(capture: Capture) -> Iterator[Found]:
    for each in capture.lines:
        yield _draft(capture, each.number, f"{each.data!r} {capture.finished}")


def read_pair(capture: Capture) -> Iterator[Found]:
    assert capture.path is not None
    names = ("one.txt", "two.txt")
    words = "+".join((capture.path / name).read_text() for name in names)
    yield _draft(capture, 1, words)
    yield Skipped(capture.at(2), Reason.EMPTY_RESPONSE)
    yield Draft(capture.at(3), line(record("as bytes")).encode(), lambda: b"", 10)


DIARY = SourceFormat(
    name="diary",
    title="diary",
    sign="`diary`",
    recognises=lambda value: "diary" in value,
    read=read_diary,
    lossy=True,
)
PAIR = FolderFormat(
    name="pair",
    title="pair",
    sign="two files",
    recognises=lambda _: False,
    files=frozenset({"one.txt", "two.txt"}),
    optional=frozenset({"three.txt"}),
    read=read_pair,
)


@pytest.fixture(autouse=True)
def _formats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "all_formats", lambda: (DIARY, PAIR, turn_records.FORMAT))


def file(folder: Path, text: str | bytes, age: timedelta = timedelta(0)) -> Source:
    path = folder / "a"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return Source("a", path, NOON - age, path.stat().st_size)


def read(source: Source, **options: Any) -> list[Record]:
    return list(Reader(Options(now=lambda: NOON, **options)).read(source))


def said(found: Record) -> str:
    assert isinstance(found, Accepted)
    return found.turn.history[0].content[0]["text"]


class TestSource:
    def test_all_of_it_is_the_formats(self, tmp_path: Path) -> None:
        records = read(file(tmp_path, DAY + line(record()) + "nonsense\n"))
        assert [said(found)[:5] for found in records] == ["b'{\"d", "b'{\"p", "b'non"]
        assert [r.location.line for r in records] == [1, 2, 3]
        assert {r.location.format for r in records} == {"diary"}

    def test_turns_of_a_lossy_format_say_so(self, tmp_path: Path) -> None:
        (found,) = read(file(tmp_path, DAY))
        (other,) = read(file(tmp_path, line(record())))
        assert isinstance(found, Accepted)
        assert isinstance(other, Accepted)
        assert (found.turn.lossy, other.turn.lossy) == (True, False)

    def test_bad_lines_before_its_first_record_are_rejects(self, tmp_path: Path) -> None:
        bad, unknown, first = read(file(tmp_path, "nonsense\n" + line({"x": 1}) + DAY))
        assert isinstance(bad, Rejected)
        assert isinstance(unknown, Rejected)
        assert (bad.reason, unknown.reason) == (Reason.NOT_JSON, Reason.UNRECOGNISED)
        assert first.location.line == 3

    def test_it_gets_glued_lines_as_they_are(self, tmp_path: Path) -> None:
        (found,) = read(file(tmp_path, DAY.strip() + DAY))
        assert said(found).startswith('b\'{"diary": "a"}{"diary"')

    def test_behind_other_records_it_is_rejected(self, tmp_path: Path) -> None:
        source = file(tmp_path, line(record()) + DAY)
        turn, other = read(source)
        assert isinstance(turn, Accepted)
        assert isinstance(other, Rejected)
        assert (other.reason, other.location.line) == (Reason.FORMAT_UNSUPPORTED, 2)
        assert other.message.startswith("the line of a diary stands behind records of another")

    @pytest.mark.parametrize(
        ("age", "finished"), [(timedelta(hours=23), False), (timedelta(1), True)]
    )
    def test_a_file_that_was_quiet_for_a_day_is_finished(
        self,
        tmp_path: Path,
        age: timedelta,
        finished: bool,  # noqa: FBT001  # a parameter of pytest
    ) -> None:
        (found,) = read(file(tmp_path, DAY, age))
        assert said(found).endswith(str(finished))

    def test_a_pipe_is_never_finished(self, tmp_path: Path) -> None:
        (found,) = read(replace(file(tmp_path, DAY), mtime=None))
        assert said(found).endswith("False")

    @pytest.mark.parametrize(
        ("failure", "reason"),
        [
            (KeyError("secret"), Reason.FORMAT_FAILED),
            (OSError(28, "No space left on device"), Reason.SOURCE_UNREADABLE),
        ],
    )
    def test_a_format_that_fails_loses_nothing_silently(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        failure: Exception,
        reason: Reason,
    ) -> None:
        def fail(capture: Capture) -> Iterator[Found]:
            yield _draft(capture, 1, "good")
            raise failure

        broken = replace(DIARY, read=fail)
        monkeypatch.setattr(formats, "all_formats", lambda: (broken,))
        good, bad = read(file(tmp_path, DAY))
        assert isinstance(good, Accepted)
        assert isinstance(bad, Rejected)
        assert (bad.reason, bad.location.line) == (reason, 1)
        assert "secret" not in bad.message

    def test_a_damaged_archive_is_told(self, tmp_path: Path) -> None:
        *_, last = read(file(tmp_path, gzip.compress(DAY.encode() * 9)[:-4]))
        assert isinstance(last, Rejected)
        assert last.reason is Reason.SOURCE_UNREADABLE


class TestDivision:
    def test_only_plain_files_of_records_are_divided(self, tmp_path: Path) -> None:
        def divisible(text: str | bytes) -> bool:
            return is_divisible(file(tmp_path, text))

        assert divisible(line(record()) * 2)
        assert divisible("nonsense\n" + line(record()) + DAY)
        assert not divisible("")
        assert not divisible(DAY)
        assert not divisible("nonsense\n" + line({"x": 1}) + DAY)
        assert not divisible(DAY.strip() + line(record()))
        assert not divisible(gzip.compress(line(record()).encode()))
        assert not is_divisible(Source("gone", tmp_path / "gone", NOON, 5))


class TestForced:
    def test_a_source_format(self, tmp_path: Path) -> None:
        (found,) = read(file(tmp_path, line(record())), format=DIARY)
        assert found.location.format == "diary"

    def test_a_record_format(self, tmp_path: Path) -> None:
        turn, other = read(file(tmp_path, line(record()) + DAY), format=turn_records.FORMAT)
        assert isinstance(turn, Accepted)
        assert isinstance(other, Rejected)
        assert other.message == "the record is no turn record, as --format has it"


class TestFolder:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        (tmp_path / "pair").mkdir()
        for name in ("one.txt", "two.txt", "three.txt", "zz.jsonl"):
            (tmp_path / "pair" / name).write_text(name)
        (tmp_path / "other").mkdir()
        (tmp_path / "other" / "one.txt").write_text("")
        return tmp_path

    def test_it_is_one_source_and_what_else_is_in_it_others(self, folder: Path) -> None:
        found = [source for source in expand([folder]) if isinstance(source, Source)]
        names = [os.path.relpath(source.name, folder) for source in found]
        assert names == ["other/one.txt", "pair", "pair/zz.jsonl"]
        assert [source.folder for source in found] == [False, True, False]
        assert found[1].size == len("one.txttwo.txtthree.txt")
        assert not is_divisible(found[1])

    def test_what_it_holds_is_read(self, folder: Path) -> None:
        (source,) = (s for s in expand([folder]) if isinstance(s, Source) and s.folder)
        first, skipped, last = read(source)
        assert said(first) == "one.txt+two.txt"
        assert isinstance(skipped, Skipped)
        assert said(last) == "as bytes"
        assert last.location.format == "pair"

    def test_a_folder_that_is_gone_is_unreadable(self, folder: Path) -> None:
        (source,) = (s for s in expand([folder]) if isinstance(s, Source) and s.folder)
        (folder / "pair" / "one.txt").unlink()
        (found,) = read(source)
        assert isinstance(found, Rejected)
        assert found.reason is Reason.SOURCE_UNREADABLE
        (found,) = read(replace(source, path=folder / "gone"))
        assert isinstance(found, Rejected)
        assert found.message == "no such file or directory"


def test_an_unfinished_last_line_is_the_formats_too(tmp_path: Path) -> None:
    assert not [r for r in read(file(tmp_path, DAY + '{"dia')) if isinstance(r, Incomplete)]


class TestUnknown:
    def reasons(self, source: Source, **options: Any) -> list[str]:
        return [getattr(found, "reason", "turn") for found in read(source, **options)]

    @pytest.mark.parametrize("lines", [1, 4])
    def test_a_few_lines_are_told_one_by_one(self, tmp_path: Path, lines: int) -> None:
        assert self.reasons(file(tmp_path, "x\n" * lines)) == [Reason.NOT_JSON] * lines

    def test_more_are_told_once(self, tmp_path: Path) -> None:
        (found,) = read(file(tmp_path, "\nx\n" * 5))
        assert isinstance(found, Rejected)
        assert (found.reason, found.location.line) == (Reason.UNRECOGNISED, 0)
        assert found.message.startswith("none of the first 5 lines is of a supported capture")
        assert "line 2: the line is not valid JSON" in found.message

    @pytest.mark.parametrize("lines", [5, 49])
    def test_bad_lines_before_a_good_one_are_all_told(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: int
    ) -> None:
        monkeypatch.setattr(detection, "LOOK_AT_LINES", 50)
        source = file(tmp_path, "x\n" * lines + line(record()))
        assert self.reasons(source) == [Reason.NOT_JSON] * lines + ["turn"]
        assert is_divisible(source)

    def test_nobody_looks_on_for_ever(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(detection, "LOOK_AT_LINES", 50)
        source = file(tmp_path, "x\n" * 50 + line(record()))
        assert self.reasons(source) == [Reason.UNRECOGNISED]
        assert not is_divisible(source)

    @pytest.mark.parametrize("lines", [4, 5])
    def test_large_lines_count_for_more_but_never_a_few(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: int
    ) -> None:
        monkeypatch.setattr(detection, "LOOK_AT_BYTES", 100)
        source = file(tmp_path, ("x" * 50 + "\n") * lines + line(record()))
        told = [Reason.NOT_JSON] * 4 + ["turn"] if lines == 4 else [Reason.UNRECOGNISED]
        assert self.reasons(source) == told
        assert is_divisible(source) == (lines == 4)

    def test_what_is_glued_to_a_bad_object_is_found(self, tmp_path: Path) -> None:
        bad = line({"x": 1})
        source = file(tmp_path, bad * 9 + bad.strip() + line(record()) + line(record("b")) * 3)
        assert self.reasons(source) == [Reason.UNRECOGNISED] * 10 + ["turn"] * 4
        assert is_divisible(source)

    @pytest.mark.parametrize("bad", ['{"a": NaN}', '{"a": 1}'])
    def test_so_is_what_is_glued_to_something_unreadable(self, tmp_path: Path, bad: str) -> None:
        assert self.reasons(file(tmp_path, bad + line(record())))[-1] == "turn"
        broken = (line(record()).strip() * 2 + '{"a":"').encode() + b"\xff\n"
        assert self.reasons(file(tmp_path, broken))[:2] == ["turn", "turn"]

    def test_a_pipe_is_read_to_its_end(self, tmp_path: Path) -> None:
        source = replace(file(tmp_path, "x\n" * 9), mtime=None)
        assert self.reasons(source) == [Reason.NOT_JSON] * 9

    def test_so_is_what_a_format_was_named_for(self, tmp_path: Path) -> None:
        source = file(tmp_path, "x\n" * 9)
        assert self.reasons(source, format=turn_records.FORMAT) == [Reason.NOT_JSON] * 9

    def test_damage_is_told_too(self, tmp_path: Path) -> None:
        source = file(tmp_path, gzip.compress(b"x\ny\n")[:-4])
        assert self.reasons(source)[-1] == Reason.SOURCE_UNREADABLE
        assert self.reasons(source)[:-1] == [Reason.NOT_JSON] * 2

    def test_who_is_asked_for_a_format_divides_by_that(self, tmp_path: Path) -> None:
        assert not is_divisible(file(tmp_path, line(record())), DIARY)
        assert is_divisible(file(tmp_path, line(record())), turn_records.FORMAT)

    def test_lines_that_may_hold_a_token_are_not_kept(self, tmp_path: Path) -> None:
        cut = '{"request": {"headers": {"Authorization": "secret'
        for text in (cut, cut + "\n"):
            (found,) = read(replace(file(tmp_path, text), mtime=None))
            assert isinstance(found, Rejected | Incomplete)
            assert found.raw == b""

    @pytest.mark.parametrize(
        "secret",
        [
            '"url": "https://host/v1?key=secret"',
            '"url": "https://me:secret@host/v1"',
            '"cookies": [{"name": "sid", "value": "secret"}]',
            '"headers": [{"name": "X-Auth-Token", "value": "secret"}]',
            '"value": "Bearer secret"',
        ],
    )
    def test_nor_is_what_comes_behind_them(self, tmp_path: Path, secret: str) -> None:
        """A document that was cut short is read line by line."""
        text = '{\n"log": {\n' + secret + ',\n"value": "secret",\n'
        found = read(replace(file(tmp_path, text), mtime=None))
        kept = [each.raw for each in found if isinstance(each, Rejected | Incomplete)]
        assert len(kept) == 4
        assert not [raw for raw in kept if b"secret" in raw]


def test_a_batch_of_large_numbers_is_decoded_exactly_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats, "all_formats", lambda: (batch.FORMAT, turn_records.FORMAT))
    decoded: list[int] = []

    def counted(data: bytes) -> Any:
        decoded.append(len(data))
        return decode_exact(data)

    monkeypatch.setattr(line_reader, "decode_exact", counted)
    text = line({"turns": [record(x=10**20 + number) for number in range(20)]})
    assert all(isinstance(found, Accepted) for found in read(file(tmp_path, text)))
    assert sum(decoded) < 3 * len(text)


def test_a_format_whose_look_fails_says_no(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = replace(DIARY, recognises=lambda value: value["nope"])
    monkeypatch.setattr(formats, "all_formats", lambda: (broken, turn_records.FORMAT))
    (found,) = read(file(tmp_path, line(record())))
    assert isinstance(found, Accepted)


def test_what_is_left_of_a_glued_line_is_the_formats(tmp_path: Path) -> None:
    other, mine = read(file(tmp_path, line({"x": 1}).strip() + DAY))
    assert isinstance(other, Rejected)
    assert said(mine).startswith('b\'{"diary"')
