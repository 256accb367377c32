"""The session envelope: from the record's `session` to `model.envelope.Envelope`.

The rules are the ingest specification's, section 2.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from typing import TYPE_CHECKING
from uuid import UUID

import orjson

from tapes_cli.capture.decode import check_nesting, require_exact
from tapes_cli.model.envelope import NIL_ORG, UNKNOWN_HARNESS, Envelope
from tapes_cli.model.reasons import Reason
from tapes_cli.model.records import RejectError

if TYPE_CHECKING:
    from tapes_cli.capture.session_model import SessionModel
    from tapes_cli.model.json import JSON

MEMO_ENTRIES = 256
"""Envelopes remembered: every turn of a session repeats the same one."""

_MEMO_KEY_BYTES = 64 << 10
_LEVELS_ABOVE = 2

# The forms that Go's uuid.Parse takes: plain, as a URN, in braces, or without hyphens.
_HYPHENATED = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_UUID = re.compile(
    rf"(?:urn:uuid:)?{_HYPHENATED}|\{{{_HYPHENATED}\}}|[0-9a-f]{{32}}", re.IGNORECASE | re.ASCII
)


class EnvelopeParser:
    """Validates envelopes, and remembers those seen last. Not safe for threads.

    Args:
        default_org: the org of envelopes that name none; None is the nil UUID.
    """

    def __init__(self, default_org: UUID | None = None) -> None:
        self._default_org = NIL_ORG if default_org is None else default_org
        self._memo: OrderedDict[bytes, Envelope] = OrderedDict()

    def parse(self, session: JSON) -> Envelope | None:
        """Return the envelope, or None for `null`. Equal input may give the same object.

        Raises:
            RejectError: a field is wrong; the pointer leads to it from the record.
            InexactNumberError: the metadata hold a number that may have been rounded.
        """
        if session is None:
            return None
        key = _memo_key(session)
        if key is not None and (known := self._memo.get(key)) is not None:
            self._memo.move_to_end(key)
            return known
        envelope = self._validate(session)
        if key is not None:
            self._memo[key] = envelope
            if len(self._memo) > MEMO_ENTRIES:
                self._memo.popitem(last=False)
        return envelope

    def _validate(self, session: JSON) -> Envelope:
        if not isinstance(session, dict):
            raise RejectError(Reason.SESSION_INVALID, "session is not an object", "/session")
        # Deferred: pydantic takes as long to load as the rest of the program.
        from tapes_cli.capture.session_model import validate_session  # noqa: PLC0415

        fields = validate_session(session)
        check_nesting(fields.harness_metadata, _LEVELS_ABOVE, "/session/harness_metadata")
        require_exact(fields.harness_metadata)
        harness = fields.harness_id or UNKNOWN_HARNESS
        # Where the harness is unknown, the session is derived from the conversation's root.
        session_id = "" if harness == UNKNOWN_HARNESS else fields.harness_session_id or ""
        return Envelope(
            org_id=parse_uuid(fields.org_id) if fields.org_id else self._default_org,
            auth_subject=fields.auth_subject or "",
            harness_id=harness,
            harness_session_id=session_id,
            harness_version=_unless_blank(fields.harness_version),
            cwd=_unless_blank(fields.cwd),
            name=_unless_blank(fields.name),
            parent=_parent(fields, harness, session_id),
            harness_metadata=fields.harness_metadata,
        )


def parse_uuid(text: str) -> UUID:
    """Return the UUID that `session.org_id` writes.

    Raises:
        RejectError: it is none.
    """
    if not _UUID.fullmatch(text):
        raise RejectError(Reason.ORG_ID_INVALID, "org_id is not a UUID", "/session/org_id")
    return UUID(text.lower())


def _parent(fields: SessionModel, harness: str, session_id: str) -> tuple[str, str] | None:
    parent_id = fields.parent_harness_session_id
    if parent_id is None:
        if fields.parent_harness_id:
            raise RejectError(
                Reason.PARENT_HARNESS_ALONE,
                "parent_harness_id is given without parent_harness_session_id",
                "/session/parent_harness_id",
            )
        return None
    parent = (fields.parent_harness_id or harness, parent_id)
    if parent == (harness, session_id):
        raise RejectError(
            Reason.PARENT_SELF,
            "parent_harness_session_id is the session itself",
            "/session/parent_harness_session_id",
        )
    return parent


def _unless_blank(text: str | None) -> str:
    return text if text and not text.isspace() else ""


def _memo_key(session: JSON) -> bytes | None:
    """Return what tells envelopes apart, in type and order too, or None where that is costly."""
    try:
        key = orjson.dumps(session)
    except orjson.JSONEncodeError:
        # Lone surrogates, integers beyond 64 bits, or deep nesting: rare, so not remembered.
        return None
    return key if len(key) <= _MEMO_KEY_BYTES else None
