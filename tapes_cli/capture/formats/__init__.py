"""Capture formats, one module each. A format is found by the keys of a record, never by a name.

Other packages add formats with an entry point of the group `tapes_cli.formats`.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from tapes_cli.capture.formats import (
    batch,
    batch_api,
    claude_code,
    codex,
    har,
    http_log,
    raw_turns,
    refused,
    rejects,
    turn_records,
    wire_recording,
)
from tapes_cli.capture.formats.base import AnyFormat, FolderFormat, RecordFormat, SourceFormat
from tapes_cli.errors import FormatError
from tapes_cli.model.reasons import Reason
from tapes_cli.model.records import RejectError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from importlib.metadata import EntryPoint

    from tapes_cli.model.json import JSONObject

GROUP = "tapes_cli.formats"
"""The entry points that name formats of other packages."""

_BUILT_IN: tuple[AnyFormat, ...] = (
    rejects.FORMAT,
    batch.FORMAT,
    turn_records.FORMAT,
    raw_turns.FORMAT,
    *refused.FORMATS,
    codex.FORMAT,
    claude_code.FORMAT,
    http_log.FORMAT,
    har.FORMAT,
    *batch_api.FORMATS,
    wire_recording.FORMAT,
)
_MALFORMED: tuple[AnyFormat, ...] = (turn_records.MALFORMED, batch.MALFORMED)

_KEYS_SHOWN = 5
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,39}")


@cache
def all_formats() -> tuple[AnyFormat, ...]:
    """Return all formats, in the order in which they are asked; the first that says yes has it.

    Raises:
        FormatError: a package offers a format that cannot be loaded, or has the name of another.
    """
    added = [_loaded(entry) for entry in sorted(entry_points(group=GROUP), key=lambda e: e.name)]
    names = [found.name for found in (*_BUILT_IN, *_MALFORMED)]
    for found in added:
        if found.name in names:
            raise FormatError(
                f"Two capture formats have the name {found.name}.",
                hint="Uninstall one of the packages that add it.",
            )
        names.append(found.name)
    return (*_BUILT_IN, *added, *_MALFORMED)


def added_formats() -> list[str]:
    """Return the formats of other packages, each with the version of its package."""
    entries = sorted(entry_points(group=GROUP), key=lambda entry: entry.name)
    return [f"{e.name}={e.dist.version if e.dist else '?'}" for e in entries]


def supported() -> list[AnyFormat]:
    """Return the formats that can be imported."""
    return [found for found in all_formats() if found not in (*refused.FORMATS, *_MALFORMED)]


def format_named(name: str) -> AnyFormat | None:
    """Return the format of this name that can be imported."""
    return next((found for found in supported() if found.name == name), None)


def detect(record: JSONObject) -> RecordFormat | SourceFormat:
    """Return the format of a record, or of the source that it is the first record of.

    Raises:
        RejectError: with `UNRECOGNISED`, naming the first keys of the record.
    """
    for candidate in all_formats():
        if _says_yes(candidate, record):
            if isinstance(candidate, FolderFormat):
                raise RejectError(
                    Reason.UNRECOGNISED,
                    f"the record is part of a {candidate.title}; name its folder",
                )
            return candidate
    raise _unrecognised(record)


def folder_format(names: Iterable[str]) -> FolderFormat | None:
    """Return the format of a folder that holds files of these names, if it is a capture."""
    held = frozenset(names)
    for candidate in all_formats():
        if isinstance(candidate, FolderFormat) and candidate.files <= held:
            return candidate
    return None


def _says_yes(candidate: AnyFormat, record: JSONObject) -> bool:
    try:
        return candidate.recognises(record)
    except Exception:  # noqa: BLE001  # formats may come from anywhere
        return False


def _loaded(entry: EntryPoint) -> AnyFormat:
    package = entry.dist.name if entry.dist else "a package"
    hint = f"Update or uninstall {package}."
    try:
        loaded = entry.load()
    except Exception as error:
        problem = f"The capture format {entry.name} of {package} cannot be loaded"
        raise FormatError(f"{problem}: {type(error).__name__}.", hint=hint) from error
    if not isinstance(loaded, AnyFormat):
        raise FormatError(f"{entry.value} of {package} is no capture format.", hint=hint)
    return loaded


def _unrecognised(record: JSONObject) -> RejectError:
    if not record:
        return RejectError(Reason.UNRECOGNISED, "the record is empty")
    keys = ", ".join(_shown(key) for key in list(record)[:_KEYS_SHOWN])
    more = ", …" if len(record) > _KEYS_SHOWN else ""
    return RejectError(
        Reason.UNRECOGNISED, f"no known capture format has a record with the keys {keys}{more}"
    )


def _shown(key: str) -> str:
    """Return a key that reads like the name of a field; anything else may be content."""
    return key if _NAME.fullmatch(key) else "…"
