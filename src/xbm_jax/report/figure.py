"""Accuracy against stored bits, as a picture."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from xbm_jax.errors import DataError
from xbm_jax.report.names import method_colours, shortened
from xbm_jax.report.rows import Row
from xbm_jax.storage.files import replace_file

__all__ = ["DPI", "FAINT", "INK", "accuracy_against_bits", "drawn", "figure_png", "plain_axes"]

# Field, name in the legend, marker.
_PARTS = (
    ("mask_bits", "mask bits", "D"),
    ("weight_bits_stored", "weight bits", "^"),
    ("norm_bits", "norm bits", "s"),
    ("head_bits", "head bits", "o"),
)
INK, FAINT = "#333333", "#D9D9D9"
_PANELS_PER_BAND = 4
DPI = 150


def accuracy_against_bits(rows: Sequence[Row], path: str | Path | None = None) -> bytes:
    """Draw a PNG: per task, accuracy against all stored bits, and below, on the same log axis, what they consist of.

    The parts are dots, not stacked bars: on a log axis a stack's upper part looks small whatever it is. A part of no
    bits has no dot. The same rows give the same file, which is written to ``path``, if given.

    Raises:
        DataError: no rows.
        OutputError: ``path`` cannot be written.
    """
    if not rows:
        raise DataError("rows", [], "at least one row")
    return drawn(lambda: _draw(rows), path)


def drawn(draw: Callable[[], Any], path: str | Path | None) -> bytes:
    """The PNG of the figure that ``draw`` makes, also written to ``path`` where there is one."""
    png = figure_png(draw)
    if path is not None:
        replace_file(path, png)
    return png


def figure_png(draw: Callable[[], Any]) -> bytes:
    """The PNG of the figure that ``draw`` makes, whatever the user's matplotlibrc says."""
    from matplotlib import style

    with style.context("default"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)  # a task's name in a script the font lacks
        buffer = io.BytesIO()
        draw().savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()


def _draw(rows: Sequence[Row]) -> Any:
    from matplotlib.figure import Figure

    tasks, methods = _unique(row.task for row in rows), _unique(row.method for row in rows)
    colours = method_colours(methods)
    across = min(len(tasks), _PANELS_PER_BAND)
    bands = math.ceil(len(tasks) / across)
    parts_height = 0.5 + 0.26 * len(methods)
    size = (max(5.6, 1.4 + 2.9 * across), 1.0 + bands * (3.0 + parts_height))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(
        2 * bands, across, sharex=True, squeeze=False, gridspec_kw={"height_ratios": [2.7, parts_height] * bands}
    )
    for index in range(bands * across):
        band, column = divmod(index, across)
        above, below = axes[2 * band][column], axes[2 * band + 1][column]
        if index >= len(tasks):
            above.remove()
            below.remove()
            continue
        own = [row for row in rows if row.task == tasks[index]]
        _accuracy_panel(above, own, colours, _accuracy_limits(rows), first=column == 0)
        _parts_panel(below, own, methods, colours, first=column == 0)
        above.set_title(shortened(tasks[index]), fontsize=10, color=INK, parse_math=False)
    _bits_axis(axes[0][0], rows)
    _legends(figure, rows, colours)
    return figure


def _accuracy_panel(axes: Any, rows: Sequence[Row], colours: dict[str, str], limits: Any, *, first: bool) -> None:
    for row in rows:
        axes.plot(row.stored_bits, 100 * row.accuracy, "o", ms=8, color=colours[row.method], mec="white", mew=0.8)
    axes.set_ylim(*limits)
    plain_axes(axes)
    axes.grid(axis="y", color=FAINT, lw=0.6)
    axes.tick_params(labelleft=first, labelbottom=False)
    if first:
        axes.set_ylabel("test accuracy, %", fontsize=9, color=INK)


def _parts_panel(
    axes: Any, rows: Sequence[Row], methods: Sequence[str], colours: dict[str, str], *, first: bool
) -> None:
    """One line per method: a dot for each part, a bar across for their sum, which stands under the point above."""
    for row in rows:
        line, colour = methods.index(row.method), colours[row.method]
        parts = [(getattr(row, field), marker) for field, _, marker in _PARTS if getattr(row, field)]
        if not parts:
            continue
        axes.hlines(line, min(bits for bits, _ in parts), row.stored_bits, color=colour, lw=1, alpha=0.5)
        axes.plot(row.stored_bits, line, "|", ms=13, mew=2, color=colour)
        for bits, marker in parts:
            axes.plot(bits, line, marker, ms=5.5, mfc="white", mec=colour, mew=1.4)
    axes.set_ylim(len(methods) - 0.4, -0.6)
    axes.set_yticks(range(len(methods)), methods if first else [""] * len(methods), parse_math=False)
    plain_axes(axes)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(labelbottom=True)
    axes.set_xlabel("stored bits", fontsize=9, color=INK)


def plain_axes(axes: Any) -> None:
    """What the panels share: no frame, faint lines at powers of ten."""
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#999999")
    axes.tick_params(labelsize=8, colors=INK, which="both")
    axes.grid(axis="x", color=FAINT, lw=0.6)


def _bits_axis(axes: Any, rows: Sequence[Row]) -> None:
    """The log axis of all panels: room for the markers, and two powers of ten at least, which alone are labelled."""
    from matplotlib.ticker import NullFormatter

    counts = [getattr(row, field) for row in rows for field, _, _ in _PARTS] + [row.stored_bits for row in rows]
    counts = [count for count in counts if count] or [1]
    axes.set_xscale("log")
    axes.xaxis.set_minor_formatter(NullFormatter())
    low, high = min(counts) / 1.8, max(counts) * 1.8
    if math.floor(math.log10(high)) - math.ceil(math.log10(low)) < 1:
        low, high = min(low, 10.0 ** math.floor(math.log10(min(counts)))), 10.0 ** math.ceil(math.log10(high))
    axes.set_xlim(low, high)


def _accuracy_limits(rows: Sequence[Row]) -> tuple[float, float]:
    """Per cent; the same for every task, so that panels compare."""
    shares = [100 * row.accuracy for row in rows]
    return max(-2.0, 10 * math.floor(min(shares) / 10 - 0.3)), min(102.0, 10 * math.ceil(max(shares) / 10 + 0.3))


def _legends(figure: Any, rows: Sequence[Row], colours: dict[str, str]) -> None:
    from matplotlib.lines import Line2D

    methods = [Line2D([], [], marker="o", ls="", ms=8, color=c, mec="white", label="-") for c in colours.values()]
    parts = [
        Line2D([], [], marker=marker, ls="", ms=5.5, mfc="white", mec=INK, mew=1.4, label=label)
        for field, label, marker in _PARTS
        if any(getattr(row, field) for row in rows)
    ]
    parts.append(Line2D([], [], marker="|", ls="", ms=11, mew=2, color=INK, label="all bits"))
    style: dict[str, Any] = {"fontsize": 9, "frameon": False, "labelcolor": INK, "handletextpad": 0.2}
    columns = max(1, int(figure.get_figwidth() / (0.5 + 0.085 * max(map(len, colours)))))
    upper = figure.legend(handles=methods, loc="outside upper center", ncols=min(len(methods), columns), **style)
    for text, name in zip(upper.get_texts(), colours, strict=True):  # as labels, "_x" would be left out, "$x$" be math
        text.set(text=name, parse_math=False)
    figure.legend(handles=parts, loc="outside lower center", ncols=len(parts), **style)


def _unique(names: Any) -> list[str]:
    return list(dict.fromkeys(names))
