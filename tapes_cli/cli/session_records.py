"""The records that the `sessions` commands write for machines."""

from collections.abc import Iterator
from typing import Any

from tapes_cli.cli.records import timestamp
from tapes_cli.inspection.sessions import Conversation, ListedSession, SessionPage
from tapes_cli.store.postgres.queries import LandedTurn, SessionRow


def listed_record(session: ListedSession) -> dict[str, Any]:
    """Return the record of a session, without what is sensitive."""
    return {"type": "session", **_fields(session.row), "title": session.title or None}


def _fields(row: SessionRow) -> dict[str, Any]:
    return {
        "id": str(row.id),
        "org_id": str(row.org_id),
        "harness_id": row.harness_id,
        "harness_session_id": row.harness_session_id,
        "name": row.name,
        "cwd": row.cwd,
        "harness_version": row.harness_version,
        "parent_session_id": _text(row.parent_session_id),
        "started_at": timestamp(row.started_at),
        "last_seen_at": timestamp(row.last_seen_at),
        "turn_count": row.turn_count,
        "total_input_tokens": row.total_input_tokens,
        "total_output_tokens": row.total_output_tokens,
        "placeholder": row.placeholder,
    }


def list_summary(page: SessionPage) -> dict[str, Any]:
    """Return the last record of `sessions list`."""
    return {
        "type": "summary",
        "command": "sessions list",
        "sessions": len(page.sessions),
        "next_cursor": page.next_cursor or None,
    }


def node_records(conversation: Conversation) -> Iterator[dict[str, Any]]:
    """Return a record for each message, branch by branch.

    `branch` and `position` count from 1; `position` is the message's place in its conversation.
    """
    for branch in conversation.branches:
        for position, node in enumerate(branch.nodes, branch.first_position):
            yield {
                "type": "node",
                "hash": node.hash,
                "parent_hash": node.parent_hash,
                "branch": branch.number,
                "position": position,
                "role": node.role,
                "content": node.content,
                "model": node.model,
                "created_at": timestamp(node.created_at),
                "session_id": _text(node.session_id),
                "turn": _turn(node.turn) if node.turn else None,
            }


def _turn(turn: LandedTurn) -> dict[str, Any]:
    usage = turn.usage
    return {
        "at": timestamp(turn.at) if turn.at else None,
        "session_id": _text(turn.session_id),
        "stop_reason": turn.stop_reason or None,
        "usage": {
            "input_tokens": usage.prompt_tokens,
            "output_tokens": usage.completion_tokens,
            "total_tokens": usage.total_tokens,
            "cache_creation_input_tokens": usage.cache_creation_input_tokens,
            "cache_read_input_tokens": usage.cache_read_input_tokens,
            "total_duration_ns": usage.total_duration_ns,
            "prompt_duration_ns": usage.prompt_duration_ns,
        },
    }


def conversation_summary(conversation: Conversation) -> dict[str, Any]:
    """Return the last record of `sessions show`: the session and its relatives."""
    return {
        "type": "summary",
        "command": "sessions show",
        "session": listed_record(conversation.session),
        "parent": _fields(conversation.parent) if conversation.parent else None,
        "children": [_fields(child) for child in conversation.children],
        "models": list(conversation.models),
        "nodes": sum(len(branch.nodes) for branch in conversation.branches),
        "branches": [
            {
                "branch": branch.number,
                "nodes": len(branch.nodes),
                "from_branch": branch.from_branch,
                "from_position": branch.first_position - 1 or None,
            }
            for branch in conversation.branches
        ],
    }


def _text(value: object) -> str | None:
    return None if value is None else str(value)
