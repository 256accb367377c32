"""What JSON allows and PostgreSQL refuses: U+0000 and lone surrogates become U+FFFD.

Only what is stored changes; hashes are made before (spec: the content address of a node).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import orjson

from tapes_cli.model.envelope import SessionKey

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tapes_cli.merkle.chain import Node
    from tapes_cli.model.json import JSON
    from tapes_cli.store.base import ChainedTurn

_REFUSED = re.compile("[\x00\ud800-\udfff]")
_SHORT = 256
_REPLACEMENT = "\ufffd"


@dataclass(frozen=True, slots=True)
class Clean:
    """A value as it can be stored, and whether it had to be changed."""

    value: str
    changed: bool


def clean_text(text: str) -> Clean:
    """Return text that a text column takes."""
    return _clean_short(text) if len(text) <= _SHORT else _clean(text)


@lru_cache(maxsize=4096)
def _clean_short(text: str) -> Clean:
    # Roles, models, harnesses: many rows share them.
    return _clean(text)


def _clean(text: str) -> Clean:
    cleaned = _REFUSED.sub(_REPLACEMENT, text)
    return Clean(cleaned, cleaned != text)


def clean_key(key: SessionKey) -> SessionKey:
    """Return the natural key under which a session is stored."""
    return SessionKey(
        key.org_id, clean_text(key.harness_id).value, clean_text(key.harness_session_id).value
    )


def to_jsonb(value: JSON) -> Clean:
    """Return a JSON value as text that a jsonb column takes."""
    try:
        encoded = orjson.dumps(value)
    except TypeError:
        # A lone surrogate, or an integer beyond 64 bits: the slow and exact way.
        return _exact_jsonb(value)
    if b"\\u0000" in encoded:
        return _exact_jsonb(value)
    return Clean(encoded.decode(), changed=False)


def _exact_jsonb(value: JSON) -> Clean:
    cleaned = _clean_value(value)
    return Clean(
        json.dumps(cleaned, ensure_ascii=False, separators=(",", ":")), changed=cleaned != value
    )


def _clean_value(value: JSON) -> JSON:
    """Return a copy without what PostgreSQL refuses. Deep nesting needs no deep recursion."""
    holder: list[JSON] = [value]
    unvisited: list[JSON] = [holder]
    while unvisited:
        copy = unvisited.pop()
        items = copy.items() if isinstance(copy, dict) else enumerate(copy)
        for key, item in list(items):
            if isinstance(item, str):
                copy[key] = _REFUSED.sub(_REPLACEMENT, item)
            elif isinstance(item, list):
                copy[key] = list(item)
                unvisited.append(copy[key])
            elif isinstance(item, dict):
                copy[key] = {_REFUSED.sub(_REPLACEMENT, k): v for k, v in item.items()}
                unvisited.append(copy[key])
    return holder[0]


def is_clean(turn: ChainedTurn, nodes: Iterable[Node]) -> bool:
    """Tell whether these nodes of a turn, and its envelope, can be stored as they are."""
    envelope, captured = turn.envelope, turn.turn
    texts = (
        envelope.auth_subject,
        envelope.harness_id,
        envelope.harness_session_id,
        envelope.harness_version,
        envelope.cwd,
        envelope.name,
        *(envelope.parent or ()),
        captured.agent_name,
        captured.project,
        captured.stop_reason,
        captured.request_model,
        captured.response_model,
    )
    return not (
        any(clean_text(text).changed for text in texts)
        or to_jsonb(envelope.harness_metadata).changed
        or any(
            clean_text(node.message.role).changed or to_jsonb(node.message.content).changed
            for node in nodes
        )
    )
