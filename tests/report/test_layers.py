from __future__ import annotations

import dataclasses
import io

import pytest
from PIL import Image
from rich.console import Console

from report.examples import INSPECTION, points
from xbm_jax.errors import DataError
from xbm_jax.report import draw_inspection, print_inspection


def printed(inspection, *, width=200, terminal=False) -> list[str]:
    console = Console(file=io.StringIO(), width=width, force_terminal=terminal, color_system=None, legacy_windows=False)
    print_inspection(inspection, console)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


def test_every_layer_has_its_line_and_the_reasons_stand_below():
    lines = printed(INSPECTION)
    rows = [line.split() for line in lines if line.startswith(("stem ", "[red]conv "))]
    assert rows == [
        ["stem", "folded", "41.2", "38.0", "3", "-", "-", "-", "-", "100.0"],
        ["[red]conv", "simulated", "24.4", "11.0", "7", "0.25", "12.5", "1,", "6", "200", "of", "256", "75.0"],
    ]
    assert lines[-3:] == [
        "net, 1,000 images; multiply-accumulates: 25.0% folded exactly, 75.0% simulated",
        "stem: folded, ideal converter",
        "[red]conv: simulated, 8-bit converter whose step is not one level",
    ]


def test_many_reasons_are_cut_short():
    layers = tuple(dataclasses.replace(INSPECTION.layers[1], path=f"c{i}", fold_reason=f"sum {i}") for i in range(6))
    many = dataclasses.replace(INSPECTION, layers=layers, folded_share=0.0, simulated_share=1.0)
    assert many.notes()[1:] == [
        *(f"c{i}: simulated, sum {i}" for i in range(4)),
        "2 more layers, each for its own fold_reason",
    ]


def test_a_narrow_terminal_goes_without_some_columns():
    lines = printed(INSPECTION, width=60, terminal=True)
    table = lines[:-4]
    assert max(map(len, table)) <= 60 and "…" not in "".join(table)
    assert lines[-4].startswith("(not shown in 60 columns: at tile, column")
    assert any(line.split()[:3] == ["[red]conv", "simulated", "24.4"] for line in table)


def test_dots_stand_at_what_was_found(tmp_path, drawn):
    draw_inspection(INSPECTION, tmp_path / "inspection.png")
    snr, clip, codes = drawn[0].axes
    assert [label.get_text() for label in snr.get_yticklabels()] == ["stem", "[red]conv"]
    assert points(snr, "o") == {(41.2, 0), (38.0, 0), (24.4, 1), (11.0, 1)}
    assert points(clip, "o") == {(0.25, 1), (12.5, 1)}  # per cent; a folded layer has no conversions
    assert points(codes, "o") == {(100 * 200 / 256, 1)}
    colours = {line.get_ydata()[0]: line.get_markeredgecolor() for line in snr.lines if line.get_markersize() < 5}
    assert colours == {0: "#0072B2", 1: "#D55E00"}
    for axes in drawn[0].axes:
        assert all(axes.get_xlim()[0] < line.get_xdata()[0] < axes.get_xlim()[1] for line in axes.lines)
    with Image.open(tmp_path / "inspection.png") as image:
        image.load()
        assert image.format == "PNG" and 800 <= image.width <= 2400


def test_same_inspection_same_file(tmp_path):
    for name in ("a.png", "b.png"):
        draw_inspection(INSPECTION, tmp_path / name)
    # Without a place it is given alone, for a notebook.
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes() == draw_inspection(INSPECTION)


def test_a_chip_without_layers_is_printed_but_not_drawn(tmp_path):
    nothing = dataclasses.replace(INSPECTION, layers=(), folded_share=0.0, simulated_share=0.0)
    assert printed(nothing) == str(nothing).splitlines()
    with pytest.raises(DataError, match="at least one layer"):
        draw_inspection(nothing, tmp_path / "inspection.png")
