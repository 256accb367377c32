"""How a conversation looks to people.

All text of a capture is hostile. It passes through `visible`, and stands indented below headings
that do not, so that nothing in it can act on the terminal or be taken for a heading.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from tapes_cli.cli.console import visible, write_line
from tapes_cli.cli.session_text import cut, label, moment, shown_title
from tapes_cli.inspection.sessions import Branch, Conversation, short_id
from tapes_cli.merkle.projection import REWRITTEN_TAGS
from tapes_cli.model.json import JSON, JSONObject
from tapes_cli.store.postgres.queries import LandedTurn, NodeRow

_INDENT = 2
_INPUT_CHARACTERS = 300
_OUTPUT_LINES = 8
_OUTPUT_CHARACTERS = 800
_NAME_CHARACTERS = 200
_TITLE_CELLS = 100
_BASE64_GROUP, _BYTES_OF_GROUP = 4, 3
_INJECTED = re.compile(rf"<({'|'.join(REWRITTEN_TAGS)})>.*?(?:</\1>|\Z)", re.DOTALL)
_DATA_URL = re.compile(r"data:([^;,]*)(?:;[^,]*)?,")
_ROLE_STYLES = {"user": "bold cyan", "assistant": "bold green"}
_OTHER_ROLE_STYLE = "bold yellow"


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of text in one style, `indent` columns from the left.

    In `prose`, what a harness put between the user's words is dimmed.
    """

    text: str
    style: str = ""
    indent: int = _INDENT
    prose: bool = False


_BLANK = Part("", indent=0)


def print_conversation(conversation: Conversation, terminal: Console, *, full: bool) -> None:
    """Write a conversation to stdout: wrapped and in colour on a terminal, else line by line.

    `full` leaves nothing out; otherwise tool calls and their results are cut.
    """
    for part in (*_header(conversation), *_Reader(conversation, full=full).parts()):
        if terminal.is_terminal:
            text = Text(part.text, part.style)
            if part.prose:
                text.highlight_regex(_INJECTED, "dim")
            terminal.print(Padding(text, (0, 0, 0, part.indent)), soft_wrap=False)
        else:
            margin = " " * part.indent
            for line in part.text.split("\n"):
                write_line(f"{margin}{line}".rstrip())


def _header(conversation: Conversation) -> Iterator[Part]:
    row = conversation.session.row
    yield Part(f"Session {row.id}", "bold", 0)
    if row.placeholder:
        yield Part("A placeholder: its children name it, no turn of its own was imported yet.")
    for name, value in _facts(conversation):
        yield Part(f"{name:<9} {value}")


def _facts(conversation: Conversation) -> Iterator[tuple[str, str]]:
    row = conversation.session.row
    if conversation.session.title:
        yield "title", cut(shown_title(conversation.session), _TITLE_CELLS)
    yield "harness", visible(f"{row.harness_id} {row.harness_version or ''}".rstrip())
    yield "known as", visible(row.harness_session_id)
    yield "org", str(row.org_id)
    if row.cwd:
        yield "folder", visible(row.cwd)
    yield "time", f"{moment(row.started_at)} to {moment(row.last_seen_at)} UTC"
    tokens = f"{row.total_input_tokens:,} tokens in, {row.total_output_tokens:,} out"
    yield "turns", f"{row.turn_count:,}; {tokens}"
    if conversation.models:
        yield "models", visible(", ".join(conversation.models))
    if conversation.parent:
        yield "parent", label(conversation.parent)
    for child in conversation.children:
        yield "child", label(child)
    for owner in conversation.owners.values():
        yield "history", f"in part from {label(owner)}"


