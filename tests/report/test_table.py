from __future__ import annotations

import dataclasses
import io

import pytest
from rich.console import Console

from report.examples import ALL_ROWS, FINETUNE, HEAD, ROWS, XBM
from xbm_jax.report import markdown_table, print_table


def printed(rows, *, width=80, terminal=False) -> list[str]:
    console = Console(file=io.StringIO(), width=width, force_terminal=terminal, color_system=None, legacy_windows=False)
    print_table(rows, console)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


def cells(lines: list[str], task: str) -> list[list[str]]:
    return [line.split() for line in lines if line.startswith(task)]


def test_numbers_stand_in_their_columns():
    lines = printed(ALL_ROWS)
    assert lines[1].split() == ["task", "method", *["%"] * 2, *["bits"] * 4, "written", "seconds", "img/s"]
    assert lines[0].split() == ["accuracy", "val", "mask", "norm", "head", "weight", "cells"]
    assert cells(lines, "fashion_mnist") == [
        ["fashion_mnist", "head_only", "60.7", "85.1", "0", "0", "20,800", "0", "0", "12.3", "1,234"],
        ["fashion_mnist", "xbm", "84.7", "85.1", "4,400", "88,064", "20,800", "0", "0", "12.3", "1,234"],
        ["fashion_mnist", "finetune", "89.9", "85.1", "0", "88,064", "20,800", "2,141,568", "535,392", "12.3", "1,234"],
    ]
    assert "\x1b" not in "".join(lines)


def test_weight_bits_only_where_weights_are_kept():
    assert "weight" not in "".join(printed(ROWS))
    assert cells(printed(ROWS), "quickdraw") == [
        ["quickdraw", "xbm", "77.0", "85.1", "4,400", "88,064", "20,800", "0", "12.3", "1,234"]
    ]


@pytest.mark.parametrize("width", [20, 80, 300])
def test_off_a_terminal_the_width_changes_nothing(width):
    assert printed(ALL_ROWS, width=width) == printed(ALL_ROWS, width=100)


@pytest.mark.parametrize(
    ("rows", "width", "left_out"),
    [
        (ALL_ROWS, 120, None),
        (ALL_ROWS, 80, "img/s, val %"),
        (ROWS, 80, None),
        (ROWS, 70, "img/s, val %"),
        (ROWS, 62, "img/s, val %, seconds"),
    ],
)
def test_narrow_terminal_gets_fewer_columns_but_whole_numbers(rows, width, left_out):
    lines = printed(rows, width=width, terminal=True)
    assert max(map(len, lines)) <= width
    assert "…" not in "".join(lines)
    assert lines[-1].startswith("(not shown") == (left_out is not None)
    if left_out is not None:
        assert lines[-1].endswith(f"columns: {left_out})")
    first = cells(lines, "fashion_mnist")[0]
    assert first[:3] == ["fashion_mnist", "head_only", "60.7"]
    assert "20,800" in first


def test_names_are_never_markup():
    odd = dataclasses.replace(XBM, task="[red]a|b*[/]")
    assert cells(printed([odd]), "[red]a|b*[/]")[0][1] == "xbm"
    assert "| \\[red]a\\|b\\*\\[/] | xbm |" in markdown_table([odd])


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("_red_", r"\_red\_"),
        ("a_b", "a_b"),
        ("a`b", r"a\`b"),
        ("&lt;", r"\&lt;"),
        ("~~a~~", r"\~\~a\~\~"),
        ("two\nlines", r"two\\nlines"),
    ],
)
def test_no_name_breaks_a_markdown_row(name, shown):
    lines = markdown_table([dataclasses.replace(XBM, task=name)]).splitlines()
    assert len(lines) == 3 and lines[2].startswith(f"| {shown} | xbm |")


def test_pictures_and_line_breaks_in_a_name_are_printed_as_they_are():
    odd = dataclasses.replace(XBM, task=":red_heart:\x1b[31m\n")
    assert cells(printed([odd]), ":red")[0][0] == r":red_heart:\x1b[31m\n"


def test_names_too_long_for_a_terminal_go_on_in_the_next_line():
    lines = printed([dataclasses.replace(XBM, task="very" * 30)], width=80, terminal=True)
    assert max(map(len, lines)) <= 80
    first = [line.split()[0] for line in lines if not line.startswith((" ", "task", "("))]
    assert "".join(word for word in first if set(word) <= set("very")) == "very" * 30
    assert any("4,400" in line and "20,800" in line for line in lines)


def test_no_rows_give_headings_alone():
    assert [line for line in printed([]) if "bits" in line or "task" in line]
    assert len(markdown_table([]).splitlines()) == 2


def test_markdown_has_the_same_cells():
    lines = markdown_table([HEAD, FINETUNE]).splitlines()
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert table[0] == [
        *("task", "method", "accuracy %", "val %", "mask bits", "norm bits", "head bits", "weight bits"),
        *("cells written", "seconds", "img/s"),
    ]
    assert table[1] == ["---"] * 2 + ["---:"] * 9
    assert table[2:] == cells(printed([HEAD, FINETUNE]), "fashion_mnist")
