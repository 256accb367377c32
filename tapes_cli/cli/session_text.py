"""How sessions are listed and named for people. All text of a capture passes through `visible`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from rich.cells import cell_len, set_cell_size
from rich.table import Table
from rich.text import Text

from tapes_cli.cli.console import visible
from tapes_cli.inspection.sessions import ListedSession, short_id
from tapes_cli.store.postgres.queries import SessionRow

_NARROW, _ROOMY = 72, 100
_HARNESS_CELLS = 10
_SESSION_CELLS = 9
_LABEL_CELLS = 60
_TITLE_CHARACTERS = 1_000
_STEP, _ONE_DIGIT = 1_000, 10


@dataclass(frozen=True, slots=True)
class _Column:
    """A column of the list; one that is not `needed` is left out on a narrow terminal."""

    heading: str
    cell: Callable[[ListedSession], Text]
    justify: Literal["left", "right"] = "left"
    needed: bool = True


def session_table(sessions: Sequence[ListedSession], width: int) -> Table:
    """Return the sessions as a table for a terminal so wide: titles give way, ids never do."""
    gap = 2 if width >= _ROOMY else 1
    table = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="bold")
    columns = [column for column in _COLUMNS if column.needed or width >= _NARROW]
    for column in columns:
        table.add_column(column.heading, justify=column.justify, no_wrap=column.cell is not _title)
    for session in sessions:
        style = "dim" if session.row.placeholder else None
        table.add_row(*(column.cell(session) for column in columns), style=style)
    return table


def _id(session: ListedSession) -> Text:
    return Text(short_id(session.row.id), "cyan")


def _last_seen(session: ListedSession) -> Text:
    return Text(f"{session.row.last_seen_at:%Y-%m-%d %H:%M}")


def _harness(session: ListedSession) -> Text:
    return Text(cut(visible(session.row.harness_id), _HARNESS_CELLS))


def _session(session: ListedSession) -> Text:
    return Text(middle_cut(visible(session.row.harness_session_id), _SESSION_CELLS))


def _turns(session: ListedSession) -> Text:
    return Text(str(session.row.turn_count))


def _tokens(session: ListedSession) -> Text:
    row = session.row
    return Text(f"{rounded(row.total_input_tokens)}/{rounded(row.total_output_tokens)}")


def _title(session: ListedSession) -> Text:
    text = "(placeholder)" if session.row.placeholder else shown_title(session) or "-"
    mark = "↳ " if session.row.parent_session_id else ""
    return Text(f"{mark}{text}", no_wrap=True, overflow="ellipsis")


_COLUMNS = (
    _Column("ID", _id),
    _Column("LAST SEEN (UTC)", _last_seen),
    _Column("HARNESS", _harness),
    _Column("SESSION", _session, needed=False),
    _Column("TURNS", _turns, "right", needed=False),
    _Column("TOKENS", _tokens, "right", needed=False),
    _Column("TITLE", _title),
)


def shown_title(session: ListedSession) -> str:
    """Return a session's title, without what no terminal is wide enough for."""
    return visible(session.title[:_TITLE_CHARACTERS])


def label(row: SessionRow) -> str:
    """Return how a session is named in passing: short id, harness, its id there."""
    mark = ", a placeholder" if row.placeholder else ""
    known_as = middle_cut(visible(row.harness_session_id), _LABEL_CELLS)
    return f"{short_id(row.id)} ({visible(row.harness_id)} {known_as}{mark})"


def moment(at: datetime) -> str:
    """Return a UTC time to the second."""
    return f"{at:%Y-%m-%d %H:%M:%S}"


def rounded(number: int) -> str:
    """Return a count in at most four characters: 999, 1.2k, 34k, 5.6M, 7.8G."""
    scaled: float = number
    units = iter("kMG")
    unit = ""
    while round(scaled) >= _STEP and (larger := next(units, "")):
        scaled, unit = scaled / _STEP, larger
    decimals = 1 if unit and round(scaled, 1) < _ONE_DIGIT else 0
    return f"{scaled:.{decimals}f}{unit}"


def cut(text: str, cells: int) -> str:
    """Return text in at most so many columns, with a … where something was cut off."""
    return text if cell_len(text) <= cells else set_cell_size(text, cells - 1).rstrip() + "…"


def middle_cut(text: str, cells: int) -> str:
    """Return both ends of text that is wider than so many columns."""
    if cell_len(text) <= cells:
        return text
    end = set_cell_size(text[::-1], (cells - 1) // 2)[::-1]
    return f"{set_cell_size(text, cells - 1 - (cells - 1) // 2)}…{end}"
