"""How what a read costs grows: rows, ADC bits, batch, depth, tasks, image size, row tiles; memory and compile time.

Command:   python -m benchmarks.series       --only tiles: one of them; --again: points that are there too
Hardware:  CPU cores that do nothing else; a point that was measured while they did is marked.
Time:      not taken yet.
Writes:    benchmarks/series.json after every point, so that the same command carries on; docs/figures/cost.png; the
           tables of docs/performance.md. Points of another machine or of other versions are measured again.

A read is a 3x3 convolution of 64 channels at 8x8 pixels, 32 images, 128 rows, 8-bit converters, but for what grows.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import tyro
from rich.console import Console

from benchmarks import page
from benchmarks.growth import SERIES, Series
from benchmarks.machine import Watched, machine
from xbm_jax.report.figure import FAINT, INK, drawn, plain_axes
from xbm_jax.storage.files import replace_json

__all__ = ["OUT", "Config", "draw", "main"]

HERE = Path(__file__).resolve().parent
OUT = HERE / "series.json"
Point = Mapping[str, Any]
_OURS, _PLAIN = "#0072B2", "#999999"
_ACROSS = 5


@dataclasses.dataclass(frozen=True)
class Config:
    """Options.

    Args:
        only: the series of this name alone.
        again: measure points anew that are there.
        out: the points.
        figure: their picture.
    """

    only: str = ""
    again: bool = False
    out: Path = OUT
    figure: Path = HERE.parent / "docs" / "figures" / "cost.png"


def main(config: Config, series: Mapping[str, Series] = SERIES) -> None:
    if config.only and config.only not in series:
        raise SystemExit(f"--only {config.only}: one of {', '.join(series)}")
    jax.config.update("jax_enable_compilation_cache", False)  # compile times are measured
    found, console, watched = _read(config.out), Console(), Watched()
    for name in [config.only] if config.only else series:
        for x in series[name].at:
            there = found.get(name, {}).get(x)
            if there is None or config.again or not _of_today(there):
                point = series[name].measure(x) | watched.again().seen() | machine()
                found.setdefault(name, {})[x] = {"x": x} | point
                _write(config.out, found, series)
                console.print(f"{name} {x}: {point['y']:g} {series[name].unit}, plain {point['plain']:g}")
    draw(_ordered(found, series), config.figure, series)
    if config.out == OUT:
        page.write()


def draw(found: Mapping[str, Sequence[Point]], path: Path | None, series: Mapping[str, Series] = SERIES) -> bytes:
    """The series as one PNG: a panel each, both axes logarithmic, with a line of slope one to compare."""
    return drawn(lambda: _figure(found, series), path)


def _figure(found: Mapping[str, Sequence[Point]], series: Mapping[str, Series]) -> Any:
    from matplotlib.figure import Figure

    across = min(_ACROSS, len(found))
    down = math.ceil(len(found) / across)
    figure = Figure(figsize=(2.6 * across + 0.4, 2.5 * down + 0.5), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False).ravel()
    for axes, (name, points) in zip(panels, found.items(), strict=False):
        _panel(axes, points, series[name])
    for axes in panels[len(found) :]:
        axes.remove()
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8, frameon=False, labelcolor=INK)
    return figure


def _panel(axes: Any, points: Sequence[Point], of: Series) -> None:
    from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

    x, y, plain = ([point[name] for point in points] for name in ("x", "y", "plain"))
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    linear = [y[0] * value / x[0] for value in x]
    axes.plot(x, linear, "--", color="#CC6677", lw=1, label="grows as fast as what is under it")
    axes.plot(x, plain, "s-", color=_PLAIN, lw=1, ms=4, label="plain operation")
    axes.plot(x, y, "o-", color=_OURS, lw=1.4, ms=5, mec="white", mew=0.6, label="read")
    shown = [*y, *(value for value in plain if value > 0)]
    axes.set_ylim(min(shown) / 1.6, max(max(shown) * 1.6, min(shown) * 10))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(x, [f"{value:g}" for value in x])
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(of.label, fontsize=9, color=INK)
    axes.set_ylabel(of.unit, fontsize=9, color=INK)
    plain_axes(axes)
    axes.grid(axis="y", color=FAINT, lw=0.6)


def _of_today(point: Point) -> bool:
    return all(point.get(name) == value for name, value in machine().items())


def _read(path: Path) -> dict[str, dict[int, Point]]:
    """Points by series and ``x``."""
    if not path.exists():
        return {}
    stored = json.loads(path.read_text(encoding="utf-8"))["series"]
    return {name: {point["x"]: point for point in points} for name, points in stored.items()}


def _ordered(found: Mapping[str, Mapping[int, Point]], series: Mapping[str, Series]) -> dict[str, list[Point]]:
    """As the code has them: what it has no longer is left out."""
    by_name = {
        name: [found[name][x] for x in of.at if x in found[name]] for name, of in series.items() if name in found
    }
    return {name: points for name, points in by_name.items() if points}


def _write(path: Path, found: Mapping[str, Mapping[int, Point]], series: Mapping[str, Series]) -> None:
    replace_json(path, {"series": _ordered(found, series)})


if __name__ == "__main__":
    main(tyro.cli(Config))
