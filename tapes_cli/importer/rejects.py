"""The rejects file: every record that was not stored, so that it can be tried again.

One JSON object a line: `source`, `line`, `byte_offset`, `index` in a batch, `code`, `message`,
`pointer`, `format` if one was recognised, and the record's own bytes: as `record` where they are
JSON, else as `record_text`, else as `record_base64`. The file is a capture format of its own:
after a fix it is imported as it is.
"""

from __future__ import annotations

import base64
import errno
import json
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import orjson

from tapes_cli.errors import UsageError
from tapes_cli.importer.outputs import sync_folder

if TYPE_CHECKING:
    from io import FileIO
    from pathlib import Path

    from tapes_cli.model.records import Rejected


def reject_record(rejected: Rejected) -> dict[str, Any]:
    """Return the place and reason of a reject as the machine output has them."""
    location = rejected.location
    record: dict[str, Any] = {
        "type": "reject",
        "source": location.source,
        "line": location.line,
        "byte_offset": location.byte_offset,
        "code": rejected.reason.value,
        "message": rejected.message,
        "pointer": rejected.pointer,
    }
    if location.index is not None:
        record["index"] = location.index
    if location.format:
        record["format"] = location.format
    return record


class RejectsFile:
    """Appends rejects to a file, which is made when the first one comes."""

    def __init__(self, path: Path) -> None:
        """Check that the file can be written, so that it is known before the run.

        Raises:
            UsageError: it cannot.
        """
        self.path = path
        self._file: FileIO | None = None
        writable = os.access(path if path.exists() else path.parent, os.W_OK)
        if path.is_dir() or not writable:
            raise self._unwritable("it is no file that may be written here")

    @property
    def written(self) -> bool:
        """Whether there was anything to write."""
        return self._file is not None

    def is_file(self, path: Path) -> bool:
        """Tell whether this path leads to the rejects file."""
        with suppress(OSError):
            return path.samefile(self.path)
        return False

    def write(self, rejected: Rejected) -> None:
        """Append one reject.

        Raises:
            UsageError: the file cannot be written.
        """
        try:
            if self._file is None:
                self._file = self._open()
            unwritten = memoryview(_line(rejected))
            while unwritten:
                unwritten = unwritten[self._file.write(unwritten) :]
        except OSError as error:
            raise self._unwritable(error.strerror) from error

    def _open(self) -> FileIO:
        # Rejects are captures: nobody else's business.
        file = open(self.path, "ab", buffering=0, opener=_private)  # noqa: SIM115  # see close
        sync_folder(self.path.parent)
        if self.path.is_file() and _is_cut_short(self.path):
            file.write(b"\n")
        return file

    def flush(self) -> None:
        """Bring what was written to the disk.

        Raises:
            UsageError: the disk does not take it.
        """
        if self._file is None:
            return
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            if error.errno == errno.EINVAL:
                return  # a terminal, a pipe: nothing to bring to a disk
            raise self._unwritable(error.strerror) from error

    def close(self) -> None:
        """Flush and close."""
        if self._file is not None:
            with self._file:
                self.flush()

    def _unwritable(self, reason: str | None) -> UsageError:
        return UsageError(
            f"The rejects file {self.path} cannot be written: {reason}.",
            hint="Name a writable file with --rejects; run the import again to go on.",
        )


def _is_cut_short(path: Path) -> bool:
    """Tell whether the last line was not written to its end, as on a full disk."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - 1, 0))
        return file.read() not in {b"", b"\n"}


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _line(rejected: Rejected) -> bytes:
    head = json.dumps(reject_record(rejected), separators=(",", ":")).encode()
    return head[:-1] + b"," + _record_bytes(rejected.raw) + b"}\n"


def _record_bytes(raw: bytes) -> bytes:
    if not raw:
        return b'"record":null'  # too long to keep, or unreadable: only its source has it
    try:
        orjson.loads(raw)
    except orjson.JSONDecodeError:
        pass
    else:
        return b'"record":' + raw.replace(b"\n", b" ")
    try:
        return b'"record_text":' + json.dumps(raw.decode()).encode()
    except UnicodeDecodeError:
        return b'"record_base64":"' + base64.b64encode(raw) + b'"'
