from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapes_cli.model.envelope import NIL_ORG, SessionKey
from tapes_cli.store.sanitise import Clean, clean_key, clean_text, is_clean, to_jsonb
from tests.support.turns import make_turn, session

REFUSED = "\x00\ud800\udfff"
texts = st.text(st.characters() | st.sampled_from(REFUSED))
values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=10,
)


@given(value=values)
def test_nothing_that_postgresql_refuses_is_left(value: object) -> None:
    clean = to_jsonb(value)
    stored = json.loads(clean.value)
    assert not any(c in json.dumps(stored, ensure_ascii=False) for c in REFUSED)
    assert "\\u0000" not in json.dumps(stored).replace("\\\\", "")
    if not clean.changed:
        assert stored == value


def test_sound_values_stay_as_they_are() -> None:
    assert to_jsonb([{"a": "é", "b": 2**70, "c": "\\u0000"}]) == Clean(
        '[{"a":"é","b":1180591620717411303424,"c":"\\\\u0000"}]', changed=False
    )


@pytest.mark.parametrize("levels", [300, 890])
def test_deep_values_are_cleaned(levels: int) -> None:
    deep: object = "a\0"
    for _ in range(levels // 2):
        deep = {"k\0": [deep]}
    clean = to_jsonb(deep)
    assert clean.changed
    assert clean.value.count("\ufffd") == levels // 2 + 1


def test_text_and_keys() -> None:
    assert clean_text("a\0\ud800") == Clean("a\ufffd\ufffd", changed=True)
    key = SessionKey(NIL_ORG, "h\0", "s\udc00")
    assert clean_key(key) == SessionKey(NIL_ORG, "h\ufffd", "s\ufffd")


def test_a_turn_is_clean_or_not() -> None:
    for words, envelope, clean in (
        (["a", "b"], session(), True),
        (["a\0", "b"], session(), False),
        (["a", "b"], session(name="\0"), False),
        (["a", "b"], session(harness_metadata={"\ud800": 1}), False),
        (["a", "b"], session(parent=("claude", "\0")), False),
    ):
        turn = make_turn(words, 0, envelope)
        assert is_clean(turn, turn.chain.nodes) is clean
