"""Small charts as SVG: points with their front, and curves. Colours are the page's, so that they follow its scheme."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from xbm_jax.report.names import method_colours
from xbm_jax.report.web.axes import Axis, axis_of, short
from xbm_jax.report.web.markup import Markup, element, joined

__all__ = ["Mark", "Point", "curves", "legend", "marks", "scatter"]

_WIDTH, _HEIGHT = 340, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 8, 8, 36
_MOST_STOPS = 80
"""Points of a chart that the tabulator key stops at; of more the table says as much, in fewer keys."""

_SLOTS = ("#56B4E9", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#000000", "#999999")
"""The page has a light and a dark shade of each of these, ``k0`` to ``k7``."""

_SHAPES = (
    "M-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0-9 0z",
    "M-4-4h8v8h-8z",
    "M0-5.5L5.5 0L0 5.5L-5.5 0z",
    "M0-5L5 4H-5z",
)


class Mark(NamedTuple):
    """How a name is drawn: ``k0`` to ``k7``, and a shape."""

    colour: str
    shape: str


class Point(NamedTuple):
    """A point of a chart, the row of the table that it is of, and what it says."""

    x: float
    y: float
    name: str
    row: int
    tip: str


def marks(names: Sequence[str]) -> dict[str, Mark]:
    """A mark for each name: its own colour where figures know it (:func:`method_colours`), shapes as colours repeat."""
    colours, found = method_colours(names), {}
    used: dict[str, int] = dict.fromkeys(_SLOTS, 0)
    for name in names:
        shape = _SHAPES[used[colours[name]] % len(_SHAPES)]
        used[colours[name]] += 1
        found[name] = Mark(f"k{_SLOTS.index(colours[name])}", shape)
    return found


def legend(of: Mapping[str, Mark]) -> Markup:
    """The names with their marks."""
    items = [element("li", _swatch(mark), element("span", name)) for name, mark in of.items()]
    return element("ul", *items, class_="legend")


def scatter(points: Sequence[Point], of: Mapping[str, Mark], x: Axis, y: Axis, label: str, names: tuple[str, str]):
    """Points, and the front of those that no other beats: as good with less, or better with as much.

    Args:
        points: at least one.
        of: marks by name.
        x: less is better.
        y: more is better.
        label: what the chart shows, for who cannot see it.
        names: of the axes.
    """
    stops = len(points) <= _MOST_STOPS
    shown = [_point(point, of[point.name], x, y, stops) for point in points]
    front = [(p.x, p.y) for p in _front(points)]
    line = element("path", d=_path(front, x, y), class_="front") if len(front) > 1 else None
    return _svg(label, x, y, names, line, *shown)


def curves(lines: Mapping[str, Sequence[tuple[float, float]]], of: Mapping[str, Mark], label: str, names: tuple):
    """Lines by name over one axis; a line of one point is a dot."""
    every = [point for line in lines.values() for point in line]
    x, y = axis_of(p[0] for p in every), axis_of(p[1] for p in every)
    shown = []
    for name, line in lines.items():
        shown.append(element("path", d=_path(line, x, y), class_=f"curve {of[name].colour}"))
        last_x, last_y = line[-1]
        tip = f"{name}: {short(last_y)} at {short(last_x)}"
        shown.append(_point(Point(last_x, last_y, name, -1, tip), of[name], x, y, len(lines) <= _MOST_STOPS))
    return _svg(label, x, y, names, *shown)


def _front(points: Sequence[Point]) -> list[Point]:
    """Those that no other beats, by falling cost."""
    best, found = -math.inf, []
    for point in sorted(points, key=lambda p: (p.x, -p.y)):
        if point.y > best:
            best = point.y
            found.append(point)
    return found


def _svg(label: str, x: Axis, y: Axis, names: tuple[str, str], *content: Markup | None) -> Markup:
    return element(
        "svg", _axes(x, y, names), *content, viewBox=f"0 0 {_WIDTH} {_HEIGHT}", role="group", aria_label=label
    )


def _axes(x: Axis, y: Axis, names: tuple[str, str]) -> Markup:
    parts, bottom, right = [], _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    for tick in y.ticks():
        at = _down(y, tick)
        parts.append(element("path", d=f"M{_LEFT} {at}H{right}", class_="grid"))
        parts.append(element("text", short(tick), x=_LEFT - 5, y=f"{float(at) + 4:.4g}", text_anchor="end"))
    for tick in x.ticks():
        at = _along(x, tick)
        parts.append(element("path", d=f"M{at} {bottom}v4", class_="axis"))
        parts.append(element("text", short(tick), x=at, y=bottom + 16, text_anchor="middle"))
    parts.append(element("path", d=f"M{_LEFT} {bottom}H{right}", class_="axis"))
    parts.append(element("text", names[0], x=right, y=_HEIGHT - 4, text_anchor="end"))
    parts.append(element("text", names[1], x=_LEFT + 4, y=_TOP + 8))
    return element("g", *parts, aria_hidden="true")


def _point(point: Point, mark: Mark, x: Axis, y: Axis, stop: bool) -> Markup:
    return element(
        "path",
        d=mark.shape,
        transform=f"translate({_along(x, point.x)} {_down(y, point.y)})",
        class_=f"pt {mark.colour}",
        data_row=point.row if point.row >= 0 else None,
        data_tip=point.tip,
        role="img",
        aria_label=point.tip,
        tabindex="0" if stop else None,
    )


def _swatch(mark: Mark) -> Markup:
    path = element("path", d=mark.shape, class_=f"pt {mark.colour}")
    return element("svg", path, viewBox="-7 -7 14 14", aria_hidden="true")


def _path(points: Sequence[tuple[float, float]], x: Axis, y: Axis) -> Markup:
    """SVG's words for a line through points."""
    return joined(Markup("M" + "L".join(f"{_along(x, px)} {_down(y, py)}" for px, py in points)))


def _along(x: Axis, value: float) -> str:
    return f"{_LEFT + x.share(value) * (_WIDTH - _LEFT - _RIGHT):.1f}"


def _down(y: Axis, value: float) -> str:
    return f"{_HEIGHT - _BOTTOM - y.share(value) * (_HEIGHT - _TOP - _BOTTOM):.1f}"
