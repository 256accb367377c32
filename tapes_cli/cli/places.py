"""How a place in a capture is written for people."""

from tapes_cli.model.records import Location, Rejected

_OF_TURNS = ("batch", "rejects")


def pointer_path(pointer: str) -> str:
    """Return a JSON Pointer in the way people write paths: `response.message.content[1].type`."""
    path = ""
    for part in pointer.split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if name.isdecimal():
            path += f"[{name}]"
        else:
            path += f".{name}" if path else name
    return path


def place(location: Location, pointer: str = "") -> str:
    """Return `file:line: turns[i].path` for a place in a capture.

    In a line that is no batch of turn records, the place is just a number in brackets.
    """
    where = f"{location.source}:{location.line}" if location.line else location.source
    of = "turns" if location.format in _OF_TURNS else ""
    batch = "" if location.index is None else f"{of}[{location.index}]"
    path = ".".join(part for part in (batch, pointer_path(pointer)) if part)
    return f"{where}: {path}" if path else where


def reject_sentence(rejected: Rejected) -> str:
    """Return one line that says where a reject stands and why it is one."""
    path = pointer_path(rejected.pointer)
    # Some messages begin with the path themselves.
    pointer = "" if path and rejected.message.startswith(f"{path} ") else rejected.pointer
    return f"{place(rejected.location, pointer)}: {rejected.message} [{rejected.reason}]"
