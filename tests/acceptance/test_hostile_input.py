"""Input that is made to do harm: it costs little, is told in a sentence, and the rest is read."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import zlib
from base64 import b64encode
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from tapes_cli.capture.decode import MAX_NESTING
from tests.fuzz.captures import CAPTURES
from tests.support.captures import line, record
from tests.support.command import COMMAND, Result, environment, tapes
from tests.support.exchanges import exchange, wire_files

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# A small process in between: a child's peak begins with what its parent has in memory.
_MEASURE = """
import resource, subprocess, sys
done = subprocess.run(sys.argv[2:])
with open(sys.argv[1], "w") as file:
    file.write(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))
sys.exit(done.returncode)
"""
_UNIT = 1 if sys.platform == "darwin" else 1 << 10
MIB = 1 << 20
LONG = 200_000_000
LONGEST_LINE = 256
"""The limit of lines, in MiB."""

GOOD, BETTER = line(record("good")).encode(), line(record("better")).encode()

linux = pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")


def unmeasured() -> dict[str, str]:
    """Return an environment without coverage, which takes memory and time of its own."""
    return {k: v for k, v in environment().items() if "COVERAGE" not in k}


def measured(*arguments: str | Path) -> tuple[Result, float]:
    """Run a command; return what it said, and how much memory it took at most, in MiB."""
    with tempfile.NamedTemporaryFile("r") as peak:
        done = subprocess.run(
            [sys.executable, "-ISc", _MEASURE, peak.name, COMMAND, *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=unmeasured(),
            timeout=100,
            check=False,
        )
        most = int(peak.read()) * _UNIT / MIB
    return Result(done.returncode, done.stdout.decode(), done.stderr.decode()), most


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A folder that does not outlive the test: what is in it is large, or hard to get rid of."""
    name = tempfile.mkdtemp()
    yield Path(name)
    subprocess.run(["rm", "-rf", name], check=True)


