"""`tapes-cli formats`: the capture formats that can be imported."""

from typing import TYPE_CHECKING, Any

from tapes_cli.cli.console import console, write_document, write_json
from tapes_cli.cli.options import DebugOption, NoColorOption, Output, OutputOption

if TYPE_CHECKING:
    from rich.table import Table

    from tapes_cli.capture.formats.base import AnyFormat


def formats(
    output: OutputOption = Output.TEXT,
    no_color: NoColorOption = False,
    debug: DebugOption = False,
) -> None:
    """List the capture formats that can be imported, and what identifies each.

    A format is found by content, whatever the file is called. `--format NAME` of import and
    validate overrides that. Other Python packages can add formats.

    \b
    tapes-cli formats
    tapes-cli formats -o jsonl
    """
    from tapes_cli.capture.formats import supported  # noqa: PLC0415  # keeps start-up fast

    del debug
    found = supported()
    records = [_record(each) for each in found]
    if output is Output.JSON:
        write_document(records, {"type": "summary", "command": "formats", "formats": len(found)})
    elif output is Output.JSONL:
        for record in records:
            write_json(record)
    else:
        console(no_color=no_color).print(_table(found))


def _record(found: "AnyFormat") -> dict[str, Any]:
    return {
        "type": "format",
        "name": found.name,
        "title": found.title,
        "sign": found.sign,
        "unit": found.unit,
        "lossy": found.lossy,
    }


def _table(found: "list[AnyFormat]") -> "Table":
    from rich.table import Table  # noqa: PLC0415  # keeps start-up fast
    from rich.text import Text  # noqa: PLC0415  # as above

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("FORMAT", no_wrap=True)
    table.add_column("IDENTIFIED BY")
    for each in found:
        notes = "; lossy" if each.lossy else ""
        notes += "; not for --format" if each.unit == "folder" else ""
        table.add_row(Text(each.name, "cyan"), Text(f"{each.sign}{notes}"))
    return table
