from __future__ import annotations

import subprocess
import sys
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapes_cli.capture.decode import InexactNumberError
from tapes_cli.capture.envelope import MEMO_ENTRIES, EnvelopeParser
from tapes_cli.model.envelope import NIL_ORG, Envelope
from tapes_cli.model.reasons import Reason
from tapes_cli.model.records import RejectError

ORG = UUID("0123abcd-4567-89ef-0123-456789abcdef")
TEXT_FIELDS = (
    "auth_subject",
    "harness_id",
    "harness_session_id",
    "harness_version",
    "cwd",
    "name",
    "parent_harness_session_id",
    "parent_harness_id",
)


def parse(**fields: Any) -> Envelope:
    envelope = EnvelopeParser().parse(fields)
    assert envelope is not None
    return envelope


def reject(session: Any) -> tuple[Reason, str]:
    with pytest.raises(RejectError) as caught:
        EnvelopeParser().parse(session)
    assert "s3cret" not in caught.value.message
    return caught.value.reason, caught.value.pointer


def test_whole_envelope() -> None:
    assert parse(
        org_id=str(ORG),
        auth_subject="a",
        harness_id="claude",
        harness_session_id="s",
        harness_version="1",
        cwd="/",
        name="n",
        parent_harness_session_id="p",
        harness_metadata={"k": [1]},
        surplus=1,
    ) == Envelope(ORG, "a", "claude", "s", "1", "/", "n", ("claude", "p"), {"k": [1]})


def test_no_envelope() -> None:
    assert EnvelopeParser().parse(None) is None


def test_nulls_are_absent() -> None:
    names = [*TEXT_FIELDS, "org_id"]
    assert parse(**dict.fromkeys(names)) == parse() == Envelope()
    assert parse().org_id == NIL_ORG


@pytest.mark.parametrize("session", [[], "s3cret", 0, False, 1.5])
def test_envelope_must_be_an_object(session: Any) -> None:
    assert reject(session) == (Reason.SESSION_INVALID, "/session")


@pytest.mark.parametrize(
    "text",
    [
        str(ORG),
        str(ORG).upper(),
        ORG.hex,
        ORG.hex.upper(),
        ORG.urn,
        ORG.urn.upper(),
        f"{{{ORG}}}",
    ],
)
def test_forms_of_org_id(text: str) -> None:
    assert parse(org_id=text).org_id == ORG


@pytest.mark.parametrize(
    "value",
    [
        "s3cret",
        " ",
        f" {ORG}",
        f"{ORG}\n",
        f"{{{ORG}",
        f"{ORG}}}",
        f"{{{ORG.hex}}}",
        f"urn:uuid:{ORG.hex}",
        str(ORG)[:-1],
        ORG.hex[:8] + "-" + ORG.hex[8:],
        str(ORG).replace("0", "\u0660"),
        "\ud800",
        5,
        True,
        [],
        {},
    ],
)
def test_org_id_must_be_a_uuid(value: Any) -> None:
    assert reject({"org_id": value}) == (Reason.ORG_ID_INVALID, "/session/org_id")


def test_default_org_applies_where_none_is_named() -> None:
    parser = EnvelopeParser(ORG)
    for fields in ({}, {"org_id": ""}, {"org_id": None}):
        envelope = parser.parse(fields)
        assert envelope is not None
        assert envelope.org_id == ORG
    named = parser.parse({"org_id": str(NIL_ORG)})
    assert named is not None
    assert named.org_id == NIL_ORG
    assert parser.parse(None) is None


@pytest.mark.parametrize("value", [1, True, 1.5, ["s3cret"], {"s3cret": 1}])
@pytest.mark.parametrize("name", TEXT_FIELDS)
def test_text_must_be_text(name: str, value: Any) -> None:
    assert reject({name: value}) == (Reason.SESSION_INVALID, f"/session/{name}")


@pytest.mark.parametrize("value", [None, [], "s3cret", 0, True])
def test_metadata_must_be_an_object(value: Any) -> None:
    expected = (Reason.METADATA_INVALID, "/session/harness_metadata")
    assert reject({"harness_metadata": value}) == expected


def test_message_is_one_clear_sentence() -> None:
    with pytest.raises(RejectError, match=r"^org_id is not a UUID$"):
        EnvelopeParser().parse({"org_id": "s3cret"})
    with pytest.raises(RejectError, match=r"^org_id is not a UUID$"):
        EnvelopeParser().parse({"org_id": 5})
    with pytest.raises(RejectError, match=r"^cwd is not a string$"):
        EnvelopeParser().parse({"cwd": 5})


@pytest.mark.parametrize("blank", ["", " ", "\t\n", "\u3000"])
def test_blank_text_is_absent(blank: str) -> None:
    envelope = parse(harness_version=blank, cwd=blank, name=blank)
    assert (envelope.harness_version, envelope.cwd, envelope.name) == ("", "", "")


