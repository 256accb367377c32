"""Why a record was not stored: the closed list of reasons, with what each means and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """A reason code. The value is part of the machine output: add, never rename."""

    NOT_JSON = "not_json"
    NOT_UTF8 = "not_utf8"
    NOT_OBJECT = "not_object"
    LINE_TOO_LONG = "line_too_long"
    NUMBER_OVERFLOW = "number_overflow"
    NESTING_TOO_DEEP = "nesting_too_deep"
    UNRECOGNISED = "unrecognised_record"
    DERIVED_EXPORT = "derived_export"
    FORMAT_UNSUPPORTED = "format_unsupported"
    BATCH_EMPTY = "batch_empty"
    BATCH_INVALID = "batch_invalid"
    PROVIDER_UNSUPPORTED = "provider_unsupported"
    RECORD_INVALID = "record_invalid"
    REQUEST_INVALID = "request_invalid"
    RESPONSE_INVALID = "response_invalid"
    ROLE_MISSING = "role_missing"
    CONTENT_MISSING = "content_missing"
    BLOCK_TYPE_MISSING = "block_type_missing"
    BLOCK_INVALID = "block_invalid"
    USAGE_INVALID = "usage_invalid"
    SESSION_INVALID = "session_invalid"
    ORG_ID_INVALID = "org_id_invalid"
    PARENT_EMPTY = "parent_empty"
    PARENT_SELF = "parent_self"
    PARENT_HARNESS_ALONE = "parent_harness_alone"
    METADATA_INVALID = "metadata_invalid"
    SESSIONLESS = "sessionless"
    VALUE_REFUSED = "value_refused"
    SOURCE_UNREADABLE = "source_unreadable"
    INCOMPLETE = "incomplete_line"


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a reason means, and what to do about it. One sentence each."""

    meaning: str
    remedy: str


EXPLANATIONS: dict[Reason, Explanation] = {
    Reason.NOT_JSON: Explanation(
        "The line is not valid JSON.",
        "Repair the line, or delete it if the capture was cut short there.",
    ),
    Reason.NOT_UTF8: Explanation(
        "The line is not valid UTF-8.", "Convert the file to UTF-8, for example with iconv."
    ),
    Reason.NOT_OBJECT: Explanation(
        "The line is valid JSON, but not an object.", "Make each line one turn record."
    ),
    Reason.LINE_TOO_LONG: Explanation(
        "The line is longer than the limit, and was not read into memory.",
        "Check that the file has one record a line; no provider accepts so large a request.",
    ),
    Reason.NUMBER_OVERFLOW: Explanation(
        "The line holds a number that no double can hold, or NaN or Infinity.",
        "Replace the number; JSON has no NaN and no Infinity.",
    ),
    Reason.NESTING_TOO_DEEP: Explanation(
        "The record is nested more deeply than can be stored.",
        "Flatten the value; no provider sends such a record.",
    ),
    Reason.UNRECOGNISED: Explanation(
        "The record has the keys of no known capture format.",
        "Check that the file is a capture; `provider` and `request` mark a turn record.",
    ),
    Reason.DERIVED_EXPORT: Explanation(
        "The record is an export that was derived from captures and holds no requests.",
        "Import the captures that the export was made from.",
    ),
    Reason.FORMAT_UNSUPPORTED: Explanation(
        "The record belongs to a capture format that this version does not import.",
        "Convert it to turn records.",
    ),
    Reason.BATCH_EMPTY: Explanation(
        "The batch holds no turns.", "Delete the line, or put turn records in `turns`."
    ),
    Reason.BATCH_INVALID: Explanation(
        "The batch's `turns` is not a list.", "Make `turns` a list of turn records."
    ),
    Reason.PROVIDER_UNSUPPORTED: Explanation(
        "The provider is unknown.", "Use `anthropic`, `openai` or `ollama`."
    ),
    Reason.RECORD_INVALID: Explanation(
        "A field of the turn record has the wrong type.", "Correct the field named by the pointer."
    ),
    Reason.REQUEST_INVALID: Explanation(
        "The request is not one that the provider would accept.",
        "Correct the field named by the pointer; the request must be the provider's own body.",
    ),
    Reason.RESPONSE_INVALID: Explanation(
        "The response is missing, or a field of it has the wrong type.",
        "Correct the field named by the pointer.",
    ),
    Reason.ROLE_MISSING: Explanation(
        "The response message has no role.", "Set `response.message.role`, mostly `assistant`."
    ),
    Reason.CONTENT_MISSING: Explanation(
        "The response message has no content blocks.",
        "Set `response.message.content` to a list of one block or more.",
    ),
    Reason.BLOCK_TYPE_MISSING: Explanation(
        "A content block of the response has no type.",
        "Set the block's `type`, for example `text`.",
    ),
    Reason.BLOCK_INVALID: Explanation(
        "A field of a content block has the wrong type.", "Correct the field named by the pointer."
    ),
    Reason.USAGE_INVALID: Explanation(
        "A token count is not an integer of zero or more.",
        "Correct the count named by the pointer, or leave it out.",
    ),
    Reason.SESSION_INVALID: Explanation(
        "A field of the session envelope has the wrong type.",
        "Correct the field named by the pointer.",
    ),
    Reason.ORG_ID_INVALID: Explanation(
        "`session.org_id` is not a UUID.", "Use a UUID, or leave the field out."
    ),
    Reason.PARENT_EMPTY: Explanation(
        "`session.parent_harness_session_id` is empty.", "Omit the field instead."
    ),
    Reason.PARENT_SELF: Explanation(
        "The session names itself as its parent.", "Omit the parent, or name the right one."
    ),
    Reason.PARENT_HARNESS_ALONE: Explanation(
        "`session.parent_harness_id` is given without a parent session id.",
        "Name the parent session as well, or omit the field.",
    ),
    Reason.METADATA_INVALID: Explanation(
        "`session.harness_metadata` is not a JSON object.", "Use an object, or omit the field."
    ),
    Reason.SESSIONLESS: Explanation(
        "The turn has no session envelope, and `--sessionless reject` was given.",
        "Add an envelope, or import with `--sessionless synthetic`.",
    ),
    Reason.VALUE_REFUSED: Explanation(
        "PostgreSQL cannot store a value of the turn.", "Correct the column named in the message."
    ),
    Reason.SOURCE_UNREADABLE: Explanation(
        "The source could not be read to its end.",
        "Check that the file exists, is readable, and was copied whole.",
    ),
    Reason.INCOMPLETE: Explanation(
        "The last line has no newline and does not parse: somebody is still writing it.",
        "Import the file again when it is complete.",
    ),
}
