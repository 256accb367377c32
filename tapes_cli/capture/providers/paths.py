"""Which provider a recorded HTTP request went to, told by its path."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import unquote

from tapes_cli.capture.providers import PROVIDERS

if TYPE_CHECKING:
    from tapes_cli.capture.providers import Provider

# Gateways put something before the path, never behind it.
_TURNS = (
    ("anthropic", re.compile(r"/v1/messages")),
    ("openai", re.compile(r"/chat/completions|/v1/responses|/codex/responses")),
    ("ollama", re.compile(r"/api/chat")),
    ("gemini", re.compile(r"/models/(?P<model>[^/:]+):(?:generateContent|streamGenerateContent)")),
)
_OTHER_CALLS = re.compile(
    r"/v1/(?:messages|complete|organizations|chat|responses|conversations|completions|embeddings"
    r"|moderations|models|files|uploads|batches|images|audio|realtime|assistants|threads"
    r"|vector_stores|fine_tuning)(?:/|\Z)"
    r"|/codex/"
    r"|/api/(?:chat|generate|tags|show|embed|embeddings|ps|version|pull|push|create|copy|delete"
    r"|blobs)(?:/|\Z)"
    r"|/v1(?:alpha|beta)\d*/"
    r"|/models(?:/[^/]+)?\Z"
)


def provider_for_path(path: str) -> tuple[Provider, str] | None:
    """Return the provider that a request asked for an answer, and the model if the path names it.

    Args:
        path: the path of the request, or its whole address. Whatever a gateway puts before the
            provider's own path is passed over, as are query and fragment.

    Returns:
        The provider and the model (empty if the path names none), or None if this is no turn: see
        `is_provider_path`.
    """
    plain = _plain(path)
    for name, pattern in _TURNS:
        # From the right: a gateway's prefix may look like a path.
        for found in pattern.finditer(plain):
            if found.end() == len(plain):
                return PROVIDERS[name], unquote(found.groupdict().get("model") or "")
    return None


def is_provider_path(path: str) -> bool:
    """Whether a path is one of a supported provider's API, be it for an answer or anything else.

    If so, a request that is no turn asked for something else: models, embeddings, a token count.
    Else it went somewhere that is not known.
    """
    return provider_for_path(path) is not None or _OTHER_CALLS.search(_plain(path)) is not None


def _plain(path: str) -> str:
    path = re.split("[?#]", path, maxsplit=1)[0]
    return re.sub("%3A", ":", path, flags=re.IGNORECASE).rstrip("/")
