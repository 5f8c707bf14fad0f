from __future__ import annotations

import dataclasses

import matplotlib as mpl
import pytest
from PIL import Image

from report.examples import ALL_ROWS, HEAD, QUICKDRAW, ROWS, XBM, points
from xbm_jax.errors import DataError, OutputError
from xbm_jax.report import accuracy_against_bits
from xbm_jax.storage import files


def test_png_is_whole_and_of_a_page_width(tmp_path):
    path = tmp_path / "runs" / "figure.png"
    accuracy_against_bits(ALL_ROWS, path)
    with Image.open(path) as image:
        image.load()
        assert image.format == "PNG"
        assert 800 <= image.width <= 2400 and 500 <= image.height <= 2000
        colours = image.convert("RGB").getcolors(maxcolors=1 << 20) or []
    present = {colour for _, colour in colours}
    assert {(0xD5, 0x5E, 0x00), (0x56, 0xB4, 0xE9), (0xCC, 0x79, 0xA7)} <= present  # xbm, head_only, finetune
    assert path.stat().st_size < 300_000


def test_same_rows_same_file_whatever_the_users_style(tmp_path):
    accuracy_against_bits(ROWS, tmp_path / "a.png")
    with mpl.rc_context({"font.size": 20, "axes.facecolor": "black"}):
        accuracy_against_bits(ROWS, tmp_path / "b.png")
        assert mpl.rcParams["font.size"] == 20
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_points_stand_at_their_accuracy_and_bits(tmp_path, drawn):
    accuracy_against_bits(ALL_ROWS, tmp_path / "figure.png")
    fashion, quickdraw, fashion_parts, quickdraw_parts = drawn[0].axes
    assert (fashion.get_title(), quickdraw.get_title()) == ("fashion_mnist", "quickdraw")
    assert fashion.get_xscale() == fashion_parts.get_xscale() == "log"
    assert points(fashion, "o") == {(20_800, 60.7), (113_264, 84.7), (2_250_432, 89.9)}
    assert points(quickdraw, "o") == {(113_264, 77.0)}
    assert [label.get_text() for label in fashion_parts.get_yticklabels()] == ["head_only", "xbm", "finetune"]
    assert points(fashion_parts, "D") == {(4_400, 1)}
    assert points(fashion_parts, "s") == {(88_064, 1), (88_064, 2)}
    assert points(fashion_parts, "o") == {(20_800, 0), (20_800, 1), (20_800, 2)}
    assert points(fashion_parts, "^") == {(2_141_568, 2)}
    assert points(fashion_parts, "|") == {(20_800, 0), (113_264, 1), (2_250_432, 2)}
    assert points(quickdraw_parts, "D") == {(4_400, 1)}


@pytest.mark.parametrize("rows", [ALL_ROWS, [HEAD], [dataclasses.replace(HEAD, accuracy=1.0, head_bits=1)]])
def test_every_point_is_inside_and_two_powers_of_ten_are_labelled(tmp_path, drawn, rows):
    accuracy_against_bits(rows, tmp_path / "figure.png")
    for axes in drawn[0].axes:
        (left, right), (low, high) = axes.get_xlim(), sorted(axes.get_ylim())
        assert all(left < line.get_xdata()[0] < right and low < line.get_ydata()[0] < high for line in axes.lines)
        assert sum(left <= tick <= right for tick in axes.get_xticks()) >= 2


def test_many_tasks_go_on_in_a_further_band(tmp_path, drawn):
    rows = [dataclasses.replace(XBM, task=f"task {i}") for i in range(6)]
    accuracy_against_bits(rows, tmp_path / "figure.png")
    assert [axes.get_title() for axes in drawn[0].axes if axes.get_title()] == [f"task {i}" for i in range(6)]
    rows_of_panels = {round(axes.get_position().y0, 3) for axes in drawn[0].axes}
    assert len(rows_of_panels) == 4


def test_methods_of_ones_own_get_colours_of_their_own(tmp_path, drawn):
    rows = [dataclasses.replace(XBM, method=name) for name in ("xbm", "ksm", "xma", "xma2", "mine", "yours")]
    accuracy_against_bits(rows, tmp_path / "figure.png")
    colours = [line.get_color() for line in drawn[0].axes[0].lines]
    assert colours[0] == "#D55E00" and len(set(colours)) == 6


def test_odd_names_are_drawn_as_they_are(tmp_path, drawn):
    odd = dataclasses.replace(XBM, task="日本 $x", method="$y^")
    long = dataclasses.replace(XBM, task="very" * 30)
    accuracy_against_bits([odd, long], tmp_path / "figure.png")
    titles = [axes.get_title() for axes in drawn[0].axes]
    assert titles[0] == "日本 $x"
    assert len(titles[1]) <= 36 and "…" in titles[1]


def test_odd_methods_stand_in_the_legend(tmp_path, drawn):
    names = ["_mine", r"$\frac$", "xbm[lr=2e-4]"]
    accuracy_against_bits([dataclasses.replace(XBM, method=name) for name in names], tmp_path / "figure.png")
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == names


def test_row_that_stores_nothing_is_no_error(tmp_path, drawn):
    nothing = dataclasses.replace(HEAD, head_bits=0)
    accuracy_against_bits([nothing, QUICKDRAW], tmp_path / "figure.png")
    assert points(drawn[0].axes[2], "|") == set()


def test_no_rows_is_an_error(tmp_path):
    with pytest.raises(DataError, match="rows"):
        accuracy_against_bits([], tmp_path / "figure.png")


def test_unwritable_place_is_named_and_the_old_figure_stays(tmp_path, monkeypatch):
    path = tmp_path / "figure.png"
    path.write_bytes(b"old")

    def full(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "_write_through", full)
    with pytest.raises(OutputError, match="No space left"):
        accuracy_against_bits([XBM], path)
    assert path.read_bytes() == b"old"
