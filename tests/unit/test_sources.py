from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import random
import sys
import threading
import tracemalloc
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapes_cli.capture import decompress, expansion
from tapes_cli.capture.decompress import DamagedArchiveError, read_chunks
from tapes_cli.capture.expansion import expand
from tapes_cli.capture.lines import Line, LineSplitter
from tapes_cli.capture.sources import Source, SourceProblem, SourceReadError, display_name

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: gzip.compress(data, 1),
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zstd": lambda data: zstd.compress(
        data, options={zstd.CompressionParameter.checksum_flag: True}
    ),
}

compressed = pytest.mark.parametrize("kind", COMPRESSORS)


def names(found: Iterator[Source | SourceProblem], root: Path) -> list[str]:
    return [str(Path(each.name).relative_to(root)) for each in found]


def lines_of(data: bytes, chunk_size: int = 7, limit: int = 1000) -> list[Line]:
    chunks = (data[i : i + chunk_size] for i in range(0, len(data), chunk_size))
    return list(LineSplitter(limit).split(chunks))


def file_lines(path: Path, limit: int = 1 << 20) -> list[Line]:
    return list(Source(str(path), path).lines(limit))


def incompressible_lines(count: int, length: int = 1000) -> bytes:
    rng = random.Random(7)
    return b"".join(rng.randbytes(length).hex().encode() + b"\n" for _ in range(count))


class Trickle(io.RawIOBase):
    """A stream that delivers a few bytes a read and cannot seek, as a slow pipe does."""

    def __init__(self, data: bytes, step: int) -> None:
        self._data = io.BytesIO(data)
        self._step = step

    def read1(self, size: int = -1) -> bytes:
        return self._data.read(self._step if size < 0 else min(size, self._step))

    def seekable(self) -> bool:
        return False


