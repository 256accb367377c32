"""The shape of a session envelope. Apart from its rules, so that pydantic is loaded when needed."""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, ValidationError
from pydantic_core import PydanticCustomError

from tapes_cli.model.reasons import Reason
from tapes_cli.model.records import RejectError


def _text(value: Any) -> str | None:
    # Not pydantic's own `str`, which refuses lone surrogates; they are replaced when stored.
    if value is not None and not isinstance(value, str):
        raise PydanticCustomError(Reason.SESSION_INVALID, "is not a string")
    return value


def _org_id(value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise PydanticCustomError(Reason.ORG_ID_INVALID, "is not a UUID")
    return value


def _parent(value: Any) -> str | None:
    if value == "":
        raise PydanticCustomError(Reason.PARENT_EMPTY, "is empty; omit the field instead")
    return _text(value)


def _metadata(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise PydanticCustomError(Reason.METADATA_INVALID, "is not an object")
    return value


_Text: TypeAlias = Annotated[str | None, PlainValidator(_text)]


class SessionModel(BaseModel):
    """A session envelope as it stands in a record. None is what was absent or null.

    `harness_metadata` must not be null: stored, null would turn an object into an array.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")

    org_id: Annotated[str | None, PlainValidator(_org_id)] = None
    auth_subject: _Text = None
    harness_id: _Text = None
    harness_session_id: _Text = None
    harness_version: _Text = None
    cwd: _Text = None
    name: _Text = None
    parent_harness_session_id: Annotated[str | None, PlainValidator(_parent)] = None
    parent_harness_id: _Text = None
    harness_metadata: Annotated[dict[str, Any], PlainValidator(_metadata)] = Field(
        default_factory=dict
    )


def validate_session(session: dict[str, Any]) -> SessionModel:
    """Return the envelope's fields, their types checked.

    Raises:
        RejectError: the first field that is wrong, with the pointer from the record.
    """
    try:
        return SessionModel.model_validate(session)
    except ValidationError as error:
        # Without the input: an envelope holds what no message may show.
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        field = str(first["loc"][0])
        raise RejectError(
            Reason(first["type"]), f"{field} {first['msg']}", f"/session/{field}"
        ) from None
