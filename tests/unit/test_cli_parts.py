from __future__ import annotations

import pytest

from tapes_cli import settings
from tapes_cli.cli.console import visible
from tapes_cli.cli.places import place, pointer_path
from tapes_cli.model.records import Location


@pytest.mark.parametrize(
    ("pointer", "path"),
    [
        ("", ""),
        ("/response/message/content/1/type", "response.message.content[1].type"),
        ("/a~1b/~0c", "a/b.~c"),
        ("/0/x", "[0].x"),
    ],
)
def test_pointers_are_written_as_people_write_paths(pointer: str, path: str) -> None:
    assert pointer_path(pointer) == path


def test_places() -> None:
    assert place(Location("f", 3, 0)) == "f:3"
    batch = Location("f", 3, 0, 1, format="batch")
    assert place(batch, "/session/org_id") == "f:3: turns[1].session.org_id"
    assert (
        place(Location("f", 1, 0, 7, format="har"), "/session/org_id") == "f:1: [7].session.org_id"
    )
    assert place(Location("gone", 0, 0)) == "gone"


def test_hostile_text_is_made_visible() -> None:
    assert visible("a\x1b[2J\x00\u202e\n\t") == "a\\x1b[2J\\x00\\u202e\\n\\t"
    assert visible("a\n\tb", keep_newlines=True) == "a\n\tb"
    assert visible("é 漢") == "é 漢"


@pytest.mark.parametrize(
    ("option", "environ", "dsn", "origin"),
    [
        ("x", {"TAPES_DSN": "y"}, "x", "--dsn"),
        (None, {"TAPES_DSN": "y", "DATABASE_URL": "z"}, "y", "TAPES_DSN"),
        (None, {"TAPES_DSN": "", "DATABASE_URL": "z", "PGHOST": "h"}, "z", "DATABASE_URL"),
        (None, {"PGSERVICE": "s"}, "", "PGSERVICE"),
        (None, {}, None, "embedded"),
    ],
)
def test_the_database_is_chosen_in_one_order(
    option: str | None, environ: dict[str, str], dsn: str | None, origin: str
) -> None:
    chosen = settings.connection(option, environ)
    assert (chosen.dsn, chosen.origin, chosen.embedded) == (dsn, origin, dsn is None)


def test_colour_can_be_refused() -> None:
    assert settings.wants_color({"TERM": "xterm"})
    assert not settings.wants_color({"NO_COLOR": "1"})
    assert not settings.wants_color({"TERM": "dumb"})
