"""Capture lines made for tests."""

from __future__ import annotations

import json
from typing import Any


def record(question: str = "Hello", answer: str = "Hi", **changes: Any) -> dict[str, Any]:
    """Return a turn record of one question and one answer, with top-level fields changed."""
    return {
        "provider": "anthropic",
        "request": {"model": "m", "messages": [{"role": "user", "content": question}]},
        "response": {
            "model": "m",
            "message": {"role": "assistant", "content": [{"type": "text", "text": answer}]},
            "stop_reason": "end_turn",
            "usage": {"prompt_tokens": 5, "completion_tokens": 2},
        },
        "session": {
            "harness_id": "claude",
            "harness_session_id": "s1",
            "auth_subject": "secret-me",
        },
        "meta": {"captured_at": "2026-03-02T09:00:00Z"},
        **changes,
    }


def line(value: object) -> str:
    """Return a value as a line of a capture."""
    return json.dumps(value) + "\n"
