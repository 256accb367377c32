"""What a provider is to a reader, and the checks that all of them make of a request.

A request is refused where the reference's typed decoding of that provider's body refuses it: a
known field with the wrong type. null is as good as absent, and unknown fields are fine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from tapes_cli.model.reasons import Reason
from tapes_cli.model.records import RejectError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tapes_cli.model.blocks import Message
    from tapes_cli.model.json import JSON, JSONObject

MAX_INTEGER = 2**63 - 1
"""The largest count that the reference, and a bigint column, can hold."""


class Provider(Protocol):
    """Reads the requests and the responses of one provider."""

    @property
    def name(self) -> str:
        """The provider's name in a turn record."""
        ...

    def request_messages(self, request: JSONObject) -> list[JSON]:
        """Return the request's raw messages, in order, each to be given to `parse_message`.

        A tuple is a message that consists of several items of the request in a row.

        Raises:
            RejectError: a known field of the request has the wrong type.
        """
        ...

    def parse_message(self, raw: JSON, pointer: str) -> Message:
        """Return a raw message in the provider-neutral form. `pointer` says where it stands.

        Raises:
            RejectError: a field of the message has the wrong type.
            InexactNumberError: the message keeps a number that may have been rounded.
        """
        ...

    def model(self, request: JSONObject) -> str:
        """Return the model that the request names, or nothing."""
        ...

    def reduce(self, body: bytes, content_type: str = "") -> JSONObject:
        """Return the reduced response (ingest specification, section 1) that a body holds.

        `parse_response` takes it, and gives the message that `parse_message` gives of its echo.
        A stream that was cut short gives what there is of it: `done` is false then, and
        `extra.incomplete` true.

        Args:
            body: the body of the provider's response, without content codings: one JSON document
                or a stream, which is told by its content.
            content_type: what the response says that the body is, if it is known.

        Raises:
            RejectError: the body is neither JSON nor a stream (`RESPONSE_DECODE`), nothing was
                said (`EMPTY_RESPONSE`), or no message can be made of it (`REDUCER_ERROR`).
        """
        ...


def refuse(pointer: str, what: str) -> RejectError:
    """Return the reject of a request whose value at `pointer` is `what`, such as "no list"."""
    return RejectError(Reason.REQUEST_INVALID, f"{pointer[1:].replace('/', '.')} {what}", pointer)


def _is_integer(value: JSON) -> bool:
    return type(value) is int and -MAX_INTEGER - 1 <= value <= MAX_INTEGER


def _is_number(value: JSON) -> bool:
    return type(value) in (int, float)


_KINDS: dict[str, Callable[[JSON], bool]] = {
    "a string": lambda value: isinstance(value, str),
    "an integer": _is_integer,
    "a number": _is_number,
    "a boolean": lambda value: isinstance(value, bool),
    "an object": lambda value: isinstance(value, dict),
    "a list": lambda value: isinstance(value, list),
    "a string or an object": lambda value: isinstance(value, str | dict),
    "a string or a number": lambda value: isinstance(value, str) or _is_number(value),
}

STRINGS = "a list of strings"
"""The kind of a field that is a list of nothing but strings (or nulls)."""

COMMON_FIELDS = {"model": "a string", "messages": "a list", "stream": "a boolean"}
"""Fields, with their kinds, that the requests of all providers have."""


def check_fields(value: JSONObject, pointer: str, fields: Mapping[str, str]) -> None:
    """Check the types of an object's known fields; null and absent are fine.

    Raises:
        RejectError: a field is not of the kind that `fields` says.
    """
    for name, kind in fields.items():
        field = value.get(name)
        if field is None:
            continue
        if kind == STRINGS:
            _check_strings(field, f"{pointer}/{name}")
        elif not _KINDS[kind](field):
            raise refuse(f"{pointer}/{name}", f"is not {kind}")


def _check_strings(value: JSON, pointer: str) -> None:
    if not isinstance(value, list):
        raise refuse(pointer, "is not a list")
    for index, item in enumerate(value):
        if item is not None and not isinstance(item, str):
            raise refuse(f"{pointer}/{index}", "is not a string")


def message_object(raw: JSON, pointer: str) -> JSONObject:
    """Return a raw message as an object; null is an empty one.

    Raises:
        RejectError: it is something else.
    """
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise refuse(pointer, "is not an object")
    return raw


def role_of(message: JSONObject, pointer: str) -> str:
    """Return the role of a raw message, empty where there is none.

    Raises:
        RejectError: the role is not a string.
    """
    role = message.get("role")
    if role is None:
        return ""
    if not isinstance(role, str):
        raise refuse(f"{pointer}/role", "is not a string")
    return role


def model_of(request: JSONObject) -> str:
    """Return the model that a request names, or nothing."""
    model = request.get("model")
    return model if isinstance(model, str) else ""


def objects_in(value: JSONObject, name: str, pointer: str) -> Iterator[tuple[JSONObject, str]]:
    """Yield the objects of a list field, each with its pointer; null stands for an empty object.

    Raises:
        RejectError: the field is not a list of objects.
    """
    items = value.get(name)
    if items is None:
        return
    if not isinstance(items, list):
        raise refuse(f"{pointer}/{name}", "is not a list")
    for index, item in enumerate(items):
        yield message_object(item, f"{pointer}/{name}/{index}"), f"{pointer}/{name}/{index}"
