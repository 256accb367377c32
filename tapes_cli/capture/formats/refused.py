"""Formats that are recognised in order to say what they are; none of them is imported."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from tapes_cli.capture.formats.base import SourceFormat
from tapes_cli.model.reasons import Reason
from tapes_cli.model.records import Rejected

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tapes_cli.capture.formats.base import Capture, Found
    from tapes_cli.model.json import JSONObject


def _is_export(record: JSONObject) -> bool:
    return record.keys() >= {"schema", "traces"}


def _refuse_export(capture: Capture) -> Iterator[Found]:
    message = "the file is a derived export, which holds no requests"
    for line in islice(capture.lines, 1):
        location = capture.at(line.number, line.byte_offset)
        yield Rejected(location, Reason.DERIVED_EXPORT, message, "", line.data)


FORMATS = (
    SourceFormat(
        name="derived-export",
        title="derived export",
        sign="`schema` and `traces`",
        recognises=_is_export,
        read=_refuse_export,
    ),
)