class TestLongLines:
    def test_one_that_never_ends_costs_a_few_times_its_length(self, scratch: Path) -> None:
        file = scratch / "endless.jsonl"
        with file.open("wb") as stream:
            stream.write(GOOD + b'{"provider": "')
            stream.write(b"x" * (LONG // 2))
            stream.write(b"\n" + BETTER)
        done, peak = measured("validate", file)
        assert done.status == 3
        assert f"{file}:2: the line is not valid JSON at column 14: Unterminated string" in done.err
        assert "3 read = 2 stored + 0 duplicate + 1 rejected" in done.out
        assert peak < 6 * LONG / 2 / MIB

    def test_one_beyond_the_limit_is_not_held(self, scratch: Path) -> None:
        file = scratch / "long.jsonl"
        with file.open("wb") as stream:
            stream.write(GOOD)
            stream.truncate(300 * MIB)
            stream.seek(300 * MIB)
            stream.write(b"\n" + BETTER)
        done, peak = measured("validate", file)
        assert done.status == 3
        assert f"{file}:2: the line is longer than 268,435,456 bytes [line_too_long]" in done.err
        assert "3 read = 2 stored + 0 duplicate + 1 rejected" in done.out
        assert peak < LONGEST_LINE + 100

    def test_a_text_that_fills_one_is_sound(self, scratch: Path) -> None:
        done, peak = measured("validate", with_text_of(LONG, scratch))
        assert done.status == 0
        assert "3 read = 3 stored" in done.out
        assert peak < 6 * LONG / MIB

    def test_a_text_that_fills_one_is_stored(self, database: str, scratch: Path) -> None:
        length = LONG // 16
        arguments = "import", "--dsn", database, "--workers", "1", with_text_of(length, scratch)
        done, peak = measured(*arguments)
        assert done.status == 0
        with psycopg.connect(database) as conn:
            found = conn.execute("SELECT max(length(content->0->>'text')) FROM nodes").fetchone()
        assert found == (length,)
        assert peak < 100 + 8 * length / MIB


def with_text_of(length: int, folder: Path) -> Path:
    """Write a file of three records, the second with a text so long."""
    file = folder / "text.jsonl"
    before, after = line(record("long", "@@")).encode().split(b"@@")
    with file.open("wb") as stream:
        stream.write(GOOD + before)
        stream.write(b"x" * length)
        stream.write(after + BETTER)
    return file


def test_an_object_over_millions_of_lines_takes_little(scratch: Path) -> None:
    file = scratch / "lines.json"
    file.write_bytes(b'{"a": [\n' + b"1,\n" * 300_000)
    done, peak = measured("validate", file)
    assert done.status == 3
    assert "none of the first 10,000 lines is of a supported capture format" in done.err
    assert peak < 80


DEEP = 100_000
DEEPEST = {
    "lists": "[" * DEEP + "]" * DEEP,
    "objects": '{"a":' * DEEP + "1" + "}" * DEEP,
    "never closed": "[" * DEEP,
}


def deep(value: Any, inside: str) -> str:
    """Return a line in which something stands in the place of "@@"."""
    return line(value).replace('"@@"', inside)


def calling(tool_input: Any) -> dict[str, Any]:
    """Return a request in which a tool is called."""
    call = {"type": "tool_use", "id": "1", "name": "n", "input": tool_input}
    return {"model": "m", "messages": [{"role": "user", "content": [call]}]}


NESTED: dict[str, Any] = {
    "the line": "@@",
    "an unknown field": record(unknown="@@"),
    "a message": record(request={"model": "m", "messages": ["@@"]}),
    "content": record(request={"model": "m", "messages": [{"role": "user", "content": "@@"}]}),
    "tool input": record(request=calling({"k": "@@"})),
    "metadata": record(session={"harness_id": "c", "harness_metadata": {"k": "@@"}}),
    "the response": record(response={"message": {"role": "a", "content": "@@"}}),
    "what was rejected": {"type": "reject", "code": "x", "record": "@@"},
    "a batch": {"turns": ["@@"]},
}


class TestNesting:
    def test_it_is_rejected_wherever_it_stands(self, database: str, tmp_path: Path) -> None:
        capture = tmp_path / "deep.jsonl"
        lines = [
            text
            for shape, inside in DEEPEST.items()
            for place, value in NESTED.items()
            for text in (deep(value, inside), line(record(f"{place} {shape}")))
        ]
        capture.write_text("".join(lines))
        done = tapes("import", "--dsn", database, "-o", "jsonl", capture)
        rejects = [r for r in done.records if r["type"] == "reject"]
        assert done.status == 3
        assert [r["line"] for r in rejects] == list(range(1, len(lines), 2))
        assert {r["code"] for r in rejects} == {"nesting_too_deep"}
        assert {r["message"] for r in rejects} == {"the record is nested more than 900 levels"}
        assert done.summary["records"]["stored"] == len(lines) // 2

    def test_it_is_rejected_in_every_format(self, tmp_path: Path) -> None:
        bad = [*(f"a.{name}" for name in CAPTURES)]
        for name, files in CAPTURES.items():
            for folder, write in ((f"a.{name}", damaged), (f"b.{name}", bytes)):
                (tmp_path / folder).mkdir()
                for file, data in files.items():
                    (tmp_path / folder / file).write_bytes(write(data))
        done = tapes("validate", "-o", "jsonl", tmp_path)
        rejected, sound = Counter[str](), Counter[str]()
        for each in done.records[:-1]:
            folder = str(Path(each["source"]).relative_to(tmp_path)).split("/")[0]
            sound[folder] += each["type"] == "turn"
            rejected[folder] += each.get("code") == "nesting_too_deep"
        assert [name for name in bad if not rejected[name]] == []
        # The others of the file are read, unless the file is one document.
        for name in CAPTURES.keys() - {"har", "wire-recording"}:
            assert sound[f"a.{name}"] == sound[f"b.{name}"] > 0

    def test_as_deep_as_may_be_is_stored_and_shown(self, database: str) -> None:
        levels = MAX_NESTING - 7
        value = deep(record(request=calling({"k": "@@"})), "[" * levels + "]" * levels)
        done = tapes("import", "--dsn", database, stdin=value)
        assert done.status == 0
        for form in ("text", "jsonl"):
            shown = tapes("sessions", "show", "s1", "--full", "--dsn", database, "-o", form)
            assert shown.status == 0
            assert "[" * levels in shown.out
        deeper = value.replace("[[", "[[[").replace("]]", "]]]")
        assert tapes("import", "--dsn", database, stdin=deeper).status == 3


def damaged(data: bytes) -> bytes:
    """Return a capture with its last line once more, and nested deeply."""
    last = data.rstrip().rpartition(b"\n")[2]
    again = b'{"zz":' + DEEPEST["lists"].encode() + b"," + last.lstrip()[1:]
    return again if data.rstrip() == last else data + again + b"\n"


def repeated(compress: Callable[[bytes], bytes], mebibytes: int) -> bytes:
    """Return so many zero bytes, compressed in members one behind the other."""
    return compress(b"\0" * (32 * MIB)) * (mebibytes // 32)


COMPRESSORS: dict[str, tuple[Callable[[bytes], bytes], int]] = {
    "gzip": (lambda data: gzip.compress(data, 1), 2048),
    "zstd": (zstd.compress, 2048),
    # Slower to unpack.
    "bz2": (bz2.compress, 288),
    "xz": (lambda data: lzma.compress(data, preset=0), 288),
}


class TestBombs:
    @pytest.mark.parametrize("kind", COMPRESSORS)
    def test_an_archive_of_zeros_is_one_line_too_long(self, scratch: Path, kind: str) -> None:
        compress, size = COMPRESSORS[kind]
        file = scratch / "bomb"
        file.write_bytes(compress(GOOD) + repeated(compress, size) + compress(b"\n" + BETTER))
        done, peak = measured("validate", file)
        assert done.status == 3
        assert f"{file}:2: the line is longer than 268,435,456 bytes [line_too_long]" in done.err
        assert "3 read = 2 stored + 0 duplicate + 1 rejected" in done.out
        assert peak < LONGEST_LINE + 100

    def test_an_archive_in_an_archive_is_not_unpacked(self, tmp_path: Path) -> None:
        for kind, (compress, _) in COMPRESSORS.items():
            for number, inner in enumerate((gzip.compress(GOOD), compress(GOOD * 100))):
                (tmp_path / f"{kind}{number}").write_bytes(compress(inner))
        done = tapes("validate", tmp_path)
        assert done.status == 3
        for kind in COMPRESSORS:
            message = f"the {kind} archive holds another archive, which is not unpacked"
            for number in (0, 1):
                assert f"/{kind}{number}:1: {message} [source_unreadable]\n" in done.err

    def test_a_header_that_asks_for_gigabytes_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "zstd").write_bytes(HUGE_ZSTD)
        (tmp_path / "xz").write_bytes(huge_xz())
        done, peak = measured("validate", tmp_path)
        assert done.status == 3
        for kind in ("zstd", "xz"):
            message = f"the {kind} archive takes too much memory to unpack"
            assert f"/{kind}:1: {message} [source_unreadable]\n" in done.err
        assert peak < 100

    def test_a_body_that_grows_to_gigabytes_is_refused(self, scratch: Path) -> None:
        bomb = repeated(COMPRESSORS["gzip"][0], 2048)
        twice = gzip.compress(repeated(gzip.compress, 2048))
        bodies = ((bomb, "gzip"), (twice, "gzip, gzip"), (zlib.compress(bomb), "gzip, deflate"))
        for number, (body, coding) in enumerate(bodies):
            raw = record(raw_response=b64encode(body).decode(), raw_response_encoding=coding)
            del raw["response"]
            (scratch / f"{number}.jsonl").write_bytes(line(raw).encode() + GOOD)
        for name in ("request", "response"):
            (scratch / name).mkdir()
            for file, data in wire_files(exchange(), "gzip", "gzip").items():
                (scratch / name / file).write_bytes(data)
        (scratch / "response" / "response.sse").write_bytes(bomb)
        request = json.loads((scratch / "request" / "request.json").read_bytes())
        request["body_b64"] = b64encode(bomb).decode()
        (scratch / "request" / "request.json").write_text(json.dumps(request))
        done, peak = measured("validate", "-o", "jsonl", scratch)
        rejects = [r for r in done.records if r["type"] == "reject"]
        assert [r["code"] for r in rejects] == ["body_too_large"] * 5
        assert {r["message"] for r in rejects} == {"the body is larger than 48 MiB"}
        assert done.summary["records"]["stored"] == len(bodies)
        assert peak < 300


# A frame with a window of 2^41 bytes.
HUGE_ZSTD = b"\x28\xb5\x2f\xfd\x00\xf8\x01\x00\x00"


def huge_xz() -> bytes:
    """Return an archive whose header wants a dictionary of four gigabytes."""
    data = bytearray(lzma.compress(GOOD, preset=0))
    header = data[12 : 12 + 4 * (data[12] + 1)]
    # The filter LZMA2, the size of its properties, and the size of the dictionary.
    header[header.index(b"\x21\x01") + 2] = 40
    header[-4:] = zlib.crc32(header[:-4]).to_bytes(4, "little")
    data[12 : 12 + len(header)] = header
    return bytes(data)


class TestPaths:
    def test_a_folder_full_of_traps(self, scratch: Path) -> None:
        """Neither waited for, nor gone through in circles, nor left through a link upwards."""
        inner = scratch / "inner"
        inner.mkdir()
        (inner / "a.jsonl").write_bytes(GOOD)
        links = {"loop": ".", "up": "..", "out": "/", "zero": "/dev/zero", "tty": "/dev/tty"}
        for name, target in {**links, "self": "self", "gone": "nowhere"}.items():
            (inner / name).symlink_to(target)
        os.mkfifo(inner / "pipe")
        (inner / "link-to-pipe").symlink_to("pipe")
        # A wire recording is found by its names.
        (inner / "wire").mkdir()
        for name in ("request.json", "meta.json"):
            os.mkfifo(inner / "wire" / name)
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(inner / "socket"))
            for argument in (inner, scratch, f"{inner}/**/*"):
                done = tapes("validate", "-o", "jsonl", argument)
                *records, summary = done.records
                rejects = {
                    Path(r["source"]).name: r["message"] for r in records if r["type"] == "reject"
                }
                assert done.status == 3
                assert summary["records"]["stored"] == 1
                assert rejects == {
                    "self": "too many levels of symbolic links",
                    "gone": "no such file or directory",
                    "wire": "request.json is no regular file",
                }

    def test_links_that_double_with_every_level_end(self, scratch: Path) -> None:
        (scratch / "a.jsonl").write_bytes(GOOD)
        for name in ("one", "two", "three"):
            (scratch / name).symlink_to(".")
        for argument in (scratch, f"{scratch}/**/*.jsonl"):
            done = tapes("validate", argument)
            assert "1 read = 1 stored" in done.out

    def test_a_folder_deeper_than_a_path_may_be(self, scratch: Path) -> None:
        folder = os.open(scratch, os.O_RDONLY)
        for level in range(2500):
            if level == 2000:
                write_at(folder, "a.jsonl")
            os.mkdir("d", dir_fd=folder)
            folder, above = os.open("d", os.O_RDONLY, dir_fd=folder), folder
            os.close(above)
        write_at(folder, "b.jsonl")
        os.close(folder)
        done = tapes("validate", "-o", "jsonl", scratch)
        *records, summary = done.records
        assert summary["records"]["stored"] == 1
        assert [r["message"] for r in records if r["type"] == "reject"] == ["file name too long"]
        assert tapes("validate", f"{scratch}/**/*.jsonl").out.startswith("1 sound turn")

    def test_thousands_of_files_with_few_file_handles(self, scratch: Path) -> None:
        for number in range(5000):
            (scratch / f"{number}.jsonl").write_bytes(GOOD)
        script = 'ulimit -n 50; exec "$0" validate -q -o jsonl "$1"'
        done = subprocess.run(
            ["sh", "-c", script, COMMAND, scratch],
            env=unmeasured(),
            capture_output=True,
            check=False,
            timeout=60,
        )
        summary = Result(done.returncode, done.stdout.decode(), done.stderr.decode()).summary
        assert done.returncode == 0
        assert summary["records"]["stored"] == 5000

    def test_nothing_at_all_is_no_capture(self) -> None:
        assert tapes("validate", "/dev/null").out.startswith("0 sound turns")

    @pytest.mark.parametrize("command", ["validate", "import"])
    def test_a_pipe_that_nobody_writes_to_can_be_left(
        self, database: str, scratch: Path, command: str
    ) -> None:
        os.mkfifo(scratch / "pipe")
        dsn = ("--dsn", database) if command == "import" else ()
        process = start(command, *dsn, str(scratch / "pipe"))
        time.sleep(1)
        assert process.poll() is None
        assert interrupted(process) == 130

    @linux
    @pytest.mark.parametrize("device", ["/dev/zero", "/dev/full"])
    def test_a_line_without_end_is_not_held_and_can_be_left(self, device: str) -> None:
        process = start("validate", device)
        about = Path(f"/proc/{process.pid}")
        wait_for(lambda: number_in(about / "io", "rchar") > 400 * MIB)
        peak = number_in(about / "status", "VmHWM") / 1024
        assert interrupted(process) == 130
        assert peak < LONGEST_LINE + 100


def write_at(folder: int, name: str) -> None:
    """Write a good capture to a file in a folder that is open."""
    with os.fdopen(os.open(name, os.O_WRONLY | os.O_CREAT, dir_fd=folder), "wb") as stream:
        stream.write(GOOD)


def start(*arguments: str) -> subprocess.Popen[bytes]:
    """Start a command that will get a signal."""
    return subprocess.Popen(
        [COMMAND, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=unmeasured(),
    )


def interrupted(process: subprocess.Popen[bytes]) -> int:
    """Interrupt a command; return the status with which it ends, soon."""
    process.send_signal(signal.SIGINT)
    try:
        _, err = process.communicate(timeout=10)
    finally:
        process.kill()
    assert b"Traceback" not in err
    return process.returncode


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def number_in(file: Path, name: str) -> int:
    """Return a number that the system tells of a process, in the unit that it uses there."""
    found = re.search(rf"^{name}:\s+(\d+)", file.read_text(), re.MULTILINE)
    assert found
    return int(found[1])


CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""What acts on a terminal: control characters but the line feed, and those of direction."""

NAMES = [
    b"line\nfeed",
    b"escape\x1b[2J\x1b]0;owned\x07",
    b"direction\xe2\x80\xae\xd8\x9c",
    b"control\xc2\x9b2J\x7f\r\t",
    b"no utf-8 \xff\x9b\xed\xa0\x80",
    b"-dash",
    b"--help",
    b"100%s%n%(x)s{0}",
    b"'quote\" `$(id)`;&|",
    b"brackets[a-z]*?[!x]",
    b"~home#hash\\back",
    b"[red]markup[red]",
    b"x" * 255,
    b" ",
]


class TestNames:
    @pytest.fixture
    def names(self, tmp_path: Path) -> list[str]:
        """Files with odd names, each with a turn and something that is none."""
        for number, name in enumerate(NAMES):
            text = line(record(f"question {number}")) + "bad\n"
            (tmp_path / os.fsdecode(name)).write_text(text)
        return sorted(map(os.fsdecode, NAMES))

    @pytest.mark.parametrize("arguments", [["."], ["--"], ["./*", "./[~]*"]])
    def test_each_is_shown_safely_on_a_line(
        self, tmp_path: Path, names: list[str], arguments: list[str]
    ) -> None:
        given = arguments if arguments != ["--"] else ["--", *names]
        told = tapes("validate", *given, cwd=tmp_path)
        assert told.status == 3
        assert CONTROL.search(told.out + told.err) is None
        lines = told.err.splitlines()
        assert len(lines) == 2 * len(NAMES)
        for ending in (": turn-record, 1 sound turn, 1 rejected", " [not_json]"):
            assert sum(text.endswith(ending) for text in lines) == len(NAMES)

    def test_each_is_told_as_json(self, tmp_path: Path, names: list[str]) -> None:
        records = tapes("validate", "-o", "jsonl", "--", *names, cwd=tmp_path).records
        sources = {Path(r["source"]).name for r in records[:-1]}
        assert sources == {os.fsencode(name).decode("utf-8", "backslashreplace") for name in names}

    def test_their_rejects_are_imported_again(
        self, database: str, tmp_path: Path, scratch: Path, names: list[str]
    ) -> None:
        rejects = scratch / "rejects.jsonl"
        dsn = "--dsn", database
        done = tapes("import", "-v", *dsn, "--rejects", rejects, "--workers", "2", tmp_path)
        assert done.status == 3
        assert CONTROL.search(done.out + done.err) is None
        assert len(re.findall("^Stored ", done.err, re.MULTILINE)) == len(names)
        kept = rejects.read_text()
        rejects.write_text(kept.replace('"record_text":"bad"', f'"record":{line(record())[:-1]}'))
        again = tapes("import", *dsn, "-o", "jsonl", rejects)
        assert again.summary["records"]["stored"] == 1
        assert again.summary["records"]["duplicate"] == len(names) - 1

    def test_one_that_leads_nowhere(self, tmp_path: Path) -> None:
        for name in ("gone\x1b[2J\u202e\udcff", "gone\x1b*"):
            done = tapes("validate", name, cwd=tmp_path)
            assert done.status in {2, 3}
            assert CONTROL.search(done.out + done.err) is None


HOSTILE = (
    "\x1b[2J\x1b]0;owned\x07\x9b1m\x00\r\b\x7f\x85\t"
    "\u202e\u2066\u061c\u200f\ud800\u2028\nRejected [red]x"
)
SQL = (
    "'); DROP TABLE nodes; --",
    '"; DROP TABLE sessions; --',
    "$1 $$ %s %(x)s %% {} \\",
    "\\.",
    "\\N\t\\x00\n\\.\n",
    "' OR '1'='1",
    "E'\\047' \u02bc \uff07 /* */ ;",
)


def filled(text: str) -> dict[str, Any]:
    """Return a turn record that has the text wherever there is room for any."""
    unknown = {text: text, "type": f"x{text}", "y": [{text: [text]}]}
    call = {"type": "tool_use", "id": text, "name": text, "input": {text: {text: [text]}}}
    answer = {
        "type": "tool_use",
        "tool_use_id": text,
        "tool_name": text,
        "tool_input": {text: text},
    }
    result = {
        "type": "tool_result",
        "tool_use_id": text,
        "content": [{"type": "text", "text": text}],
    }
    return {
        "provider": "anthropic",
        "agent_name": text,
        "request": {
            "model": text,
            "system": text,
            "metadata": {text: text},
            "messages": [
                {"role": "user", "content": text},
                {"role": "assistant", "content": [{"type": "thinking", "thinking": text}, call]},
                {"role": text, "content": [result, unknown, {"type": "text", "text": text}]},
            ],
        },
        "response": {
            "model": text,
            "message": {"role": text, "content": [{"type": "text", "text": text}, answer, unknown]},
            "stop_reason": text,
            "usage": {"prompt_tokens": 1, text: text},
            "extra": {text: text},
        },
        "session": {
            "auth_subject": text,
            "harness_id": text,
            "harness_session_id": text,
            "harness_version": text,
            "cwd": text,
            "name": text,
            "parent_harness_session_id": f"{text}, the parent",
            "harness_metadata": {text: {text: [text]}},
            text: text,
        },
        "meta": {"captured_at": "2026-03-02T09:00:00Z", "request_id": text, text: text},
        text: text,
    }


def places_in(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield where each value inside a value stands: what holds it, and its key there."""
    keys = list(value) if isinstance(value, dict) else range(len(value))
    for key in keys:
        yield value, key
        if isinstance(value[key], dict | list):
            yield from places_in(value[key])


def poisoned(value: Any, text: str) -> Iterator[Any]:
    """Yield the value with the text in the place of each value, and of each key, in turn."""
    for number, (holder, _) in enumerate(places_in(value)):
        for as_key in (False, True) if isinstance(holder, dict) else (False,):
            copy = json.loads(json.dumps(value))
            place, name = list(places_in(copy))[number]
            place[text if as_key else name] = place.pop(name) if as_key else text
            yield copy


class TestTerminal:
    def test_nothing_that_is_stored_acts_on_it(self, database: str) -> None:
        done = tapes("import", "--dsn", database, "-v", stdin=line(filled(HOSTILE)))
        assert done.status == 0
        (row,) = rows_of(database, "SELECT id FROM sessions WHERE turn_count = 1")
        ids = str(row[0]), HOSTILE.replace("\0", "\ufffd").replace("\ud800", "\ufffd")
        by_id, by_name = (
            tapes("sessions", "show", name, "--full", "--dsn", database) for name in ids
        )
        assert by_id.out == by_name.out
        for told in (done, by_id, tapes("sessions", "list", "--dsn", database)):
            assert told.status == 0
            assert CONTROL.search(told.out + told.err) is None
            # What is said of a session at the margin is ours.
            assert re.search("^Rejected", told.out + told.err, re.MULTILINE) is None
        assert tapes("sessions", "show", ids[0], "--dsn", database, "-o", "jsonl").out.isascii()

    def test_nor_does_what_is_rejected_for_it(self, database: str, tmp_path: Path) -> None:
        turns = tmp_path / "turns.jsonl"
        turns.write_text("".join(map(line, poisoned(filled("x"), HOSTILE))))
        for name in CAPTURES.keys() - {"wire-recording", "har"}:
            for number, files in enumerate(poisoned_captures(name)):
                folder = tmp_path / f"{name}-{number}"
                folder.mkdir()
                for file, data in files.items():
                    (folder / file).write_bytes(data)
        for told in (tapes("validate", tmp_path), tapes("import", "-v", "--dsn", database, turns)):
            assert told.status == 3
            assert told.err.count("Rejected ") >= 10
            assert CONTROL.search(told.out + told.err) is None
            assert "owned" not in told.out + told.err


def poisoned_captures(name: str) -> Iterator[dict[str, bytes]]:
    """Yield captures of a format with the hostile text somewhere in the first or last line."""
    for file, data in CAPTURES[name].items():
        lines = data.splitlines(keepends=True)
        for place in {0, len(lines) - 1}:
            for bad in poisoned(json.loads(lines[place]), HOSTILE):
                text = [*lines[:place], line(bad).encode(), *lines[place + 1 :]]
                yield {**CAPTURES[name], file: b"".join(text)}


def rows_of(dsn: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(dsn) as conn:
        return conn.execute(query.encode()).fetchall()


class TestSql:
    def test_it_is_stored_as_it_came(self, database: str, tmp_path: Path) -> None:
        capture = tmp_path / "sql.jsonl"
        capture.write_text("".join(line(filled(text)) for text in SQL))
        told = tapes("validate", "-o", "jsonl", "--project", SQL[0], capture)
        done = tapes("import", "-v", "--dsn", database, "-o", "jsonl", "--project", SQL[0], capture)
        assert done.status == told.status == 0
        assert done.summary["records"]["stored"] == len(SQL)
        chains = {r["chain"][-1]: text for r, text in zip(told.records, SQL, strict=False)}
        assert [r["chain"] for r in done.records[:-1]] == [r["chain"] for r in told.records[:-1]]
        found = rows_of(
            database,
            "SELECT hash, role, model, agent_name, stop_reason, project, auth_subject, harness_id,"
            " harness_session_id, harness_version, cwd, name, harness_metadata, content"
            " FROM nodes AS n JOIN sessions AS s ON s.id = n.session_id"
            f" WHERE hash IN ({','.join(repr(hash_) for hash_ in chains)})",
        )
        assert len(found) == len(SQL)
        for hash_, role, model, agent, reason, project, *session, metadata, content in found:
            text = chains[hash_]
            assert {role, model, agent, reason, *session} == {text}
            assert project == SQL[0]
            assert metadata == {text: {text: [text]}}
            assert content[0] == {"type": "text", "text": text}
            assert content[1]["tool_input"] == {text: text}
        hashes = {hash_ for r in told.records[:-1] for hash_ in r["chain"]}
        assert {row[0] for row in rows_of(database, "SELECT hash FROM nodes")} == hashes

    def test_it_finds_nothing_but_what_is_called_so(self, database: str) -> None:
        stored = "".join(line(filled(text)) for text in SQL)
        assert tapes("import", "--dsn", database, stdin=stored).status == 0
        (name, *_) = SQL
        listed = tapes("sessions", "list", "--harness", name, "--dsn", database, "-o", "jsonl")
        assert {r["harness_id"] for r in listed.records[:-1]} == {name}
        assert listed.summary["sessions"] == 2
        shown = tapes("sessions", "show", name, "--dsn", database, "-o", "jsonl")
        assert shown.summary["session"]["harness_session_id"] == name
        assert "There is no session" in tapes("sessions", "show", "%", "--dsn", database).err


def test_an_archive_of_blank_lines_is_passed_over(scratch: Path) -> None:
    file = scratch / "blank.gz"
    blank = gzip.compress(b"\n" * (32 * MIB), 1) * 16
    file.write_bytes(gzip.compress(GOOD) + blank + gzip.compress(b"bad\n" + BETTER))
    done, peak = measured("validate", file)
    assert done.status == 3
    assert f"{file}:{2 + 512 * MIB}: the line is not valid JSON" in done.err
    assert "3 read = 2 stored + 0 duplicate + 1 rejected" in done.out
    assert peak < 100
