"""Turn records: one provider request and its reduced response, the form that ingest accepts.

Fields and rules are the ingest specification's, section 1. Other formats give their turns this
form, so that what follows is written once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tapes_cli.capture.decode import check_nesting
from tapes_cli.capture.envelope import EnvelopeParser
from tapes_cli.capture.formats.base import Item, RecordFormat
from tapes_cli.capture.history import Histories, OpenedRecord
from tapes_cli.capture.providers import PROVIDERS, Provider
from tapes_cli.capture.providers.raw_response import reduce_raw
from tapes_cli.capture.providers.response import parse_response
from tapes_cli.capture.times import Fallback, capture_time
from tapes_cli.model.reasons import Reason
from tapes_cli.model.records import RejectError
from tapes_cli.model.turn import Turn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tapes_cli.model.json import JSONObject


def _is_turn(record: JSONObject) -> bool:
    return "provider" in record and "request" in record


def _resembles_turn(record: JSONObject) -> bool:
    return len(record.keys() & {"provider", "request", "response"}) > 1


def _items(record: JSONObject) -> Iterator[Item]:
    yield Item(record)


FORMAT = RecordFormat(
    name="turn-record",
    title="turn record",
    sign="`provider` and `request`",
    recognises=_is_turn,
    items=_items,
)

MALFORMED = RecordFormat(
    name="malformed-turn-record",
    title="turn record with a field missing",
    sign="two of `provider`, `request` and `response`",
    recognises=_resembles_turn,
    items=_items,
)
"""To be asked after the formats that have these fields, too."""


@dataclass(slots=True)
class TurnParser:
    """Parses turn records. Remembers histories and envelopes; not safe for threads.

    Attributes:
        project: the tag of every turn.
        envelopes: validates the sessions.
        histories: recognises what a session re-sends.
    """

    project: str = ""
    envelopes: EnvelopeParser = field(default_factory=EnvelopeParser)
    histories: Histories = field(default_factory=Histories)

    def parse(self, opened: OpenedRecord, fallback: Fallback) -> Turn:
        """Return the turn of a record.

        Args:
            opened: what the capture holds; anything but an object is rejected.
            fallback: the time of records that have none.

        Raises:
            RejectError: the record is no valid turn. The first fault in the order provider,
                agent name, request, response, session, meta.
            InexactNumberError: the line has to be decoded exactly.
            HistoryMismatchError: the record has to be read in full.
        """
        record = opened.value
        if not isinstance(record, dict):
            raise RejectError(Reason.NOT_OBJECT, "the record is not an object")
        provider = PROVIDERS.get(_provider_name(record))
        if provider is None:
            raise _unsupported_provider()
        agent_name = _agent_name(record)
        request = record.get("request")
        if not isinstance(request, dict):
            raise RejectError(
                Reason.REQUEST_INVALID, f"request {_fault(record, 'request')}", "/request"
            )
        history = opened.history
        if history is None:
            history = self.histories.messages(opened, request, provider)
        request_model = provider.model(request)
        response = parse_response(_response(record, provider))
        envelope = self.envelopes.parse(record.get("session"))
        captured = capture_time(
            _meta(record), response.created_at, record.get("received_at"), fallback
        )
        return Turn(
            provider=provider.name,
            history=history,
            response=response.message,
            captured=captured,
            request_model=request_model,
            response_model=response.model,
            stop_reason=response.stop_reason,
            usage=response.usage,
            agent_name=agent_name,
            project=self.project,
            envelope=envelope,
        )


def _response(record: JSONObject, provider: Provider) -> JSONObject:
    """Return the reduced response, reducing the provider's own if that is what there is."""
    response = record.get("response")
    if response is None and record.get("raw_response") is not None:
        return reduce_raw(record, provider)
    if not isinstance(response, dict):
        raise RejectError(
            Reason.RESPONSE_INVALID, f"response {_fault(record, 'response')}", "/response"
        )
    check_nesting(response, 1, "/response")
    return response


def _provider_name(record: JSONObject) -> str:
    name = record.get("provider")
    return name if isinstance(name, str) else ""


def _unsupported_provider() -> RejectError:
    supported = ", ".join(sorted(PROVIDERS))
    return RejectError(
        Reason.PROVIDER_UNSUPPORTED, f"provider is none of the supported {supported}", "/provider"
    )


def _agent_name(record: JSONObject) -> str:
    name = record.get("agent_name")
    if name is None:
        return ""
    if not isinstance(name, str):
        raise RejectError(Reason.RECORD_INVALID, "agent_name is not a string", "/agent_name")
    return name


def _meta(record: JSONObject) -> JSONObject:
    meta = record.get("meta")
    if meta is None:
        return {}
    if not isinstance(meta, dict):
        raise RejectError(Reason.RECORD_INVALID, "meta is not an object", "/meta")
    return meta


def _fault(record: JSONObject, name: str) -> str:
    return "is missing" if record.get(name) is None else "is not an object"