def test_text_is_kept_as_it_is() -> None:
    envelope = parse(harness_id="h", harness_session_id=" ", auth_subject=" ", name=" n ")
    assert envelope.harness_session_id == " "
    assert not envelope.synthetic
    assert (envelope.auth_subject, envelope.name) == (" ", " n ")


def test_lone_surrogates_are_kept() -> None:
    envelope = parse(harness_id="h\ud800", name="\ud800", harness_metadata={"\ud800": "\udfff"})
    assert (envelope.harness_id, envelope.name) == ("h\ud800", "\ud800")
    assert envelope.harness_metadata == {"\ud800": "\udfff"}
    assert parse(**{"\ud800": 1}) == Envelope()


@pytest.mark.parametrize("harness", ["", "unknown", None])
def test_unknown_harness_ignores_the_session_id(harness: str | None) -> None:
    envelope = parse(harness_id=harness, harness_session_id="s", parent_harness_session_id="s")
    assert envelope.harness_session_id == ""
    assert envelope.synthetic
    assert envelope.parent == ("unknown", "s")


def test_names_of_harnesses_are_exact() -> None:
    envelope = parse(harness_id="Unknown", harness_session_id="s")
    assert (envelope.harness_id, envelope.harness_session_id) == ("Unknown", "s")


class TestParent:
    def test_empty_parent(self) -> None:
        expected = (Reason.PARENT_EMPTY, "/session/parent_harness_session_id")
        assert reject({"parent_harness_session_id": ""}) == expected

    def test_parent_of_another_harness(self) -> None:
        envelope = parse(
            harness_id="cursor",
            harness_session_id="s",
            parent_harness_session_id="s",
            parent_harness_id="claude",
        )
        assert envelope.parent == ("claude", "s")

    def test_parent_harness_without_a_parent(self) -> None:
        expected = (Reason.PARENT_HARNESS_ALONE, "/session/parent_harness_id")
        assert reject({"parent_harness_id": "claude"}) == expected
        assert parse(parent_harness_id="").parent is None

    @pytest.mark.parametrize("harness", [None, "", "h"])
    def test_parent_of_itself(self, harness: str | None) -> None:
        session = {
            "harness_id": "h",
            "harness_session_id": "s",
            "parent_harness_session_id": "s",
            "parent_harness_id": harness,
        }
        assert reject(session) == (Reason.PARENT_SELF, "/session/parent_harness_session_id")


class TestMetadata:
    def test_large_integers_ask_for_an_exact_pass(self) -> None:
        with pytest.raises(InexactNumberError):
            parse(harness_metadata={"a": [1e30]})
        assert parse(harness_metadata={"a": [10**30]}).harness_metadata == {"a": [10**30]}

    def test_deep_nesting(self) -> None:
        value: list[Any] = []
        for _ in range(950):
            value = [value]
        expected = (Reason.NESTING_TOO_DEEP, "/session/harness_metadata")
        assert reject({"harness_metadata": {"a": value}}) == expected


class TestMemory:
    def test_equal_envelopes_are_validated_once(self) -> None:
        parser = EnvelopeParser()
        first = parser.parse({"harness_id": "h"})
        assert parser.parse({"harness_id": "h"}) is first

    def test_likeness_is_not_equality(self) -> None:
        parser = EnvelopeParser()
        for value in (True, 1, 1.0):
            envelope = parser.parse({"harness_metadata": {"a": value}})
            assert envelope is not None
            assert type(envelope.harness_metadata["a"]) is type(value)

    def test_memory_is_bounded(self) -> None:
        parser = EnvelopeParser()
        first = parser.parse({"name": "0"})
        for number in range(1, MEMO_ENTRIES + 1):
            parser.parse({"name": str(number)})
        assert parser.parse({"name": "0"}) is not first
        large = {"harness_metadata": {"a": "x" * 100_000}}
        assert parser.parse(large) is not parser.parse(large)

    @settings(max_examples=100, deadline=None)
    @given(
        st.dictionaries(
            st.sampled_from(
                ["org_id", "harness_id", "harness_session_id", "parent_harness_session_id", "name"]
            ),
            st.sampled_from(["", " ", "a", "unknown", ORG.hex, None, 1]),
        )
    )
    def test_memory_changes_no_answer(self, session: dict[str, Any]) -> None:
        def answer(parser: EnvelopeParser) -> Any:
            try:
                return parser.parse(session)
            except RejectError as error:
                return error.reason, error.pointer

        parser = EnvelopeParser()
        assert answer(parser) == answer(parser) == answer(EnvelopeParser())


def test_pydantic_is_loaded_when_needed() -> None:
    code = "import sys, tapes_cli.capture.envelope; sys.exit('pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
