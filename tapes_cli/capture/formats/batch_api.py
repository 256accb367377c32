"""Batch APIs: files of requests, and files of answers that are joined to them by `custom_id`.

OpenAI's inputs are lines `{custom_id, method, url, body}`, the outputs `{custom_id, response:
{status_code, body} | null, error | null}`. Anthropic's inputs are lines `{custom_id, params}`, or
one document `{"requests": [{custom_id, params}, …]}`, the outputs `{custom_id, result: {type,
message | error}}`. A turn stands where its answer stands.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tapes_cli.capture import exchange
from tapes_cli.capture.batch_inputs import BatchInputs, Indexes
from tapes_cli.capture.batch_requests import is_request, requests_of
from tapes_cli.capture.bodies import Body
from tapes_cli.capture.decode import decode, decode_faithfully
from tapes_cli.capture.formats.base import (
    Draft,
    RecordFormat,
    SkipError,
    SourceFormat,
    Unusable,
    refused,
)
from tapes_cli.capture.providers import PROVIDERS
from tapes_cli.capture.sources import SourceReadError
from tapes_cli.capture.spool import Spool
from tapes_cli.capture.values import CUT_SHORT, pieces_of
from tapes_cli.model.reasons import Reason
from tapes_cli.model.records import Incomplete, RejectError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tapes_cli.capture.batch_requests import Key
    from tapes_cli.capture.formats.base import Capture, Found
    from tapes_cli.capture.lines import Line
    from tapes_cli.capture.spool import Piece
    from tapes_cli.model.json import JSON, JSONObject
    from tapes_cli.model.records import Location

_FAILED = ("errored", "canceled", "expired")


def _holds_requests(record: JSONObject) -> bool:
    return bool(requests_of(record))


def _items(record: JSONObject) -> Iterator[Unusable]:
    skipped = SkipError(Reason.BATCH_INPUT)
    if is_request(record):
        raise skipped
    return (Unusable(skipped, index) for index in range(len(record["requests"])))


def _is_answer(record: JSONObject) -> bool:
    if "custom_id" not in record or is_request(record):
        return False
    return "response" in record or "error" in record or isinstance(record.get("result"), dict)


def _key_of(answer: JSONObject) -> Key | None:
    """Return the key of the request that is answered, or None if the id is none."""
    custom_id = answer["custom_id"]
    if not isinstance(custom_id, str):
        return None
    return "params" if isinstance(answer.get("result"), dict) else "body", custom_id


@dataclass(frozen=True, slots=True)
class _Aside:
    """A line that was put aside until all ids are known; `problem` says why it was not."""

    location: Location
    piece: Piece
    problem: RejectError | None = None
    ended: bool = True


class _Output:
    """An output while it is read."""

    def __init__(self, capture: Capture) -> None:
        self._capture = capture
        self._spool = Spool()
        self._lines: list[_Aside] = []
        self._keys: set[Key] = set()
        self._damage: SourceReadError | None = None

    def read(self) -> Iterator[Found]:
        """Yield what the lines hold.

        Raises:
            SourceReadError: the source could not be read to its end.
        """
        self._put_aside()
        capture = self._capture
        indexes = capture.memory.of(Indexes)
        inputs = BatchInputs(frozenset(self._keys), capture.path, capture.others, indexes)
        for line in self._lines:
            yield self._found(line, inputs)
        if self._damage is not None:
            raise self._damage

    def _put_aside(self) -> None:
        try:
            for line in self._capture.lines:
                self._take(line)
        except SourceReadError as error:
            # What stands before the damage is read first.
            self._damage = error

    def _take(self, line: Line) -> None:
        location = self._capture.at(line.number, line.byte_offset)
        problem = None
        if line.too_long:
            problem = RejectError(Reason.LINE_TOO_LONG, "the line is longer than the limit")
        else:
            try:
                value = decode(line.data)
            except RejectError as error:
                pieces = pieces_of(line, error)
                if len(pieces) > 1:
                    for piece in pieces:
                        self._take(piece)
                    return
                problem = error
            else:
                if isinstance(value, dict) and _is_answer(value) and (key := _key_of(value)):
                    self._keys.add(key)
        aside = _Aside(location, self._spool.write(line.data), problem, line.terminated)
        self._lines.append(aside)

    def _found(self, line: _Aside, inputs: BatchInputs) -> Found:
        data = self._spool.read(line.piece)
        location, problem = line.location, line.problem
        if problem is not None:
            if not line.ended and problem.reason in CUT_SHORT:
                return Incomplete(location, data)
            return refused(location, problem, data)
        try:
            record = _record(decode_faithfully(data), inputs)
        except (RejectError, SkipError) as error:
            return refused(location, error, data)
        return Draft(location, record, lambda: record, len(data))


def _record(answer: JSON, inputs: BatchInputs) -> bytes:
    """Return the turn record of an answer.

    Raises:
        RejectError: the line is no answer, its request is not at hand, or holds no turn.
        SkipError: there is nothing to store.
    """
    if not isinstance(answer, dict):
        raise RejectError(Reason.NOT_OBJECT, "the line is not an object")
    if is_request(answer):
        raise SkipError(Reason.BATCH_INPUT)
    if not _is_answer(answer):
        raise RejectError(Reason.UNRECOGNISED, "the line is no answer of a batch API")
    result = answer.get("result")
    body = _message(result) if isinstance(result, dict) else _response(answer)
    key = _key_of(answer)
    if key is None:
        raise exchange.invalid("/custom_id", "is not a string")
    field, custom_id = key
    asked = inputs.request(key)
    call = _called(asked)
    request = asked[field]
    if not isinstance(request, dict):
        raise RejectError(Reason.REQUEST_DECODE, "the batch input's request is not an object")
    response = exchange.reduced(call, Body(exchange.dumped(body)))
    captured_at = exchange.moment(body.get("created_at"), body.get("created"))
    context = exchange.Context(meta=exchange.dated(captured_at, request_id=custom_id))
    return exchange.dumped(exchange.turn_record(call, request, response, context))


def _called(asked: JSONObject) -> exchange.Call:
    if "params" in asked:
        return exchange.Call(PROVIDERS["anthropic"])
    return exchange.called(asked.get("method"), asked["url"], "/request")


def _response(answer: JSONObject) -> JSONObject:
    """Return the body of OpenAI's answer.

    Raises:
        RejectError: a field has the wrong type.
        SkipError: the request failed.
    """
    response = answer.get("response")
    if answer.get("error") is not None or response is None:
        raise SkipError(Reason.BATCH_FAILED)
    if not isinstance(response, dict):
        raise exchange.invalid("/response", "is not an object")
    exchange.check_status(response.get("status_code"), "/response/status_code")
    body = response.get("body")
    if not isinstance(body, dict):
        raise exchange.invalid("/response/body", "is not an object")
    return body


def _message(result: JSONObject) -> JSONObject:
    """Return the message of Anthropic's answer. Raises as `_response`."""
    if result.get("type") in _FAILED:
        raise SkipError(Reason.BATCH_FAILED)
    message = result.get("message")
    if result.get("type") != "succeeded" or not isinstance(message, dict):
        raise exchange.invalid("/result", "is none that is known")
    return message


def _read(capture: Capture) -> Iterator[Found]:
    yield from _Output(capture).read()


INPUT = RecordFormat(
    name="batch-api-input",
    title="input of a batch API",
    sign="`custom_id` with `params`, or with `url` and `body`; or a list `requests` of these",
    recognises=_holds_requests,
    items=_items,
)

OUTPUT = SourceFormat(
    name="batch-api-output",
    title="output of a batch API",
    sign="`custom_id` with `response` or `result`",
    recognises=_is_answer,
    read=_read,
)

FORMATS = (INPUT, OUTPUT)
