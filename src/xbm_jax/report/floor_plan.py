"""A chip as a picture: every array of every layer, how much of it holds weights, and how many columns a task reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xbm_jax.crossbar import Plan
from xbm_jax.errors import DataError
from xbm_jax.hardware import array_on, array_use, used_lines
from xbm_jax.models import Chip
from xbm_jax.report.figure import DPI, INK, drawn
from xbm_jax.report.names import natural, shortened
from xbm_jax.tasks import Task
from xbm_jax.tasks.task import check_fits
from xbm_jax.tasks.watching import active_mask

__all__ = ["draw_floor_plan"]

_USED, _UNUSED = "#0072B2", "#DDDDDD"
_COLOURS = "viridis"
# All in inches.
_WIDTH, _MARGIN, _GAP, _LABEL = 12.0, 0.2, 0.22, 0.36
_HEAD, _LARGEST_LAYER, _LARGEST_ARRAY = 0.76, 3.0, 0.16
_LETTER = 0.062
"""Width of a letter of a label."""


@dataclass(frozen=True)
class _Layer:
    path: str
    plan: Plan
    on: np.ndarray | None  # which columns [T, N] or lines [T, 2, N] are read

    @property
    def lines(self) -> tuple[str, str]:
        """Name, and what the numbers are."""
        above, beside = self.plan.array_grid
        numbers = f"{above} × {beside}, {_percent(array_use(self.plan).mean())} used"
        return shortened(self.path), numbers if self.on is None else f"{numbers}, {_percent(self.on.mean())} on"


def draw_floor_plan(chip: Chip, path: str | Path | None = None, task: Task | None = None) -> bytes:
    """Draw a PNG: each layer's arrays as they stand above and beside each other, all layers to the same scale.

    An array is a square. The corner of it whose word and bit lines carry weights is coloured, so that its filled area
    is the share of cells used (:func:`xbm_jax.hardware.array_use`); with a task, the colour says which share of the
    array's columns is read (:func:`xbm_jax.hardware.array_on`): those whose gain is not zero, by line of source lines,
    all of them where the method masks no columns. Digital layers are not shown. Same chip and task, same file,
    which is written to ``path``, if given.

    Raises:
        DataError: no layer on arrays. BankError: a task of another chip.
        OutputError: ``path`` cannot be written.
    """
    if task is not None:
        check_fits(chip, task)
    if not chip.tiles:
        raise DataError("chip.tiles", {}, "at least one layer on arrays")
    order = sorted(chip.tiles, key=natural)
    layers = [_Layer(p, chip.tiles[p].plan, None if task is None else active_mask(chip, task, p)) for p in order]
    title = chip.network.name if task is None else f"{chip.network.name}, a task of {task.method.name}"
    return drawn(lambda: _draw(f"{title}: {_summary(layers)}", layers), path)


def _summary(layers: Sequence[_Layer]) -> str:
    sizes = [(layer.plan.spec.rows, layer.plan.spec.cols) for layer in layers]
    arrays = sum(array_use(layer.plan).size for layer in layers)
    cells = sum(array_use(layer.plan).size * rows * cols for layer, (rows, cols) in zip(layers, sizes, strict=True))
    used = sum(layer.plan.rows * layer.plan.columns * layer.plan.spec.bitlines_per_column for layer in layers)
    of = f" of {sizes[0][0]} × {sizes[0][1]}" if len(set(sizes)) == 1 else ""
    text = f"{arrays:,} arrays{of}, {_percent(used / cells)} of their cells used"
    on = [layer.on.reshape(-1) for layer in layers if layer.on is not None]
    return f"{text}, {_percent(np.concatenate(on).mean())} of columns on" if on else text


def _percent(share: float) -> str:
    """A share in per cent, which says 0 and 100 only where it is."""
    percent = 100 * float(share)
    if 0 < percent < 1 or 99 < percent < 100:
        return "< 1 %" if percent < 1 else "> 99 %"
    return f"{percent:.0f} %"


def _draw(title: str, layers: Sequence[_Layer]) -> Any:
    from matplotlib.figure import Figure

    largest = max(max(layer.plan.array_grid) for layer in layers)
    side = _in_dots(min(_LARGEST_ARRAY, max(1 / DPI, _LARGEST_LAYER / largest)))
    places, width, height = _shelves(layers, side)
    figure = Figure(figsize=(width, height + _HEAD))
    axes: Any = figure.add_axes((0, 0, 1, height / (height + _HEAD)))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    for layer, (x, y) in zip(layers, places, strict=True):
        name, numbers = layer.lines
        axes.text(x, y + 0.12, name, fontsize=8, color=INK, va="baseline", parse_math=False)
        axes.text(x, y + 0.27, numbers, fontsize=6.5, color="#666666", va="baseline")
    _arrays(axes, layers, places, side)
    figure.text(
        _MARGIN / width, 1 - 0.28 / (height + _HEAD), title, fontsize=10, color=INK, va="center", parse_math=False
    )
    _key(figure, coloured=layers[0].on is not None)
    return figure


def _shelves(layers: Sequence[_Layer], side: float) -> tuple[list[tuple[float, float]], float, float]:
    """Where each layer's upper left corner stands, in reading order; and the width and height of all."""
    places, x, y, deepest = [], _MARGIN, 0.0, 0.0
    boxes = [(_box_width(layer, side), _LABEL + side * layer.plan.array_grid[0]) for layer in layers]
    width = max(_WIDTH, 2 * _MARGIN + max(box for box, _ in boxes))
    for box, depth in boxes:
        if x > _MARGIN and x + box > width - _MARGIN:
            x, y, deepest = _MARGIN, y + deepest + _GAP, 0.0
        places.append((_in_dots(x), _in_dots(y)))
        x, deepest = x + box + _GAP, max(deepest, depth)
    return places, _in_dots(width), _in_dots(y + deepest + _MARGIN)