class TestExpand:
    def test_files_keep_the_order_of_the_arguments(self, tmp_path: Path) -> None:
        for name in ("a", "b"):
            (tmp_path / name).write_bytes(b"x\n")
        found = expand([str(tmp_path / "b"), tmp_path / "a"])
        assert names(found, tmp_path) == ["b", "a"]

    def test_folder_is_read_recursively_in_the_order_of_names(self, tmp_path: Path) -> None:
        for name in ("z.jsonl", "b/2", "b/1", "a.jsonl", ".hidden/x", ".git/config", "b/.dot"):
            path = tmp_path / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"")
        expected = [".hidden/x", "a.jsonl", "b/.dot", "b/1", "b/2", "z.jsonl"]
        assert names(expand([tmp_path]), tmp_path) == expected

    def test_file_named_twice_comes_once(self, tmp_path: Path) -> None:
        file = tmp_path / "a"
        file.write_bytes(b"")
        (tmp_path / "b").symlink_to(file)
        (tmp_path / "c").hardlink_to(file)
        assert names(expand([file, tmp_path, f"{tmp_path}/../{tmp_path.name}/a"]), tmp_path) == [
            "a"
        ]

    def test_loop_of_links_ends(self, tmp_path: Path) -> None:
        inner = tmp_path / "inner"
        inner.mkdir()
        (inner / "back").symlink_to(tmp_path)
        (inner / "file").write_bytes(b"")
        assert names(expand([tmp_path]), tmp_path) == ["inner/file"]

    def test_link_to_itself_is_reported(self, tmp_path: Path) -> None:
        (tmp_path / "a").symlink_to("a")
        (tmp_path / "b").write_bytes(b"")
        problem, source = expand([tmp_path])
        assert isinstance(problem, SourceProblem)
        assert "symbolic links" in problem.message
        assert isinstance(source, Source)

    def test_missing_path_is_a_value(self, tmp_path: Path) -> None:
        (tmp_path / "there").write_bytes(b"")
        gone = str(tmp_path / "gone")
        found = list(expand([gone, tmp_path / "there"]))
        assert found[0] == SourceProblem(gone, "no such file or directory")
        assert isinstance(found[1], Source)

    def test_empty_path_does_not_mean_the_current_folder(self) -> None:
        assert list(expand([""])) == [SourceProblem("", "the path is empty")]

    def test_path_with_a_null_byte_is_reported(self) -> None:
        (found,) = expand(["a\0b"])
        assert isinstance(found, SourceProblem)

    def test_glob_is_expanded_where_the_shell_did_not(self, tmp_path: Path) -> None:
        for name in ("b.x", "a.x", "sub/c.x", "d.y"):
            path = tmp_path / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"")
        assert names(expand([f"{tmp_path}/*.x"]), tmp_path) == ["a.x", "b.x"]
        assert names(expand([f"{tmp_path}/**/*.x"]), tmp_path) == ["a.x", "b.x", "sub/c.x"]

    def test_file_whose_name_looks_like_a_glob_is_a_file(self, tmp_path: Path) -> None:
        for name in ("[a]", "a"):
            (tmp_path / name).write_bytes(b"")
        assert names(expand([f"{tmp_path}/[a]"]), tmp_path) == ["[a]"]

    def test_glob_without_a_match_is_reported(self, tmp_path: Path) -> None:
        (found,) = expand([f"{tmp_path}/*.nothing"])
        assert found == SourceProblem(f"{tmp_path}/*.nothing", "no file matches the pattern")

    def test_stdin_comes_once(self) -> None:
        assert list(expand(["-", "-"])) == [Source("<stdin>", None)]

    def test_pipe_in_a_folder_is_passed_over_but_read_if_named(self, tmp_path: Path) -> None:
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        assert list(expand([tmp_path])) == []
        assert list(expand([pipe])) == [Source(str(pipe), pipe)]

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
    def test_folder_that_may_not_be_read_is_reported(self, tmp_path: Path) -> None:
        closed = tmp_path / "closed"
        closed.mkdir(mode=0)
        (tmp_path / "open").write_bytes(b"")
        problem, source = expand([tmp_path])
        closed.chmod(0o700)
        assert problem == SourceProblem(str(closed), "permission denied")
        assert isinstance(source, Source)

    def test_folder_that_fails_while_listed_is_reported(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "broken").mkdir()
        (tmp_path / "file").write_bytes(b"")
        iterdir = Path.iterdir

        def fail(path: Path) -> Iterator[Path]:
            if path.name == "broken":
                raise PermissionError(13, "Permission denied")
            return iter(list(iterdir(path)))

        monkeypatch.setattr(Path, "iterdir", fail)
        problem, source = expand([tmp_path])
        assert problem == SourceProblem(str(tmp_path / "broken"), "permission denied")
        assert isinstance(source, Source)

    def test_source_knows_when_it_was_modified(self, tmp_path: Path) -> None:
        file = tmp_path / "a"
        file.write_bytes(b"12345")
        os.utime(file, ns=(0, 1_700_000_000_123_456_789))
        (source,) = expand([file])
        assert isinstance(source, Source)
        assert source.mtime == datetime(2023, 11, 14, 22, 13, 20, 123456, UTC)
        assert source.size == 5

    def test_time_that_no_calendar_holds_is_none(self) -> None:
        assert expansion._utc(10**25) is None

    def test_deep_folders_need_no_recursion(self, tmp_path: Path) -> None:
        depth = 900
        folder = tmp_path / "/".join("d" * depth)
        folder.mkdir(parents=True)
        (folder / "f").write_bytes(b"")
        (found,) = expand([tmp_path])
        assert found.name.endswith("/d/f")

    def test_name_is_always_utf8(self, tmp_path: Path) -> None:
        file = Path(os.fsdecode(bytes(tmp_path) + b"/\xff.jsonl"))
        file.write_bytes(b"x\n")
        (found,) = expand([tmp_path])
        assert found.name.encode().endswith(b"/\\xff.jsonl")
        assert isinstance(found, Source)
        assert [line.data for line in found.lines()] == [b"x"]
        assert display_name("é") == "é"


class TestLines:
    def test_places(self) -> None:
        assert lines_of(b"ab\r\n\n \t\r\ncd") == [
            Line(1, 0, b"ab"),
            Line(4, 9, b"cd", terminated=False),
        ]

    def test_only_newline_ends_a_line(self) -> None:
        text = "a\u2028b\u0085c\x0bd\x1ce\rf".encode()
        assert [line.data for line in lines_of(text + b"\n")] == [text]

    def test_one_carriage_return_is_dropped(self) -> None:
        assert [line.data for line in lines_of(b"a\r\r\n")] == [b"a\r"]

    def test_one_byte_order_mark_is_dropped_at_the_start_only(self) -> None:
        bom = b"\xef\xbb\xbf"
        found = lines_of(bom + bom + b"a\n" + bom + b"b\n", chunk_size=1)
        assert found == [Line(1, 3, bom + b"a"), Line(2, 8, bom + b"b")]

    def test_file_of_a_byte_order_mark_alone_is_empty(self) -> None:
        assert lines_of(b"\xef\xbb\xbf") == []

    def test_long_line_is_passed_over(self) -> None:
        found = lines_of(b"aaaaa\n" + b"b" * 50 + b"\nccc\n" + b"d" * 6, limit=5)
        assert found == [
            Line(1, 0, b"aaaaa"),
            Line(2, 6, b"", too_long=True),
            Line(3, 57, b"ccc"),
            Line(4, 61, b"", terminated=False, too_long=True),
        ]

    def test_long_line_inside_one_chunk_is_passed_over(self) -> None:
        found = lines_of(b"bbbbbb\nc\n", chunk_size=100, limit=5)
        assert found == [Line(1, 0, b"", too_long=True), Line(2, 7, b"c")]

    @settings(max_examples=300, deadline=None)
    @given(st.binary(max_size=60).map(lambda b: b.replace(b"a", b"\n")), st.integers(1, 70))
    def test_same_as_splitting_the_whole(self, data: bytes, chunk_size: int) -> None:
        found = lines_of(data, chunk_size)
        offset = 0
        expected = []
        for number, piece in enumerate(data.split(b"\n"), start=1):
            skip = 3 if number == 1 and piece.startswith(b"\xef\xbb\xbf") else 0
            text = piece[skip:]
            text = text[:-1] if text.endswith(b"\r") else text
            if text.strip(b" \t\r"):
                terminated = offset + len(piece) < len(data)
                expected.append(Line(number, offset + skip, text, terminated))
            offset += len(piece) + 1
        assert found == expected
        for line in found:
            assert data[line.byte_offset :].startswith(line.data)


