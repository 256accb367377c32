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
    INCOMPLETE_TURN = "incomplete_turn"
    INCOMPLETE_RECORDING = "incomplete_recording"
    NON_TURN_REQUEST = "non_turn_request"
    UNKNOWN_PROVIDER = "unknown_provider"
    UPSTREAM_STATUS = "upstream_status"
    REQUEST_DECODE = "request_decode"
    EMPTY_RESPONSE = "empty_response"
    RESPONSE_DECODE = "response_decode"
    REDUCER_ERROR = "reducer_error"
    BODY_TOO_LARGE = "body_too_large"
    EXCHANGE_INVALID = "exchange_invalid"
    TRANSCRIPT_ROW = "transcript_row"
    BATCH_INPUT = "batch_input"
    BATCH_UNMATCHED = "batch_unmatched"
    BATCH_FAILED = "batch_failed"
    SYNTHETIC_MESSAGE = "synthetic_message"
    HISTORY_MISSING = "history_missing"
    HISTORY_TOO_LARGE = "history_too_large"
    LINE_INVALID = "line_invalid"
    FORMAT_FAILED = "format_failed"
    OUTSIDE_PERIOD = "outside_period"


MAY_CHANGE = frozenset({Reason.SOURCE_UNREADABLE, Reason.BATCH_UNMATCHED, Reason.FORMAT_FAILED})
"""What another run may not meet although the capture is the same: it hangs on something else."""


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
        "The record belongs to a format that has to be seen as a whole, but stands among others.",
        "Move the lines of the session to a file of their own.",
    ),
    Reason.BATCH_EMPTY: Explanation(
        "The batch holds no turns.", "Delete the line, or put turn records in `turns`."
    ),
    Reason.BATCH_INVALID: Explanation(
        "The batch's `turns` is not a list.", "Make `turns` a list of turn records."
    ),
    Reason.PROVIDER_UNSUPPORTED: Explanation(
        "The provider is unknown.", "Use `anthropic`, `openai`, `ollama` or `gemini`."
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
    Reason.INCOMPLETE_TURN: Explanation(
        "Nothing in the session file proves yet that its last answer is complete.",
        "Import it again after the session has gone on, or a day after the file was last written.",
    ),
    Reason.INCOMPLETE_RECORDING: Explanation(
        "A file of the recording does not parse, and was written less than a day ago.",
        "Import it again when the recording is complete.",
    ),
    Reason.NON_TURN_REQUEST: Explanation(
        "The request asked the provider for something else than an answer, such as a token count.",
        "Nothing: it is no turn.",
    ),
    Reason.UNKNOWN_PROVIDER: Explanation(
        "The request went to an address that belongs to no supported provider.",
        "Nothing, unless it was a model's: then convert it to turn records.",
    ),
    Reason.UPSTREAM_STATUS: Explanation(
        "The provider did not answer with status 200.",
        "Nothing: the harness asks again, and that exchange is the turn.",
    ),
    Reason.REQUEST_DECODE: Explanation(
        "The recorded body of the request cannot be decoded.",
        "Check that the recording is whole and its content coding is supported.",
    ),
    Reason.EMPTY_RESPONSE: Explanation(
        "The exchange ended before the provider answered anything.",
        "Nothing: there is no answer to store.",
    ),
    Reason.RESPONSE_DECODE: Explanation(
        "The recorded body of the response cannot be decoded.",
        "Check that the recording is whole and its content coding is supported.",
    ),
    Reason.REDUCER_ERROR: Explanation(
        "The provider's response holds nothing that makes a message.",
        "Check that the response is the provider's own, unchanged.",
    ),
    Reason.BODY_TOO_LARGE: Explanation(
        "A body is larger than 48 MiB once it is decompressed.",
        "Check the recording; no provider accepts or sends so much.",
    ),
    Reason.EXCHANGE_INVALID: Explanation(
        "A field of a recorded HTTP exchange is missing or has the wrong type.",
        "Correct the field named by the pointer, or record the exchange again.",
    ),
    Reason.TRANSCRIPT_ROW: Explanation(
        "The row was made from a harness's transcript and holds no request.",
        "Nothing, where the wire was captured too; else import the transcript itself.",
    ),
    Reason.BATCH_INPUT: Explanation(
        "The line is a request of a batch API, which is stored with its answer.",
        "Import the batch's output file, with this file beside it.",
    ),
    Reason.BATCH_UNMATCHED: Explanation(
        "The answer of a batch API belongs to no request that is at hand, or to several.",
        "Put the batch's input file into the folder of its output file.",
    ),
    Reason.BATCH_FAILED: Explanation(
        "The request of a batch API was not answered: it failed, expired or was cancelled.",
        "Nothing: there is no answer to store.",
    ),
    Reason.SYNTHETIC_MESSAGE: Explanation(
        "The harness wrote the message itself; it never came from a model.", "Nothing."
    ),
    Reason.HISTORY_MISSING: Explanation(
        "What was said before the turn is not in the file, which is a piece of a session.",
        "Import the whole file; its turns would otherwise be stored twice, once without a past.",
    ),
    Reason.HISTORY_TOO_LARGE: Explanation(
        "What was said before the turn is larger than a line may be.",
        "Nothing: no provider accepts so large a request.",
    ),
    Reason.LINE_INVALID: Explanation(
        "A line of a session file lacks what the format requires.",
        "Correct the field named by the pointer, or delete the line.",
    ),
    Reason.FORMAT_FAILED: Explanation(
        "The code that reads this capture format failed.",
        "Report it to whoever wrote the format, which the message names.",
    ),
    Reason.OUTSIDE_PERIOD: Explanation(
        "The turn was captured before `--since`, or not before `--until`.",
        "Nothing, or import with another period.",
    ),
}