class _Reader:
    """Goes through a conversation, message by message."""

    def __init__(self, conversation: Conversation, *, full: bool) -> None:
        self._conversation = conversation
        self._session = conversation.session.row
        self._full = full
        # By call id, so that a result can say what it is the result of.
        self._tools: dict[str, str] = {}

    def parts(self) -> Iterator[Part]:
        branches = self._conversation.branches
        for branch in branches:
            yield _BLANK
            if len(branches) > 1 or branch.parent_missing:
                yield Part(_branch_heading(branch, len(branches)), "bold magenta", 0)
                yield _BLANK
            for index, node in enumerate(branch.nodes):
                if index:
                    yield _BLANK
                yield from self._message(branch.first_position + index, node)

    def _message(self, position: int, node: NodeRow) -> Iterator[Part]:
        role = visible(node.role) or "(no role)"
        heading = f"#{position} {role}"
        if node.session_id != self._session.id:
            owner = node.session_id
            heading += f", from session {short_id(owner)}" if owner else ", from no session"
        yield Part(heading, _ROLE_STYLES.get(node.role, _OTHER_ROLE_STYLE), 0)
        for block in _blocks(node.content):
            yield from self._block(block)
        if node.turn and node.turn.session_id == self._session.id:
            yield Part(_turn_line(node, node.turn), "dim")

    def _block(self, block: JSONObject) -> Iterator[Part]:
        kind = block.get("type")
        if kind == "text":
            yield Part(_shown(block.get("text")), prose=True)
        elif kind == "thinking":
            yield from _thinking(block)
        elif kind == "tool_use":
            yield self._tool_use(block)
        elif kind == "tool_result":
            yield from self._tool_result(block)
        elif kind == "image":
            yield Part(_image(block), "magenta")
        else:
            rest = {key: value for key, value in block.items() if key != "type"}
            yield Part(f"[{_name(kind)}] {self._compact(rest)}", "yellow")

    def _tool_use(self, block: JSONObject) -> Part:
        name = _name(block.get("tool_name"))
        if call := block.get("tool_use_id"):
            self._tools[str(call)] = name
        given = block.get("tool_input", block.get("content"))
        return Part(f"→ {name} {self._compact({} if given is None else given)}", "blue")

    def _tool_result(self, block: JSONObject) -> Iterator[Part]:
        failed = block.get("is_error") is True
        style = "red" if failed else ""
        name = self._tools.get(str(block.get("tool_result_id") or ""), "")
        heading = f"← {'error' if failed else 'result'}{f' of {name}' if name else ''}"
        yield Part(heading, style or "blue")
        output = _shown(block.get("tool_output"))
        if output:
            kept = output if self._full else _first_lines(output)
            yield Part(kept, style, 2 * _INDENT)
            if len(kept) < len(output):
                yield Part(_rest(kept, output), "dim", 2 * _INDENT)
        for part in _blocks(block.get("content")):
            if part.get("type") != "text":
                yield Part(_raw_part(part), "magenta", 2 * _INDENT)

    def _compact(self, value: JSON) -> str:
        """Return JSON on one line, of which the rest is counted where it is long."""
        text = visible(json.dumps(value, ensure_ascii=False, separators=(",", ":")))
        if self._full or len(text) <= _INPUT_CHARACTERS:
            return text
        return f"{text[:_INPUT_CHARACTERS]}… ({len(text) - _INPUT_CHARACTERS:,} more characters)"


def _thinking(block: JSONObject) -> Iterator[Part]:
    thought = _shown(block.get("thinking"))
    yield Part("(thinking)" if thought else "(thinking that was not shown)", "dim italic")
    if thought:
        yield Part(thought, "dim italic", 2 * _INDENT)


def _branch_heading(branch: Branch, branches: int) -> str:
    heading = f"── branch {branch.number} of {branches}"
    if branch.from_branch is not None:
        heading += f", from message {branch.first_position - 1} of branch {branch.from_branch}"
    elif branch.parent_missing:
        heading += ", goes on from a message that is not in the database"
    elif branch.number > 1:
        heading += ", a conversation of its own"
    return f"{heading} ──"


def _turn_line(node: NodeRow, turn: LandedTurn) -> str:
    usage = turn.usage
    cached = f" ({usage.cache_read_input_tokens:,} cached)" if usage.cache_read_input_tokens else ""
    facts = [
        visible(node.model),
        f"{usage.prompt_tokens:,} tokens in{cached}" if usage.prompt_tokens is not None else "",
        f"{usage.completion_tokens:,} out" if usage.completion_tokens is not None else "",
        visible(turn.stop_reason),
        f"{moment(turn.at)} UTC" if turn.at else "",
    ]
    return f"· {' · '.join(fact for fact in facts if fact)}"


def _blocks(content: JSON) -> Iterator[JSONObject]:
    """Return the blocks of stored content; other programs may have written what is none."""
    for block in content if isinstance(content, list) else [content]:
        if isinstance(block, dict):
            yield block
        elif isinstance(block, str):
            yield {"type": "text", "text": block}


def _shown(text: JSON) -> str:
    """Return text to print: line by line, nothing else of it acts on a terminal."""
    if not isinstance(text, str):
        return ""
    return visible(text.replace("\r\n", "\n"), keep_newlines=True).strip("\n").expandtabs(4)


def _name(value: JSON) -> str:
    """Return a short name on one line."""
    return visible(str(value))[:_NAME_CHARACTERS] if value else "(no name)"


def _first_lines(text: str) -> str:
    lines = text.split("\n", _OUTPUT_LINES)
    return "\n".join(lines[:_OUTPUT_LINES])[:_OUTPUT_CHARACTERS]


def _rest(kept: str, output: str) -> str:
    lines = output.count("\n", len(kept))
    more = f"{lines:,} more lines" if lines > 1 else f"{len(output) - len(kept):,} more characters"
    return f"… {more}; --full shows all"


def _raw_part(part: JSONObject) -> str:
    """Name a part of a tool's result that is no text, as its provider wrote it."""
    source = part.get("source")
    if part.get("type") == "image" and isinstance(source, dict):
        fields = ("data", "image_base64"), ("url", "image_url"), ("media_type", "media_type")
        return _image({ours: source.get(theirs) for theirs, ours in fields})
    return f"[{_name(part.get('type'))}]"


def _image(block: JSONObject) -> str:
    """Name an image: its media type and its size, or where it is."""
    media_type, data, url = (
        value if isinstance(value := block.get(field), str) else ""
        for field in ("media_type", "image_base64", "image_url")
    )
    if inline := _DATA_URL.match(url):
        media_type, data, url = media_type or inline.group(1), url[inline.end() :], ""
    size = len(data.rstrip("=")) * _BYTES_OF_GROUP // _BASE64_GROUP
    facts = (media_type, f"{size:,} bytes" if data else "", url)
    return f"[image {_name(', '.join(fact for fact in facts if fact))}]"
