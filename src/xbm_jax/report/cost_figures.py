"""Costs as pictures: energy by component, accuracy against energy, and which assumption moves the answer most."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from xbm_jax.errors import DataError
from xbm_jax.hardware import Swing
from xbm_jax.report.costs import CostRow
from xbm_jax.report.figure import FAINT, INK, drawn, plain_axes
from xbm_jax.report.names import method_colours

__all__ = ["draw_accuracy_against_energy", "draw_energy", "draw_swings"]

# Paul Tol's muted scheme and three greys: sixteen that are told apart, the largest components first.
_COLOURS = (
    *("#332288", "#88CCEE", "#CC6677", "#DDCC77", "#117733", "#44AA99", "#882255", "#999933", "#AA4499", "#661100"),
    *("#6699CC", "#888888", "#BBBBBB", "#444444", "#E69F00", "#009E73", "#000000", "#F0E442"),
)
_SHARE = 0.005
"""Components below this share of every bar are drawn as one."""


def draw_energy(rows: Sequence[CostRow], path: str | Path | None = None) -> bytes:
    """Draw a PNG: a panel for each technology, a bar a task, stacked by component; written to ``path``, if given.

    Raises:
        DataError: no rows. OutputError: ``path`` cannot be written.
    """
    _check(rows)
    return drawn(lambda: _energy(rows), path)


def draw_accuracy_against_energy(rows: Sequence[CostRow], path: str | Path | None = None) -> bytes:
    """Draw a PNG: a panel for each technology, a dot a task: its accuracy against the energy of one example.

    Tasks whose accuracy is not known are left out. Written to ``path``, if given.

    Raises:
        DataError: no rows with an accuracy. OutputError: ``path`` cannot be written.
    """
    known = [row for row in rows if row.accuracy is not None]
    _check(known)
    return drawn(lambda: _accuracy(known), path)


def draw_swings(
    swings: Sequence[Swing], base: float, path: str | Path | None = None, *, unit: str, most: int = 12
) -> bytes:
    """Draw a PNG: a bar for each of the ``most`` largest swings, from its lower to its higher answer.

    Args:
        path: where it is written too, if given.
        base: the answer with nothing changed, in the swings' unit.
        unit: as the axis says it, such as ``"inference, J"``.

    Raises:
        DataError: no swings. OutputError: ``path`` cannot be written.
    """
    if not swings:
        raise DataError("swings", [], "at least one")
    return drawn(lambda: _swings(list(swings)[:most], base, unit), path)


def _check(rows: Sequence[CostRow]) -> None:
    if not rows:
        raise DataError("rows", [], "at least one row")


def _technologies(rows: Sequence[CostRow]) -> list[str]:
    return list(dict.fromkeys(row.report.technology for row in rows))


def _label(row: CostRow) -> str:
    return row.task if row.method in row.task else f"{row.task}, {row.method}"


def _parts(rows: Sequence[CostRow]) -> list[str]:
    """Components worth a colour, the largest first."""
    shares: dict[str, float] = {}
    for row in rows:
        whole = float(row.report.inference_joules) or 1.0
        for name, joules in row.report.by_component.items():
            shares[name] = max(shares.get(name, 0.0), float(joules) / whole)
    return sorted((name for name, share in shares.items() if share > _SHARE), key=lambda name: -shares[name])


def _energy(rows: Sequence[CostRow]) -> Any:
    from matplotlib.figure import Figure

    names, parts = _technologies(rows), _parts(rows)
    colours = dict(zip(parts, _COLOURS, strict=False))
    bars = max(sum(row.report.technology == name for row in rows) for name in names)
    figure = Figure(figsize=(2.2 + 3.1 * len(names), 1.7 + 0.3 * max(bars, 3)), layout="constrained")
    panels = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for axes, name in zip(panels, names, strict=True):
        own = [row for row in rows if row.report.technology == name]
        for line, row in enumerate(own):
            left, joules = 0.0, {k: 1e6 * float(v) for k, v in row.report.by_component.items()}
            rest = sum(v for k, v in joules.items() if k not in parts)
            for part, width in [*((p, joules.get(p, 0.0)) for p in parts), ("rest", rest)]:
                axes.barh(line, width, left=left, height=0.7, color=colours.get(part, FAINT))
                left += width
        axes.set_yticks(range(len(own)), [_label(row) for row in own], parse_math=False)
        axes.set_ylim(len(own) - 0.5, -0.5)
        axes.set_title(name, fontsize=10, color=INK)
        axes.set_xlabel("one example, µJ", fontsize=9, color=INK)
        plain_axes(axes)
    _component_legend(figure, colours)
    return figure


def _component_legend(figure: Any, colours: dict[str, str]) -> None:
    from matplotlib.patches import Patch

    handles = [Patch(color=colour, label=part) for part, colour in {**colours, "rest": FAINT}.items()]
    columns = max(3, int(figure.get_figwidth() / 1.5))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, fontsize=8, frameon=False, labelcolor=INK)


def _accuracy(rows: Sequence[CostRow]) -> Any:
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    names, methods = _technologies(rows), list(dict.fromkeys(row.method for row in rows))
    colours, tasks = method_colours(methods), list(dict.fromkeys(_data(row) for row in rows))
    markers = dict(zip(tasks, "osD^vP*Xh<>d", strict=False))
    figure = Figure(figsize=(1.4 + 3.1 * len(names), 4.2), layout="constrained")
    panels = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for axes, name in zip(panels, names, strict=True):
        for row in (r for r in rows if r.report.technology == name):
            style = {"color": colours[row.method], "marker": markers.get(_data(row), "o")}
            axes.plot(1e6 * float(row.report.inference_joules), 100 * (row.accuracy or 0), ms=7, mec="white", **style)
        axes.set_title(name, fontsize=10, color=INK)
        axes.set_xlabel("one example, µJ", fontsize=9, color=INK)
        axes.set_xlim(0, 1.12e6 * max(float(r.report.inference_joules) for r in rows if r.report.technology == name))
        plain_axes(axes)
        axes.grid(axis="y", color=FAINT, lw=0.6)
    panels[0].set_ylabel("test accuracy, %", fontsize=9, color=INK)
    handles = [Line2D([], [], ls="", marker="o", ms=7, color=c, label=m) for m, c in colours.items()]
    if len(tasks) > 1:
        handles += [Line2D([], [], ls="", marker=k, ms=6, mfc="white", mec=INK, label=t) for t, k in markers.items()]
    columns = max(3, int(figure.get_figwidth() / 1.4))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, fontsize=8, frameon=False)
    return figure


def _data(row: CostRow) -> str:
    """What the task learned: its name in the bank without the method's."""
    return row.task.removesuffix(row.method).rstrip(" ._-@+") or row.task


def _swings(swings: Sequence[Swing], base: float, unit: str) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.6, 1.2 + 0.32 * len(swings)), layout="constrained")
    axes = figure.subplots()
    ends = [end for swing in swings for end in (swing.low, swing.high) if end > 0 and math.isfinite(end)]
    for line, swing in enumerate(swings):
        axes.plot([base, swing.low], [line, line], color="#0072B2", lw=8, solid_capstyle="butt")
        axes.plot([base, swing.high], [line, line], color="#D55E00", lw=8, solid_capstyle="butt")
    axes.axvline(base, color=INK, lw=1)
    if ends and max(ends) > 20 * min(ends):
        axes.set_xscale("log")
    axes.set_yticks(range(len(swings)), [swing.assumption for swing in swings])
    axes.set_ylim(len(swings) - 0.4, -0.6)
    axes.set_xlabel(unit, fontsize=9, color=INK)
    plain_axes(axes)
    axes.tick_params(axis="y", length=0)
    return figure
