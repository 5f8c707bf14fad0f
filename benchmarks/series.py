"""How a read's cost, as a ratio to the plain operation, grows with rows, converter bits, batch and depth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax

import xbm_jax as xbm
from benchmarks import layers
from benchmarks.timing import Work, interleaved
from xbm_jax.crossbar import read

__all__ = ["draw", "measure_series"]

_LABELS = {
    "rows": "rows of an array",
    "adc_bits": "ADC bits",
    "batch": "images in a batch",
    "layers": "layers, one after another",
}


def measure_series() -> dict[str, list[dict[str, float]]]:
    """``{series: [{x, ratio, ours_ms, plain_ms}, ...]}`` of a 3x3 convolution of 64 channels, 8x8 pixels, 32 images."""
    made = {
        "rows": [(rows, _one(rows=rows)) for rows in (16, 32, 64, 128, 256, 512)],
        "adc_bits": [(bits, _one(bits=bits)) for bits in (4, 6, 8, 10, 12)],
        "batch": [(batch, _one(batch=batch)) for batch in (1, 4, 16, 64, 256)],
        "layers": [(depth, _deep(depth)) for depth in (1, 2, 4, 8)],
    }
    return {name: [_point(x, *works) for x, works in points] for name, points in made.items()}


def draw(series: dict[str, list[dict[str, float]]], path: Path) -> None:
    """The series as one PNG of four panels."""
    from matplotlib import pyplot, style

    with style.context("default"):
        figure, axes = pyplot.subplots(1, len(series), figsize=(11, 2.8), sharey=True, layout="constrained")
        for axis, (name, points) in zip(axes, series.items(), strict=True):
            axis.plot([p["x"] for p in points], [p["ratio"] for p in points], "o-", color="#0072B2")
            axis.axhline(1.0, color="#999999", linewidth=1)
            axis.set(xlabel=_LABELS[name], ylim=(0, None))
            if name != "adc_bits":
                axis.set_xscale("log", base=2)
            axis.set_xticks([p["x"] for p in points], [f"{p['x']:g}" for p in points], minor=False)
        axes[0].set_ylabel("time, to the plain operation")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=110, metadata={"Software": None})
        pyplot.close(figure)


def _one(rows: int = 128, bits: int = 8, batch: int = 32) -> tuple[Work, Work]:
    return layers.reads(layers.conv_layer(layers.spec(rows, bits), 64, 8, batch))


def _deep(depth: int) -> tuple[Work, Work]:
    """``depth`` reads, each of the one before, and as many plain products."""
    layer = layers.conv_layer(layers.spec(128), 64, 8)
    kernel = xbm.crossbar.nominal_weights(layer.tiles)

    def ours(tiles: xbm.crossbar.Tiles, x: jax.Array) -> jax.Array:
        for _ in range(depth):
            x = jax.nn.relu(read(tiles, x, layer.gain))
        return x

    def plain(kernel: jax.Array, x: jax.Array) -> jax.Array:
        for _ in range(depth):
            x = jax.nn.relu(layers.xla_product(x, kernel, layer.tiles.plan.conv))
        return x

    ours, plain = jax.jit(ours), jax.jit(plain)
    return lambda: ours(layer.tiles, layer.x), lambda: plain(kernel, layer.x)


def _point(x: float, ours: Work, plain: Work) -> dict[str, Any]:
    found = interleaved(ours, plain, seconds=2.0, rounds=11)
    times: dict[str, Any] = {
        "ours_ms": round(1e3 * found.ours_seconds, 3),
        "plain_ms": round(1e3 * found.plain_seconds, 3),
    }
    return {"x": x, "ratio": round(found.ratio, 3)} | times
