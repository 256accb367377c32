"""Lines of a Claude Code transcript, each for itself: what one says, and whether it is sound.

A message of the model stands on several lines, one for each content block, which share the
message's id. A line names the line that it follows by `parentUuid`; lines of all types stand in
this chain. What a sub-agent says has `isSidechain`, and in later versions an `agentId`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

from tapes_cli.capture.decode import (
    InexactNumberError,
    check_nesting,
    decode,
    decode_exact,
    require_exact,
)
from tapes_cli.model.reasons import Reason
from tapes_cli.model.records import RejectError

if TYPE_CHECKING:
    from tapes_cli.model.json import JSON, JSONObject

SYNTHETIC_MODEL = "<synthetic>"
"""The model of messages that the harness wrote itself."""

# The keys of which every line has one, and the types that have none of them.
_KEYS = frozenset({"sessionId", "uuid", "parentUuid", "leafUuid", "messageId", "isSnapshotUpdate"})
_TYPES_WITHOUT_KEYS = frozenset({"summary", "speculation-accept"})
# Keys that no lines of other formats have.
_OWN_KEYS = frozenset({"leafUuid", "isSnapshotUpdate"})
# Types of lines that may have no key but `sessionId`, which others have as well.
_BOOKKEEPING = frozenset(
    {
        "agent-color",
        "agent-name",
        "agent-setting",
        "ai-title",
        "bridge-session",
        "content-replacement",
        "custom-title",
        "file-history-delta",
        "file-history-snapshot",
        "fork-context-ref",
        "frame-link",
        "last-prompt",
        "marble-origami-commit",
        "marble-origami-snapshot",
        "mode",
        "permission-mode",
        "pr-link",
        "queue-operation",
        "relocated",
        "summary",
        "tag",
        "task-summary",
        "worktree-state",
    }
)
_TITLES = {"custom-title": "customTitle", "ai-title": "aiTitle", "summary": "summary"}

_TEXTS = (
    "sessionId",
    "uuid",
    "parentUuid",
    "agentId",
    "version",
    "cwd",
    "timestamp",
    "requestId",
)
_MESSAGE_TEXTS = ("id", "model", "stop_reason", "stop_sequence")
# Of a list of blocks, in the request that it becomes part of.
_LEVELS_ABOVE = 4
_LONGEST_ID = 64
_VERSION = re.compile(r"(\d{1,9})\.(\d{1,9})\.(\d{1,9})", re.ASCII)
_FIRST_WITHOUT_COUNTS, _LAST_WITHOUT_COUNTS = (2, 1, 12), (2, 1, 49)


def recognises(record: JSONObject) -> bool:
    """Whether a transcript may begin with this record."""
    if "sessionId" in record and ("uuid" in record or "message" in record):
        return True
    kind = _text(record, "type")
    if "sessionId" in record and kind in _BOOKKEEPING:
        return True
    return bool(kind) and not _OWN_KEYS.isdisjoint(record)


@dataclass(frozen=True, slots=True)
class Stem:
    """Where a line belongs. Absent ids are empty.

    Attributes:
        uuid: the line's own id.
        parent: the id of the line that it follows.
        root: whether it follows none.
        session: the id of the session.
        agent: the id of the sub-agent, where the line is of one that has an id.
        side: whether it is a sub-agent's.
    """

    uuid: str
    parent: str
    root: bool
    session: str
    agent: str
    side: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """A line of a model's message.

    Attributes:
        message_id: which message.
        body: what is kept of the line: the fields of its message, and `version`, `cwd`,
            `timestamp` and `requestId`, without any number that may have been rounded.
        synthetic: whether no model has said it.
    """

    message_id: str
    body: JSONObject
    synthetic: bool


@dataclass(frozen=True, slots=True)
class Prompt:
    """A line of what is said to the model: by the user, by tools, or by the harness.

    Attributes:
        content: text or a list of blocks, without any number that may have been rounded.
        sent: whether the model gets to see it.
        ends: whether it shows that the message before it is over. A tool's result does not: tools
            run while the message is still streamed.
        summary: whether it replaces all that was said before.
    """

    content: JSON
    sent: bool
    ends: bool
    summary: bool


@dataclass(frozen=True, slots=True)
class Note:
    """A line of any other type.

    Attributes:
        ends: whether it shows that the message before it is over.
        compacts: whether all that was said before it is about to be replaced by a summary.
    """

    ends: bool
    compacts: bool


@dataclass(frozen=True, slots=True)
class Title:
    """A line that names a session.

    Attributes:
        kind: the type of the line.
        text: the name.
        leaf: the line of the session, where it is named by that.
    """

    kind: str
    text: str
    leaf: str


def record_of(data: bytes) -> JSONObject:
    """Return the object that a line is.

    Raises:
        RejectError: the line is no JSON, no object, or has no key of a transcript.
    """
    record = decode(data)
    if not isinstance(record, dict):
        raise RejectError(Reason.NOT_OBJECT, "the line is not an object")
    if _KEYS.isdisjoint(record) and _text(record, "type") not in _TYPES_WITHOUT_KEYS:
        raise RejectError(
            Reason.UNRECOGNISED, "the line has no key of a Claude Code transcript's lines"
        )
    return record


def stem_of(record: JSONObject) -> Stem:
    """Return where a line belongs; ids that are no text count as absent."""
    side = record.get("isSidechain") is True
    return Stem(
        uuid=known_id(_text(record, "uuid")),
        parent=known_id(_text(record, "parentUuid")),
        root=record.get("parentUuid") is None,
        session=_text(record, "sessionId"),
        agent=_text(record, "agentId") if side else "",
        side=side,
    )


def said_by(record: JSONObject, data: bytes) -> Answer | Prompt | Note | Title:
    """Return what a line says, by its type. Unknown types are notes that prove nothing.

    Args:
        record: the line, decoded.
        data: its bytes, to be decoded anew if a number in it may have been rounded.

    Raises:
        RejectError: the line is a message, but not a sound one.
    """
    kind = record.get("type")
    if kind not in ("assistant", "user"):
        return _title(record) or _note(record)
    try:
        require_exact(record.get("message"))
    except InexactNumberError:
        record = decode_exact(data)
    _check_texts(record, _TEXTS, "")
    if not record.get("sessionId"):
        raise _invalid("sessionId is missing", "/sessionId")
    message = record.get("message")
    if not isinstance(message, dict):
        raise _invalid(_fault("message", message, "an object"), "/message")
    return _answer(record, message) if kind == "assistant" else _prompt(record, message)


def known_id(text: str) -> str:
    """Return what stands for an id in memory: the id, or a digest if it is a long one."""
    if len(text) <= _LONGEST_ID:
        return text
    return sha256(text.encode(errors="surrogatepass")).hexdigest() + "…"


def has_counts(version: JSON) -> bool:
    """Whether usage and stop reason that this version of the harness wrote are to be believed.

    2.1.12 to 2.1.49 wrote what was known when the message began.
    """
    match = _VERSION.match(version) if isinstance(version, str) else None
    if match is None:
        return True
    number = tuple(map(int, match.groups()))
    return not _FIRST_WITHOUT_COUNTS <= number <= _LAST_WITHOUT_COUNTS


def _answer(record: JSONObject, message: JSONObject) -> Answer:
    _check_texts(message, _MESSAGE_TEXTS, "message")
    message_id = _text(message, "id")
    if not message_id:
        raise _invalid("message.id is missing", "/message/id")
    usage = message.get("usage")
    if usage is not None and not isinstance(usage, dict):
        raise _invalid("message.usage is not an object", "/message/usage")
    check_nesting(usage, _LEVELS_ABOVE, "/message/usage")
    content = message.get("content")
    if not isinstance(content, list):
        raise _invalid(_fault("message.content", content, "a list"), "/message/content")
    _check_blocks(content)
    body = {name: message.get(name) for name in (*_MESSAGE_TEXTS, "usage", "content")}
    body |= {name: record.get(name) for name in ("version", "cwd", "timestamp", "requestId")}
    synthetic = message.get("model") == SYNTHETIC_MODEL or record.get("isApiErrorMessage") is True
    return Answer(known_id(message_id), body, synthetic)


def _prompt(record: JSONObject, message: JSONObject) -> Prompt:
    content = message.get("content")
    if not isinstance(content, str):
        if not isinstance(content, list):
            problem = _fault("message.content", content, "text or a list")
            raise _invalid(problem, "/message/content")
        _check_blocks(content)
    summary = record.get("isCompactSummary") is True
    sent = summary or record.get("isVisibleInTranscriptOnly") is not True
    result = isinstance(content, list) and any(is_result(block) for block in content)
    ends = sent and not result and record.get("isMeta") is not True
    return Prompt(content, sent, ends, summary)


def is_result(block: JSONObject) -> bool:
    """Whether a block is what a tool has returned."""
    return block.get("type") == "tool_result"


def results_in(content: JSON) -> set[str]:
    """Return the ids of the calls whose results are among blocks. A text has none."""
    blocks = content if isinstance(content, list) else []
    return {known_id(_text(block, "tool_use_id")) for block in blocks if is_result(block)}


def looks_complete(body: JSONObject, blocks: list[JSONObject], results: set[str]) -> bool:
    """Whether a message is likely to be all there, where no line proves that it is over.

    It gives a stop reason, which its blocks do not belie; or ends in text, or in a call, all calls
    having been answered.

    Args:
        body: that of its last line so far: see `Answer`.
        blocks: the blocks of all its lines so far.
        results: the ids of the calls whose results are in the file.
    """
    calls = [block for block in blocks if block.get("type") == "tool_use"]
    if has_counts(body["version"]) and (stop_reason := body["stop_reason"]):
        return bool(calls) or stop_reason != "tool_use"
    last = blocks[-1].get("type") if blocks else None
    answered = all(known_id(_text(block, "id")) in results for block in calls)
    return last == "text" or (last == "tool_use" and answered)


def _note(record: JSONObject) -> Note:
    kind, subtype = record.get("type"), record.get("subtype")
    if kind == "system":
        compacts = subtype == "compact_boundary"
        return Note(compacts or subtype in ("turn_duration", "stop_hook_summary"), compacts)
    data = record.get("data")
    stopped = kind == "progress" and isinstance(data, dict) and data.get("hookEvent") == "Stop"
    return Note(stopped, compacts=False)


def _title(record: JSONObject) -> Title | None:
    kind = _text(record, "type")
    text = _text(record, _TITLES[kind]) if kind in _TITLES else ""
    return Title(kind, text, known_id(_text(record, "leafUuid"))) if text else None


def _check_texts(record: JSONObject, names: tuple[str, ...], within: str) -> None:
    for name in names:
        value = record.get(name)
        if value is not None and not isinstance(value, str):
            path = f"{within}/{name}".lstrip("/")
            raise _invalid(f"{path.replace('/', '.')} is not text", f"/{path}")


def _check_blocks(content: list[JSON]) -> None:
    for index, block in enumerate(content):
        if not isinstance(block, dict):
            problem = f"message.content[{index}] is not an object"
            raise _invalid(problem, f"/message/content/{index}")
    check_nesting(content, _LEVELS_ABOVE, "/message/content")


def _fault(name: str, value: JSON, kind: str) -> str:
    return f"{name} is missing" if value is None else f"{name} is not {kind}"


def _invalid(problem: str, pointer: str) -> RejectError:
    return RejectError(Reason.LINE_INVALID, problem, pointer)


def _text(record: JSONObject, name: str) -> str:
    value = record.get(name)
    return value if isinstance(value, str) else ""
