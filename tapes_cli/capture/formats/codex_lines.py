"""What the records of a Codex rollout say, checked one by one; see `codex` for what becomes of it.

Whatever lacks what the format requires raises `RejectError` with the reason `LINE_INVALID`, and a
pointer into the record. Fields that are null are as good as absent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tapes_cli.capture.decode import check_nesting
from tapes_cli.capture.providers import PROVIDERS
from tapes_cli.capture.providers.reduction import count, usage
from tapes_cli.model.reasons import Reason
from tapes_cli.model.records import RejectError

if TYPE_CHECKING:
    from tapes_cli.model.blocks import ContentBlock
    from tapes_cli.model.json import JSON, JSONObject

OPENAI = PROVIDERS["openai"]
"""The provider of every turn: Codex speaks the Responses API with whatever provider it uses."""

ABORTED = "<turn_aborted>"
"""How the message begins by which Codex tells the model that it was interrupted."""

# What the context depends on.
_CONTEXT = frozenset({"response_item", "compacted", "rollout_reference", "fork_reference"})
_CONTEXT_EVENTS = frozenset({"thread_rolled_back"})

# How messages with the role `user` begin that Codex wrote itself: they begin no turn of the user.
_NOT_ASKED = (
    ABORTED,
    "# AGENTS.md instructions",
    "<INSTRUCTIONS>",
    "<environment_context>",
    "<hook_prompt",
    "<skill>",
    "<subagent_notification>",
    "<user_instructions>",
    "<user_shell_command>",
)
# Where `Provider.request_messages` says that the only item stands.
_ITEM = "request.input.0"
_LEVELS_ABOVE = 3
_COUNTS = {
    "prompt_tokens": "input_tokens",
    "completion_tokens": "output_tokens",
    "total_tokens": "total_tokens",
    "cache_creation_input_tokens": "cache_write_input_tokens",
    "cache_read_input_tokens": "cached_input_tokens",
}


@dataclass(frozen=True, slots=True)
class ReadItem:
    """An item of a request's `input`.

    Attributes:
        raw: the item.
        blocks: its content in the provider-neutral form.
        said: whether the model said it; else it was told to the model.
    """

    raw: JSONObject
    blocks: list[ContentBlock]
    said: bool


@dataclass(frozen=True, slots=True)
class TokenCount:
    """What a session has cost so far, and its last call, as a reduced response has it."""

    total: JSONObject
    usage: JSONObject


def makes_context(record: JSON) -> bool:
    """Tell whether the context depends on a record, be it a sound one or not."""
    if not isinstance(record, dict) or not isinstance(kind := record.get("type"), str):
        return False
    payload = record.get("payload")
    event = payload.get("type") if kind == "event_msg" and isinstance(payload, dict) else None
    return kind in _CONTEXT or (isinstance(event, str) and event in _CONTEXT_EVENTS)


def read_session(payload: JSONObject) -> JSONObject:
    """Return the session envelope that a `session_meta` gives.

    The parent is the session that this one was forked from, else the one whose agent it is.
    Nobody is his own parent. The metadata say nothing that varies within a session.
    """
    session_id = text_at(payload, "id")
    if not session_id:
        raise invalid("payload.id is missing", "/payload/id")
    envelope: JSONObject = {
        "harness_id": "codex",
        "harness_session_id": session_id,
        "harness_metadata": {"source": "codex-rollout", "lossy": True},
    }
    parents = (text_at(payload, "forked_from_id"), text_at(payload, "parent_thread_id"))
    fields = {
        "harness_version": text_at(payload, "cli_version"),
        "cwd": text_at(payload, "cwd"),
        "parent_harness_session_id": next(
            (p for p in (*parents, _parent_in(payload.get("source"))) if p and p != session_id), ""
        ),
    }
    return envelope | {name: text for name, text in fields.items() if text}


def read_start(payload: JSONObject) -> int:
    """Return the `ordinal` of an agent's first own record; those before are its parent's."""
    start = payload.get("subagent_history_start_ordinal")
    return start if type(start) is int else 0


def _parent_in(source: JSON) -> str:
    """Return the thread that `source` says an agent was started by, at whatever depth."""
    level = [source]
    while level := [item for item in level if isinstance(item, dict)]:
        for item in level:
            parent = item.get("parent_thread_id")
            if isinstance(parent, str) and parent:
                return parent
        level = [inner for item in level for inner in item.values()]
    return ""


def read_item(payload: JSONObject) -> ReadItem:
    """Return what a `response_item` holds."""
    if not text_at(payload, "type"):
        raise invalid("payload.type is missing", "/payload/type")
    return _read_item(payload, "/payload")


def read_replacement(payload: JSONObject) -> list[JSON] | None:
    """Return the raw messages that a `compacted` puts in the place of the context, if it does."""
    items = payload.get("replacement_history")
    if items is None:
        return None
    pointer = "/payload/replacement_history"
    if not isinstance(items, list):
        raise invalid("payload.replacement_history is not a list", pointer)
    for index, item in enumerate(items):
        if not isinstance(item, dict):
            place = f"payload.replacement_history[{index}]"
            raise invalid(f"{place} is not an object", f"{pointer}/{index}")
        _read_item(item, f"{pointer}/{index}")
    return OPENAI.request_messages({"input": [item for item in items if was_sent(item)]})


def was_sent(item: JSONObject) -> bool:
    """Tell whether the model gets to see an item: not where Codex notes a state of the files."""
    return item.get("type") != "ghost_snapshot"


def _read_item(item: JSONObject, pointer: str) -> ReadItem:
    check_nesting(item, _LEVELS_ABOVE, pointer)
    place = pointer[1:].replace("/", ".")
    try:
        (raw,) = OPENAI.request_messages({"input": [item]})
        message = OPENAI.parse_message(raw, pointer)
    except RejectError as error:
        # Said of a request that there is not.
        where = error.pointer.replace(f"/{_ITEM.replace('.', '/')}", pointer)
        raise invalid(error.message.replace(_ITEM, place), where) from None
    return ReadItem(item, message.content, isinstance(raw, tuple))


def read_token_count(payload: JSONObject) -> TokenCount | None:
    """Return what a `token_count` says, or None where it tells of limits only."""
    info = object_at(payload, "info", "/payload")
    total = object_at(info, "total_token_usage", "/payload/info")
    last = object_at(info, "last_token_usage", "/payload/info")
    for name in _COUNTS.values():
        if last.get(name) is not None and count(last[name]) is None:
            place = f"/payload/info/last_token_usage/{name}"
            raise invalid(f"last_token_usage.{name} is not an integer from 0 to 2^63-1", place)
    if not total:
        return None
    counts = {ours: count(last.get(theirs)) for ours, theirs in _COUNTS.items()}
    return TokenCount(total, usage(**counts))


def read_turns(payload: JSONObject) -> int:
    """Return how many turns of the user a `thread_rolled_back` takes back."""
    turns = payload.get("num_turns")
    if type(turns) is not int or turns < 0:
        raise invalid("payload.num_turns is not an integer of 0 or more", "/payload/num_turns")
    return turns


def is_asked(message: JSON) -> bool:
    """Tell whether a raw message is what the user asked; much else has the role `user`."""
    if not isinstance(message, dict) or message.get("role") != "user":
        return False
    return not any(text.startswith(_NOT_ASKED) for text in _texts(message))


def is_abort(message: JSONObject) -> bool:
    """Tell whether a raw message says that the model was interrupted."""
    if message.get("role") not in ("user", "developer"):
        return False
    return any(text.startswith(ABORTED) for text in _texts(message))


def _texts(message: JSONObject) -> list[str]:
    content = message.get("content")
    parts = content if isinstance(content, list) else [{"text": content}]
    texts = [part.get("text") for part in parts if isinstance(part, dict)]
    return [text.lstrip() for text in texts if isinstance(text, str)]


def text_at(payload: JSONObject, name: str) -> str:
    """Return a text of the payload, empty where there is none."""
    text = payload.get(name)
    if text is None:
        return ""
    if not isinstance(text, str):
        raise invalid(f"payload.{name} is not a string", f"/payload/{name}")
    return text


def object_at(value: JSONObject, name: str, pointer: str) -> JSONObject:
    """Return an object in an object, empty where there is none. `pointer` leads to the outer."""
    inner = value.get(name)
    if inner is None:
        return {}
    if not isinstance(inner, dict):
        place = f"{pointer}/{name}"
        raise invalid(f"{place[1:].replace('/', '.')} is not an object", place)
    return inner


def invalid(message: str, pointer: str) -> RejectError:
    """Return the reject of a line that lacks what the format requires."""
    return RejectError(Reason.LINE_INVALID, message, pointer)
