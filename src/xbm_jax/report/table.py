"""The result table, on a console and in Markdown, and the table of an inspection."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from xbm_jax.report.rows import Row
from xbm_jax.tasks import Inspection

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

__all__ = ["markdown_table", "print_inspection", "print_table"]


class _Column(NamedTuple):
    """One column: its heading (broken in two lines on a console), its text for a row, and whether it holds numbers."""

    heading: str
    cell: Callable[[Any], str]
    numeric: bool = True


_COLUMNS = (
    _Column("task", lambda row: row.task, numeric=False),
    _Column("method", lambda row: row.method, numeric=False),
    _Column("accuracy %", lambda row: f"{100 * row.accuracy:.1f}"),
    _Column("val %", lambda row: f"{100 * row.val_accuracy:.1f}"),
    _Column("mask bits", lambda row: f"{row.mask_bits:,}"),
    _Column("norm bits", lambda row: f"{row.norm_bits:,}"),
    _Column("head bits", lambda row: f"{row.head_bits:,}"),
    _Column("weight bits", lambda row: f"{row.weight_bits_stored:,}"),
    _Column("cells written", lambda row: f"{row.cells_written:,}"),
    _Column("seconds", lambda row: f"{row.seconds:,.1f}"),
    _Column("img/s", lambda row: f"{row.images_per_second:,.0f}"),
)
_FIRST_TO_GO = ("img/s", "val %", "seconds")  # what a terminal too narrow for all goes without
_LAYER_FIRST_TO_GO = ("at tile, column", "at column", "worst clip %", "active %")


def print_table(rows: Sequence[Row], console: Console) -> None:
    """Print one line per row; the column ``weight bits`` only where a method keeps weights.

    A number is never cut: a narrow terminal gets narrow gaps, then fewer columns and a line that says which; what is
    not a terminal gets all columns at their natural width, whatever width it claims.
    """
    _print(_columns(rows), rows, _FIRST_TO_GO, console)


def print_inspection(inspection: Inspection, console: Console) -> None:
    """Print one line per layer, and below what was folded and why; wide or narrow as :func:`print_table`."""
    lines = [layer.cells() for layer in inspection.layers]
    headings = list(lines[0]) if lines else []
    columns = [_Column(h, lambda line, h=h: line[h], numeric=h not in ("layer", "read")) for h in headings]
    if lines:
        _print(columns, lines, _LAYER_FIRST_TO_GO, console)
    for note in inspection.notes():
        console.print(note, markup=False, highlight=False, soft_wrap=True)


def markdown_table(rows: Sequence[Row]) -> str:
    """The same table in Markdown."""
    columns = _columns(rows)
    lines = [[column.heading for column in columns]]
    lines.append(["---:" if column.numeric else "---" for column in columns])
    lines += [[_escaped(column.cell(row)) for column in columns] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _columns(rows: Sequence[Row]) -> tuple[_Column, ...]:
    keeps_weights = any(row.weight_bits_stored for row in rows)
    return tuple(column for column in _COLUMNS if keeps_weights or column.heading != "weight bits")


def _print(columns: Sequence[_Column], rows: Sequence[Any], first_to_go: Sequence[str], console: Console) -> None:
    """The table as wide as it needs to be, or without some of ``first_to_go`` on a narrow terminal."""
    shown, left_out = list(columns), []
    table = _rich_table(shown, rows, gap=1)
    if console.is_terminal and _width(table, console) > console.width:
        table = _rich_table(shown, rows, gap=0)
        for heading in first_to_go:
            if _width(table, console) <= console.width:
                break
            left_out.append(heading)
            table = _rich_table([column for column in shown if column.heading not in left_out], rows, gap=0)
    table.width = _width(table, console)
    console.print(table, crop=False, soft_wrap=True)
    if left_out:
        console.print(f"(not shown in {console.width} columns: {', '.join(left_out)})", markup=False, highlight=False)


def _rich_table(columns: Sequence[_Column], rows: Sequence[Any], gap: int) -> Table:
    """The table with ``gap`` more than one blank between columns; a line between the results of two tasks."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, gap, 0, 0))
    for column in columns:
        heading = Text(column.heading.replace(" ", "\n"))
        table.add_column(heading, justify="right" if column.numeric else "left", vertical="bottom", no_wrap=True)
    for index, row in enumerate(rows):
        if index and isinstance(row, Row) and row.task != rows[index - 1].task:
            table.add_section()
        # Text, not str: a folder called "[red]" is a name, not markup.
        table.add_row(*(Text(column.cell(row)) for column in columns))
    return table


def _width(table: Table, console: Console) -> int:
    """Columns that the table takes when nothing hems it in."""
    from rich.measure import Measurement

    return Measurement.get(console, console.options.update(width=10_000), table).maximum


def _escaped(text: str) -> str:
    """A Markdown cell that shows ``text`` as it is (an underscore inside a word needs no help)."""
    for character in "\\|<*`[":
        text = text.replace(character, "\\" + character)
    return text
