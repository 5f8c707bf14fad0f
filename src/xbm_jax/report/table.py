"""The result table, on a console and in Markdown, the table of an inspection and that of a bank."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from xbm_jax.banks import Generation
from xbm_jax.report.names import as_text
from xbm_jax.report.rows import Row
from xbm_jax.tasks import Inspection

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

__all__ = [
    "Column",
    "energy_note",
    "escaped",
    "markdown_table",
    "print_bank",
    "print_columns",
    "print_history",
]
__all__ += ["print_inspection", "print_line", "print_table"]


class Column(NamedTuple):
    """One column: its heading (broken in two lines on a console), its text for a row, and whether it holds numbers."""

    heading: str
    cell: Callable[[Any], str]
    numeric: bool = True


_COLUMNS = (
    Column("task", lambda row: row.task, numeric=False),
    Column("method", lambda row: row.method, numeric=False),
    Column("accuracy %", lambda row: f"{100 * row.accuracy:.1f}"),
    Column("val %", lambda row: f"{100 * row.val_accuracy:.1f}"),
    Column("mask bits", lambda row: f"{row.mask_bits:,}"),
    Column("norm bits", lambda row: f"{row.norm_bits:,}"),
    Column("head bits", lambda row: f"{row.head_bits:,}"),
    Column("weight bits", lambda row: f"{row.weight_bits_stored:,}"),
    Column("cells written", lambda row: f"{row.cells_written:,}"),
    Column("seconds", lambda row: f"{row.seconds:,.1f}"),
    Column("img/s", lambda row: f"{row.images_per_second:,.0f}"),
)
_ENERGY_COLUMNS = (
    Column("inference uJ", lambda row: f"{1e6 * row.inference_joules:.3g}" if row.technology else "-"),
    Column("adaption J", lambda row: f"{row.adaption_joules:.3g}" if row.technology else "-"),
    Column("switch uJ", lambda row: f"{1e6 * row.switch_joules:.3g}" if row.technology else "-"),
)
_FIRST_TO_GO = ("img/s", "val %", "seconds")  # what a terminal too narrow for all goes without
_BANK_COLUMNS = (
    Column("task", lambda entry: entry[0], numeric=False),
    Column("method", lambda entry: entry[1].get("method", {"name": "damaged"})["name"], numeric=False),
    Column("classes", lambda entry: str(entry[1].get("classes", "-"))),
    Column("test accuracy", lambda entry: _percent(entry[1].get("meta", {}).get("accuracy"))),
    Column("norms", lambda entry: entry[1].get("method", {"norms": "-"})["norms"], numeric=False),
)
_HISTORY_COLUMNS = (
    Column("generation", lambda entry: str(entry.number)),
    Column("", lambda entry: "current" if entry.current else "", numeric=False),
    Column("put", lambda entry: entry.time or "-", numeric=False),
    Column("what", lambda entry: _what(entry), numeric=False),
    Column("test accuracy", lambda entry: _percent(entry.accuracy)),
)
_BANK_FIRST_TO_GO = ("norms", "classes", "method")
_NAME = 20  # columns of a name that a terminal keeps before it goes without other columns
_LEAST_NAME = 8
_LAYER_FIRST_TO_GO = ("at tile, column", "at column", "worst clip %", "active %")


def print_table(rows: Sequence[Row], console: Console) -> None:
    """Print one line per row; the column ``weight bits`` only where a method keeps weights.

    Nothing is ever cut: a narrow terminal gets narrow gaps, then fewer columns and a line that says which, then names
    in several lines; what is not a terminal gets all columns at their natural width, whatever width it claims.
    """
    print_columns(_columns(rows), rows, _FIRST_TO_GO, console)
    if note := energy_note(rows):
        print_line(note, console)


def print_inspection(inspection: Inspection, console: Console) -> None:
    """Print one line per layer, and below what was folded and why; wide or narrow as :func:`print_table`."""
    lines = [layer.cells() for layer in inspection.layers]
    headings = list(lines[0]) if lines else []
    columns = [Column(h, lambda line, h=h: line[h], numeric=h not in ("layer", "read")) for h in headings]
    if lines:
        print_columns(columns, lines, _LAYER_FIRST_TO_GO, console)
    for note in inspection.notes():
        print_line(note, console)


def print_bank(title: str, tasks: Mapping[str, Any], console: Console, note: str = "") -> None:
    """Print title, note and one line per task of what :func:`~xbm_jax.banks.describe` says, damaged ones too."""
    print_line(title, console)
    if note:
        print_line(f"({note})", console)
    print_columns(_BANK_COLUMNS, list(tasks.items()), _BANK_FIRST_TO_GO, console)


def print_history(generations: Sequence[Generation], console: Console) -> None:
    """Print one line per generation of a task, newest first."""
    print_columns(_HISTORY_COLUMNS, generations, (), console)


def _what(generation: Generation) -> str:
    if generation.error is not None:
        return "damaged"
    return "removed" if generation.removed else generation.method or "-"


def markdown_table(rows: Sequence[Row]) -> str:
    """The same table in Markdown."""
    columns = _columns(rows)
    lines = [[column.heading for column in columns]]
    lines.append(["---:" if column.numeric else "---" for column in columns])
    lines += [[escaped(column.cell(row)) for column in columns] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _columns(rows: Sequence[Row]) -> tuple[Column, ...]:
    keeps_weights = any(row.weight_bits_stored for row in rows)
    energies = _ENERGY_COLUMNS if any(row.technology for row in rows) else ()
    return (*(column for column in _COLUMNS if keeps_weights or column.heading != "weight bits"), *energies)


def energy_note(rows: Sequence[Row]) -> str:
    """Whose energies a table shows, and under which assumptions; empty where it shows none."""
    names = ", ".join(dict.fromkeys(row.technology for row in rows if row.technology))
    told = "every input at full scale, cells written once at the end; what is not counted: xbm cost"
    return f"Energies by {names}: of one example, of learning, of switching to the task; {told}." if names else ""


def print_line(text: str, console: Console) -> None:
    """A line as it is; of a str, rich would still turn ``:x:`` into a picture."""
    from rich.text import Text

    console.print(Text(as_text(text)), soft_wrap=True)


def print_columns(columns: Sequence[Column], rows: Sequence[Any], first_to_go: Sequence[str], console: Console) -> None:
    """The table as wide as it needs to be, or without some of ``first_to_go`` on a narrow terminal."""
    table, left_out = _rich_table(columns, rows, gap=1), []
    natural = _width(table, console)
    table.width = natural
    if console.is_terminal and natural > console.width:
        table, left_out = _narrow(columns, rows, first_to_go, console)
    console.print(table, crop=False, soft_wrap=True)
    if left_out:
        print_line(f"(not shown in {console.width} columns: {', '.join(left_out)})", console)


def _narrow(
    columns: Sequence[Column], rows: Sequence[Any], first_to_go: Sequence[str], console: Console
) -> tuple[Table, list[str]]:
    """The table as a narrow console has room for it, and the columns that it goes without."""
    left_out: list[str] = []
    for heading in first_to_go:
        if _width(_rich_table(columns, rows, 0, _NAME), console) <= console.width:
            break
        left_out.append(heading)
        columns = [column for column in columns if column.heading != heading]
    least = _width(_rich_table(columns, rows, 0, _LEAST_NAME), console)
    table = _rich_table(columns, rows, 0, console.width)
    table.width = max(least, min(console.width, _width(table, console)))
    return table, left_out


def _rich_table(columns: Sequence[Column], rows: Sequence[Any], gap: int, longest: int | None = None) -> Table:
    """The table with ``gap`` more than one blank between columns; a line between the results of two tasks.

    Names longer than ``longest`` characters go on in the next line; numbers never do.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, gap, 0, 0))
    lines = max(column.heading.count(" ") for column in columns)
    for column in columns:  # headings stand at the bottom, all else at the top
        heading = Text("\n" * (lines - column.heading.count(" ")) + column.heading.replace(" ", "\n"))
        if column.numeric:
            table.add_column(heading, justify="right", no_wrap=True)
        else:
            table.add_column(heading, overflow="fold", no_wrap=longest is None, max_width=longest)
    for index, row in enumerate(rows):
        if index and isinstance(row, Row) and row.task != rows[index - 1].task:
            table.add_section()
        # Text, not str: a folder called "[red]" is a name, not markup.
        table.add_row(*(Text(as_text(column.cell(row))) for column in columns))
    return table


def _width(table: Table, console: Console) -> int:
    """Columns that the table takes when nothing hems it in."""
    from rich.measure import Measurement

    return Measurement.get(console, console.options.update(width=10_000), table).maximum


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def escaped(text: str) -> str:
    """Markdown that shows ``text`` as it is, in one line (an underscore inside a word needs no help)."""
    return re.sub(r"[\\|<*`\[&~$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\\g<0>", as_text(text))
