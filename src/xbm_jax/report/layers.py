"""An inspection as a picture: how noisy each layer is, how often its converters clip, and how many codes they use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from xbm_jax.errors import DataError
from xbm_jax.report.figure import FAINT, INK, drawn, plain_axes
from xbm_jax.tasks import Inspection, LayerInspection

__all__ = ["draw_inspection"]

_COLOURS = {False: "#D55E00", True: "#0072B2"}
"""Of simulated and of folded layers (Okabe and Ito 2008)."""

_LABELS = {False: "simulated", True: "folded exactly"}
_LEAST_CLIP_PERCENT = 0.01


def draw_inspection(inspection: Inspection, path: str | Path | None = None) -> bytes:
    """Draw a PNG, one line per layer: signal-to-noise ratio, clip rate and codes used, each beside its worst column.

    A filled dot is the layer, a small open one its worst column (of a row tile, where conversions are counted). Folded
    layers have no conversions, so no dot there. The same inspection gives the same file, which is
    written to ``path``, if given.

    Raises:
        DataError: no layers.
        OutputError: ``path`` cannot be written.
    """
    if not inspection.layers:
        raise DataError("inspection.layers", [], "at least one layer on a crossbar")
    return drawn(lambda: _draw(inspection), path)


def _draw(inspection: Inspection) -> Any:
    from matplotlib.figure import Figure

    layers = inspection.layers
    figure = Figure(figsize=(9.6, 1.6 + 0.24 * max(len(layers), 3)), layout="constrained")
    snr, clip, codes = figure.subplots(1, 3, sharey=True, gridspec_kw={"width_ratios": [1.25, 1.25, 1]})
    _points(snr, layers, lambda layer: layer.snr_db, lambda layer: layer.worst_column and layer.worst_column.snr_db)
    _points(clip, layers, _clip_percent, lambda layer: layer.worst_clip and 100 * layer.worst_clip.clip_rate)
    _points(codes, layers, lambda layer: None if layer.codes_share is None else 100 * layer.codes_share)
    snr.set_xlabel("signal-to-noise ratio, dB", fontsize=9, color=INK)
    clip.set_xlabel("conversions that clip, %", fontsize=9, color=INK)
    codes.set_xlabel("codes used, %", fontsize=9, color=INK)
    _clip_axis(clip)
    codes.set_xlim(-3, 103)
    snr.set_ylim(len(layers) - 0.4, -0.6)
    snr.set_yticks(range(len(layers)), [layer.path for layer in layers], parse_math=False)
    title = (
        f"{inspection.network}, {inspection.images:,} images: {inspection.folded_share:.0%} of the multiply-accumulates"
    )
    figure.suptitle(f"{title} folded exactly", fontsize=10, color=INK, parse_math=False)
    _legend(figure, layers)
    return figure


_Value = Callable[[LayerInspection], float | None]


def _points(axes: Any, layers: Sequence[LayerInspection], value: _Value, worst: _Value = lambda _: None) -> None:
    for line, layer in enumerate(layers):
        colour, own, bad = _COLOURS[layer.folded], value(layer), worst(layer)
        if own is not None and bad is not None:
            axes.hlines(line, min(own, bad), max(own, bad), color=colour, lw=1, alpha=0.5)
        if bad is not None:
            axes.plot(bad, line, "o", ms=4.5, mfc="white", mec=colour, mew=1.2)
        if own is not None:
            axes.plot(own, line, "o", ms=7, color=colour, mec="white", mew=0.8)
    plain_axes(axes)
    axes.grid(axis="y", color=FAINT, lw=0.4)
    axes.tick_params(axis="y", length=0)


def _clip_percent(layer: LayerInspection) -> float | None:
    return None if layer.codes_used is None else 100 * layer.clip_rate


def _clip_axis(axes: Any) -> None:
    """Zero, then a log axis from a hundredth of a per cent on: rates of layers and of columns lie decades apart."""
    from matplotlib.ticker import FixedLocator, NullLocator

    ticks = (0, 0.01, 0.1, 1, 10, 100)
    axes.set_xscale("symlog", linthresh=_LEAST_CLIP_PERCENT, linscale=0.5)
    axes.set_xlim(-0.003, 140)
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticklabels([f"{tick:g}" for tick in ticks])


def _legend(figure: Any, layers: Sequence[LayerInspection]) -> None:
    from matplotlib.lines import Line2D

    kinds = [kind for kind in (False, True) if any(layer.folded == kind for layer in layers)]
    handles = [
        Line2D([], [], marker="o", ls="", ms=7, color=_COLOURS[kind], mec="white", label=_LABELS[kind])
        for kind in kinds
    ]
    handles.append(Line2D([], [], marker="o", ls="", ms=4.5, mfc="white", mec=INK, mew=1.2, label="its worst column"))
    style: dict[str, Any] = {"fontsize": 9, "frameon": False, "labelcolor": INK, "handletextpad": 0.2}
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), **style)
