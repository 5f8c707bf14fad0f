"""Blocks of small charts: accuracy against what it costs, and learning curves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from xbm_jax.report.web.axes import axis_of
from xbm_jax.report.web.charts import Point, curves, legend, marks, scatter
from xbm_jax.report.web.found import Curve
from xbm_jax.report.web.markup import Markup, element
from xbm_jax.report.web.tables import number, shown_value

__all__ = ["fronts", "learning", "within"]

_WORDS = ("task", "method", "arm", "design", "series")
"""Fields that name what a row is of; the first of those after ``task`` gives points their colour."""

_MOST_PANELS, _MOST_BLOCKS = 24, 4

_SCORES = ("accuracy", "test", "mean", "val_accuracy")
_COSTS = (
    ("stored_bits", "bits stored"),
    ("inference_joules", "J an example"),
    ("adaption_joules", "J to learn"),
    ("cells_written", "cells written"),
)


def fronts(rows: Sequence[dict[str, Any]]) -> list[Markup]:
    """A block of panels for each cost that flat rows know, a panel for each task, all of a block on the same axes."""
    score = next((name for name in _SCORES if _known(rows, name)), None)
    if score is None:
        return []
    blocks, other = [], [(n, n) for n in dict.fromkeys(name for row in rows for name in row) if "joules " in n]
    for cost, label in (*_COSTS, *other):
        if len({row[cost] for row in _known(rows, cost)}) > 1:
            blocks.append(_front(rows, score, cost, label))
    intro = (
        "The line joins results that no other beats: better with as much, or as good with less. Points are rows of the "
        "table; what the table leaves out by its filters goes here too."
    )
    return [element("p", intro, class_="faint"), *blocks[:_MOST_BLOCKS]] if blocks else []


def _known(rows: Sequence[Mapping[str, Any]], name: str) -> list[Mapping[str, Any]]:
    return [row for row in rows if number(row.get(name)) is not None]


def _front(rows: Sequence[dict[str, Any]], score: str, cost: str, label: str) -> Markup:
    colour = next((name for name in _WORDS[1:] if any(name in row for row in rows)), "task")
    panels: dict[str, list[Point]] = {}
    for index, row in enumerate(rows):
        x, y, name = number(row.get(cost)), number(row.get(score)), str(row.get(colour) or "-")
        if x is None or y is None:
            continue
        percent = 100 * y if 0 <= y <= 1 else y
        tip = f"{row.get('task', '')} {name}\n{percent:.1f} %, {shown_value(cost, row[cost])} {label}".strip()
        panels.setdefault(str(row.get("task", "")), []).append(Point(x, percent, name, index, tip))
    points = [point for panel in panels.values() for point in panel]
    log = all(p.x > 0 for p in points) and max(p.x for p in points) > 20 * min(p.x for p in points)
    x, y = axis_of((p.x for p in points), log), axis_of(p.y for p in points)
    of = marks(list(dict.fromkeys(p.name for p in points)))
    figures = []
    for task, own in list(panels.items())[:_MOST_PANELS]:
        told = f"{task or 'All'}: accuracy in per cent against {label}, {len(own)} points"
        chart = scatter(own, of, x, y, told, (label + (", log" if log else ""), "%"))
        figures.append(element("figure", element("figcaption", task), chart))
    return element(
        "div", element("h3", f"Accuracy against {label}"), legend(of), element("div", *figures, class_="panels")
    )


def learning(found: Sequence[Curve], room: int, notes: list[str]) -> list[Markup]:
    """A panel for each quantity of each task, a line for each run."""
    panels: dict[tuple[str, str], dict[str, list[tuple[float, float]]]] = {}
    for curve in found:
        points = _thinned(curve)
        if points:
            panels.setdefault((curve.panel, curve.axis), {})[curve.name] = points
    of = marks(list(dict.fromkeys(name for lines in panels.values() for name in lines)))
    figures = (
        element("figure", element("figcaption", panel), curves(lines, of, f"{panel} by {axis}", (axis, "")))
        for (panel, axis), lines in panels.items()
    )
    shown = within(figures, len(panels), room, "panels of learning curves", notes)
    return [legend(of), element("div", *shown, class_="panels")] if shown else []


def _thinned(curve: Curve, most: int = 200) -> list[tuple[float, float]]:
    """Evenly fewer of many points, and of those the finite ones; the last one is always among them."""
    stride = -(-len(curve.points) // most) or 1
    few = [*curve.points[:-1:stride], *curve.points[-1:]]
    return [(x, y) for x, y in few if number(x) is not None and number(y) is not None]


def within(pieces: Iterable[Markup], count: int, room: int, what: str, notes: list[str]) -> list[Markup]:
    """The first of ``count`` pieces that there is room for, made as they are wanted; notes how many are left out."""
    kept = []
    for piece in pieces:
        room -= len(piece.encode())
        if room < 0:
            notes.append(f"{count - len(kept)} of {count} {what} are left out, to keep the page small.")
            break
        kept.append(piece)
    return kept
