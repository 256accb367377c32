"""Headers of recorded HTTP requests and responses, and the session that they name.

Recorded headers and addresses can hold live tokens. What is kept of them is listed here; nothing
else leaves the reader.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import unquote

from tapes_cli.capture.decode import check_nesting, decode_faithfully
from tapes_cli.model.reasons import Reason
from tapes_cli.model.records import RejectError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tapes_cli.model.json import JSON, JSONObject

_TAPES = "x-tapes-"
_SESSION = {
    "x-tapes-harness-id": "harness_id",
    "x-tapes-harness-session-id": "harness_session_id",
    "x-tapes-harness-version": "harness_version",
    "x-tapes-parent-harness-session-id": "parent_harness_session_id",
    "x-paper-auth-org-id": "org_id",
    "x-paper-auth-subject": "auth_subject",
}
_PERCENT_ENCODED = {"x-tapes-cwd": "cwd", "x-tapes-session-name": "name"}
_METADATA = "x-tapes-harness-metadata"
_AGENT_NAME = "x-tapes-agent-name"
_KEPT = frozenset(
    {*_SESSION, *_PERCENT_ENCODED, _METADATA, _AGENT_NAME, "content-type", "content-encoding"}
)
_PAIR = 2
_LEVELS_ABOVE = 2
# Part of an exchange: its headers, an address with a query or a password, a token itself.
_EXCHANGE = re.compile(
    rb'"(?:headers|cookies|queryString|postData|authorization|x-api-key)"'
    rb'|"url"\s*:\s*"(?:https?:)?//[^"]*[?@]|\bBearer [\w.~+/-]',
    re.IGNORECASE,
)
_ADDRESS = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]*:)?//[^/?#]*")


@dataclass(frozen=True, slots=True)
class Headers:
    """Headers by name, in lower case; of each, the values in the order in which they stand."""

    values: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, value: JSON, pointer: str) -> Headers:
        """Return the headers that a recording holds.

        Args:
            value: an object, whose values are text or lists of it; a list of pairs, or of objects
                with `name` and `value`; or nothing. What is no text is passed over.
            pointer: where they stand in the record.

        Raises:
            RejectError: it is something else.
        """
        if value is not None and not isinstance(value, dict | list):
            raise RejectError(
                Reason.EXCHANGE_INVALID,
                f"{pointer[1:].replace('/', '.')} are neither an object nor a list",
                pointer,
            )
        found: dict[str, list[str]] = {}
        for name, text in _pairs(value or ()):
            if isinstance(name, str) and isinstance(text, str):
                found.setdefault(name.lower(), []).append(text.strip())
        return cls(found)

    def first(self, name: str) -> str:
        """Return the first value of a header, or nothing. `name` is in lower case."""
        values = self.values.get(name)
        return values[0] if values else ""

    def joined(self, name: str) -> str:
        """Return all values of a header, as one list with commas. `name` is in lower case."""
        return ",".join(self.values.get(name, ()))

    def session(self) -> JSONObject | None:
        """Return the session envelope that the headers make, or None if there are no such ones.

        An empty header is as good as an absent one. Metadata that are none are handed on as they
        are, so that they are refused where envelopes are.
        """
        if not any(name.startswith(_TAPES) for name in self.values):
            return None
        session: JSONObject = {name: self.first(header) for header, name in _SESSION.items()}
        for header, name in _PERCENT_ENCODED.items():
            session[name] = unquote(self.first(header))
        session = {name: text for name, text in session.items() if text}
        if encoded := self.first(_METADATA):
            session["harness_metadata"] = _metadata(encoded)
        return session

    def agent_name(self) -> str:
        """Return the agent's name that the headers give, or nothing."""
        return self.first(_AGENT_NAME)


def kept_fields(recorded: JSONObject, *names: str) -> JSONObject:
    """Return what is kept of a recorded request or response, besides its body.

    Its headers without those that can hold secrets, of its address the path, and the fields of
    these names, if they are text or numbers.
    """
    plain = {name: recorded.get(name) for name in names}
    kept: JSONObject = {
        name: value for name, value in plain.items() if isinstance(value, str | int | float)
    }
    if isinstance(url := recorded.get("url"), str):
        before = _ADDRESS.match(url)
        kept["url"] = re.split("[?#]", url[before.end() :] if before else url, maxsplit=1)[0]
    headers = recorded.get("headers")
    if isinstance(headers, dict | list):
        found = Headers.of(headers, "").values.items()
        kept["headers"] = [[n, text] for n, texts in found if n in _KEPT for text in texts]
    elif headers is not None:
        # Something that is refused just as well.
        kept["headers"] = False
    return kept


class UnreadBytes:
    """Tells what is kept of the lines of a source that cannot be read, or not be recognised.

    They may be those of exchanges that were cut short, with headers and addresses that hold live
    tokens: from the first line on that looks like it, nothing is kept.
    """

    def __init__(self) -> None:
        self._of_exchanges = False

    def kept(self, data: bytes) -> bytes:
        """Return the bytes of a line, or nothing."""
        # Text in UTF-16 has a zero byte beside each letter.
        plain = data.replace(b"\0", b"")
        self._of_exchanges = self._of_exchanges or _EXCHANGE.search(plain) is not None
        return b"" if self._of_exchanges else data


def _pairs(value: JSON) -> Iterator[tuple[JSON, JSON]]:
    if isinstance(value, dict):
        for name, texts in value.items():
            for text in texts if isinstance(texts, list) else [texts]:
                yield name, text
        return
    for item in value:
        if isinstance(item, list) and len(item) == _PAIR:
            yield item[0], item[1]
        elif isinstance(item, dict):
            yield item.get("name"), item.get("value")


def _metadata(encoded: str) -> JSON:
    """Return what the header holds: base64 for addresses, without padding, of a JSON object."""
    try:
        value = decode_faithfully(urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)))
        check_nesting(value, _LEVELS_ABOVE, "")
    except (RejectError, ValueError):
        return encoded
    return value