def _in_dots(inches: float) -> float:
    """A length of whole dots of the picture, so that gaps between arrays are all alike."""
    return max(1, round(inches * DPI)) / DPI if inches > 0 else 0.0


def _box_width(layer: _Layer, side: float) -> float:
    name, numbers = layer.lines
    return max(side * layer.plan.array_grid[1], _LETTER * len(name), 0.8 * _LETTER * len(numbers))


def _arrays(axes: Any, layers: Sequence[_Layer], places: Sequence[tuple[float, float]], side: float) -> None:
    """A grey square for each array, and its used corner upon it."""
    from matplotlib import colormaps
    from matplotlib.collections import PolyCollection

    gap = 2 if side * DPI > 15 else 1 if side * DPI > 3 else 0  # dots
    size = side - gap / DPI
    whole, used, share = [], [], []
    for layer, (x, y) in zip(layers, places, strict=True):
        rows, lines = used_lines(layer.plan)
        on = None if layer.on is None else array_on(layer.plan, layer.on)
        for a, b in np.ndindex(layer.plan.array_grid):
            corner = x + side * b, y + _in_dots(_LABEL) + side * a
            whole.append(_rectangle(corner, size, size))
            used.append(_rectangle(corner, size * float(lines[b]), size * float(rows[a])))
            share.append(1.0 if on is None else on[a, b])
    colours = _USED if layers[0].on is None else colormaps[_COLOURS](np.array(share))
    axes.add_collection(PolyCollection(whole, facecolors=_UNUSED, linewidths=0))
    axes.add_collection(PolyCollection(used, facecolors=colours, linewidths=0))


def _rectangle(corner: tuple[float, float], width: float, height: float) -> list[tuple[float, float]]:
    x, y = corner
    return [(x, y), (x + width, y), (x + width, y + height), (x, y + height)]


def _key(figure: Any, *, coloured: bool) -> None:
    """What colours mean, below the title."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.patches import Patch

    width, height = figure.get_size_inches()
    parts = [Patch(color=_UNUSED, label="cells unused")]
    if not coloured:
        parts.insert(0, Patch(color=_USED, label="cells that hold weights"))
    style: dict[str, Any] = {"fontsize": 8, "frameon": False, "labelcolor": INK, "handlelength": 1, "borderaxespad": 0}
    place = (_MARGIN / width, 1 - 0.52 / height)
    figure.legend(handles=parts, loc="center left", bbox_to_anchor=place, borderpad=0, ncols=2, **style)
    if coloured:
        axes = figure.add_axes((1.4 / width, 1 - 0.58 / height, 2.0 / width, 0.12 / height))
        bar = figure.colorbar(ScalarMappable(cmap=_COLOURS), cax=axes, orientation="horizontal", ticks=[])
        bar.outline.set_visible(False)
        text = "0 to 100 % of the array's columns on"
        figure.text(3.5 / width, place[1], text, fontsize=8, color=INK, va="center_baseline")