class TestCompression:
    @compressed
    def test_is_told_by_content(self, kind: str, tmp_path: Path) -> None:
        file = tmp_path / "plain.jsonl"
        file.write_bytes(COMPRESSORS[kind](b"one\ntwo\n"))
        assert file_lines(file) == [Line(1, 0, b"one"), Line(2, 4, b"two")]

    def test_name_means_nothing(self, tmp_path: Path) -> None:
        file = tmp_path / "plain.jsonl.gz"
        file.write_bytes(b"one\n")
        assert file_lines(file) == [Line(1, 0, b"one")]

    @compressed
    @pytest.mark.parametrize("step", [1, 3, 1 << 20])
    def test_many_members_are_one_stream(self, kind: str, step: int) -> None:
        members = [b"on", b"", b"e\ntw", b"o\n" * 300]
        data = b"".join(map(COMPRESSORS[kind], members))
        assert b"".join(read_chunks(Trickle(data, step))) == b"".join(members)

    @compressed
    @pytest.mark.parametrize("step", [1009, 1 << 20])
    def test_truncated_archive_gives_its_lines_and_an_error(self, kind: str, step: int) -> None:
        plain = incompressible_lines(1000)
        data = COMPRESSORS[kind](plain)
        chunks = []
        with pytest.raises(DamagedArchiveError, match=f"the {kind} archive is cut short"):  # noqa: PT012  the chunks before the error count
            for chunk in read_chunks(Trickle(data[: len(data) * 3 // 4], step)):
                chunks.append(chunk)  # noqa: PERF402  the list must survive the error
        found = b"".join(chunks)
        assert plain.startswith(found)
        assert len(found) > len(plain) // 4

    @compressed
    def test_every_cut_is_noticed(self, kind: str) -> None:
        data = COMPRESSORS[kind](b"one\ntwo\n")
        # Shorter pieces do not hold the magic, and so are no archives.
        for length in range(10, len(data)):
            with pytest.raises(DamagedArchiveError):
                list(read_chunks(io.BytesIO(data[:length])))

    @compressed
    def test_cut_in_a_later_member_is_noticed(self, kind: str) -> None:
        one = COMPRESSORS[kind](b"one\n")
        for length in range(1, len(one)):
            with pytest.raises(DamagedArchiveError, match="cut short"):
                list(read_chunks(io.BytesIO(one + one[:length])))

    @compressed
    def test_corruption_is_noticed(self, kind: str) -> None:
        data = bytearray(COMPRESSORS[kind](incompressible_lines(50)))
        data[len(data) // 2 : len(data) // 2 + 64] = bytes(64)
        data[-20:] = bytes(20)
        with pytest.raises(DamagedArchiveError):
            list(read_chunks(io.BytesIO(bytes(data))))

    @compressed
    def test_what_follows_an_archive_is_noticed(self, kind: str) -> None:
        data = COMPRESSORS[kind](b"one\n") + b'{"not": "compressed"}\n'
        with pytest.raises(DamagedArchiveError, match="something else follows"):
            list(read_chunks(io.BytesIO(data)))

    @pytest.mark.parametrize("kind", ["gzip", "xz"])
    def test_padding_is_allowed(self, kind: str) -> None:
        one = COMPRESSORS[kind](b"one\n")
        data = one + bytes(512) + one + bytes(512)
        assert b"".join(read_chunks(Trickle(data, 100))) == b"one\none\n"

    def test_skippable_zstd_frames_are_skipped(self) -> None:
        skippable = b"\x52\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"hello"
        data = skippable + zstd.compress(b"one\n") + skippable + zstd.compress(b"two\n")
        assert b"".join(read_chunks(io.BytesIO(data))) == b"one\ntwo\n"

    def test_zip_is_named(self) -> None:
        with pytest.raises(DamagedArchiveError, match="zip archives are not supported"):
            list(read_chunks(io.BytesIO(b"PK\x03\x04" + bytes(50))))

    @compressed
    def test_bomb_comes_in_bounded_chunks(self, kind: str) -> None:
        data = COMPRESSORS[kind](bytes(16 << 20))
        tracemalloc.start()
        try:
            total = sum(map(len, read_chunks(io.BytesIO(data))))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert total == 16 << 20
        assert peak < 12 << 20
        assert all(len(c) <= decompress.CHUNK_BYTES for c in read_chunks(io.BytesIO(data)))

    def test_line_after_which_an_archive_ends_is_named(self, tmp_path: Path) -> None:
        file = tmp_path / "a"
        data = gzip.compress(b"one\ntwo\n" + incompressible_lines(1)[:-1])
        file.write_bytes(data[:-8])
        lines = Source("a", file).lines()
        assert [next(lines).data, next(lines).data] == [b"one", b"two"]
        with pytest.raises(SourceReadError) as caught:
            next(lines)
        assert caught.value.message == "the gzip archive is cut short after line 2"
        assert (caught.value.line, caught.value.byte_offset) == (3, 8)

    def test_archive_without_a_line_has_no_line_to_name(self, tmp_path: Path) -> None:
        file = tmp_path / "a"
        file.write_bytes(gzip.compress(b"")[:-2])
        with pytest.raises(SourceReadError, match=r"cut short$"):
            file_lines(file)

    @settings(max_examples=30, deadline=None)
    @given(st.sampled_from(sorted(COMPRESSORS)), st.lists(st.binary(max_size=50), max_size=4))
    def test_any_content_survives(self, kind: str, members: list[bytes]) -> None:
        # Behind a blank: what begins like an archive is refused.
        members = [b"", b" ", *members]
        data = b"".join(map(COMPRESSORS[kind], members))
        assert b"".join(read_chunks(Trickle(data, 5))) == b"".join(members)


class TestReading:
    def test_empty_file_has_no_lines(self, tmp_path: Path) -> None:
        file = tmp_path / "a"
        file.write_bytes(b"")
        assert file_lines(file) == []

    def test_file_that_vanished(self, tmp_path: Path) -> None:
        with pytest.raises(SourceReadError, match=r"^no such file or directory$") as caught:
            file_lines(tmp_path / "gone")
        assert (caught.value.line, caught.value.byte_offset) == (1, 0)

    def test_named_pipe_is_read(self, tmp_path: Path) -> None:
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        data = gzip.compress(b"one\ntwo\n")
        writer = threading.Thread(target=pipe.write_bytes, args=(data,))
        writer.start()
        assert [line.data for line in file_lines(pipe)] == [b"one", b"two"]
        writer.join()

    @pytest.mark.parametrize("data", [b"one\ntwo", gzip.compress(b"one\ntwo", mtime=0)])
    def test_stdin_is_read_as_bytes(self, data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data), encoding="ascii"))
        found = list(Source("<stdin>", None).lines())
        assert found == [Line(1, 0, b"one"), Line(2, 4, b"two", terminated=False)]

    def test_stdin_may_be_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sys.stdin", None)
        with pytest.raises(SourceReadError, match="stdin is closed"):
            list(Source("<stdin>", None).lines())

    def test_line_comes_before_the_pipe_ends(self, tmp_path: Path) -> None:
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        seen = threading.Event()

        def write() -> None:
            with pipe.open("wb", buffering=0) as stream:
                stream.write(b"1\n")
                assert seen.wait(10)
                stream.write(b"a second line\n")

        writer = threading.Thread(target=write)
        writer.start()
        lines = Source("pipe", pipe).lines()
        assert next(lines).data == b"1"
        seen.set()
        assert next(lines).data == b"a second line"
        writer.join()

    def test_memory_does_not_grow_with_the_file(self, tmp_path: Path) -> None:
        file = tmp_path / "a"
        with file.open("wb") as stream:
            for _ in range(100):
                stream.write(b"x" * 500_000 + b"\n")
            stream.write(b"y" * 30_000_000 + b"\n")
        tracemalloc.start()
        try:
            count = sum(1 for _ in Source("a", file).lines(1 << 20))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert count == 101
        assert peak < 8 << 20
