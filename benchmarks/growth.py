"""What a read costs as one thing about it grows: each point beside the plain operation of the same size."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import xbm_jax as xbm
from benchmarks import layers
from benchmarks.programs import Program
from benchmarks.timing import Work, interleaved, spread
from xbm_jax.crossbar import read

__all__ = ["SERIES", "Series"]


class Series(NamedTuple):
    """What grows, where it is looked at, and what is measured there.

    Attributes:
        label: of the axis.
        at: the points, ascending.
        measure: numbers of a point; ``y`` is what grows, ``plain`` the same of the plain operation.
        unit: of both.
    """

    label: str
    at: Sequence[int]
    measure: Callable[[int], dict[str, Any]]
    unit: str = "ms"


def _times(make: Callable[[int], tuple[Work, Work]]) -> Callable[[int], dict[str, Any]]:
    """Milliseconds of both, and the rounds' ratios, as a row has them."""

    def measure(x: int) -> dict[str, Any]:
        found = interleaved(*make(x), seconds=2.0, rounds=12)
        seen = spread(found.rounds)
        times = {"y": round(1e3 * found.ours_seconds, 3), "plain": round(1e3 * found.plain_seconds, 3)}
        ratios = {"ratio": seen.median, "least": seen.least, "largest": seen.largest, "halves_apart": seen.halves_apart}
        return times | {name: round(value, 3) for name, value in ratios.items()} | {"wavers": seen.wavers}

    return measure


def _read(rows: int = 128, bits: int = 8, batch: int = 32, pixels: int = 8) -> tuple[Work, Work]:
    return layers.reads(layers.conv_layer(layers.spec(rows, bits), 64, pixels, batch))


def _tasks(tasks: int) -> tuple[Work, Work]:
    """So many masks in one pass, and as many plain products."""
    layer = layers.conv_layer(layers.spec(128), 64, 8)
    return layers.masks_together(layer, tasks), lambda: [layer.plain() for _ in range(tasks)]


def _dense_tiles(tiles: int) -> tuple[Work, Work]:
    return layers.reads(layers.dense_layer(layers.spec(64), batch=64, rows=64 * tiles, columns=64))


def _conv_tiles(tiles: int) -> tuple[Work, Work]:
    """A 3x3 convolution of 64 channels of which so few rows are read at once that there are so many tiles."""
    return layers.reads(layers.conv_layer(layers.spec(-(-576 // tiles)), 64, 8))


def _stack(depth: int) -> tuple[Program, Program]:
    """``depth`` reads, each of the one before, and as many plain products."""
    layer = layers.conv_layer(layers.spec(128), 64, 8)
    kernel = xbm.crossbar.nominal_weights(layer.tiles)

    def ours(tiles: xbm.crossbar.Tiles, x: jax.Array, gain: jax.Array) -> jax.Array:
        for _ in range(depth):
            x = jax.nn.relu(read(tiles, x, gain))
        return x

    def plain(kernel: jax.Array, x: jax.Array) -> jax.Array:
        for _ in range(depth):
            x = jax.nn.relu(layers.xla_product(x, kernel, layer.tiles.plan.conv))
        return x

    return Program(jax.jit(ours), layer.tiles, layer.x, layer.gain), Program(jax.jit(plain), kernel, layer.x)


def _peak_mib(tiles: int, rows: int = 4096, batch: int = 64, columns: int = 64) -> dict[str, Any]:
    """What adaption's gradients of a dense kernel take beside their arguments; of the plain ones, as much."""
    layer = layers.dense_layer(layers.spec(rows // tiles), batch, rows, columns)
    kernel = xbm.crossbar.nominal_weights(layer.tiles)

    def plain(x: jax.Array, kernel: jax.Array) -> Any:
        return jax.value_and_grad(lambda x, k: jnp.sum(layers.xla_product(x, k, None) ** 2), (0, 1))(x, kernel)

    ours = jax.jit(layers.with_gradients).lower(layer.tiles, layer.x, layer.gain).compile()
    return {"y": _beside(ours), "plain": _beside(jax.jit(plain).lower(layer.x, kernel).compile())}


def _beside(compiled: Any) -> float:
    found = compiled.memory_analysis()
    return round((found.temp_size_in_bytes + found.output_size_in_bytes) / 2**20, 3)


def _compile_seconds(depth: int, rounds: int = 5) -> dict[str, Any]:
    """Of the gradient of ``depth`` layers of one shape: to trace and lower, and to compile."""
    layer = layers.conv_layer(layers.spec(64), 32, 8)

    def loss(gains: list[jax.Array], x: jax.Array) -> jax.Array:
        for gain in gains:
            x = jax.nn.relu(read(layer.tiles, x, gain))
        return jnp.sum(x)

    def plain(kernels: list[jax.Array], x: jax.Array) -> jax.Array:
        for kernel in kernels:
            x = jax.nn.relu(layers.xla_product(x, kernel, layer.tiles.plan.conv))
        return jnp.sum(x)

    kernel = xbm.crossbar.nominal_weights(layer.tiles)
    ours = [_seconds(jax.grad(loss), [layer.gain] * depth, layer.x) for _ in range(rounds)]
    other = [sum(_seconds(jax.grad(plain), [kernel] * depth, layer.x)) for _ in range(rounds)]
    seen = spread([sum(times) for times in ours])
    lowering = spread([times[0] for times in ours]).median
    found = {"y": seen.median, "plain": spread(other).median, "trace_and_lower": lowering}
    found |= {"least": seen.least, "largest": seen.largest, "halves_apart": seen.halves_apart}
    return {name: round(value, 3) for name, value in found.items()} | {"wavers": seen.wavers}


def _seconds(function: Any, *args: Any) -> tuple[float, float]:
    """To trace and lower, and to compile, nothing known from before."""
    jax.clear_caches()
    start = time.perf_counter()
    lowered = jax.jit(function).lower(*args)
    between = time.perf_counter()
    lowered.compile()
    return between - start, time.perf_counter() - between


SERIES: dict[str, Series] = {
    "rows": Series("rows of an array", (16, 32, 64, 128, 256, 512), _times(lambda x: _read(rows=x))),
    "adc_bits": Series("ADC bits", (4, 6, 8, 10, 12), _times(lambda x: _read(bits=x))),
    "batch": Series("images in a batch", (1, 4, 16, 64, 256), _times(lambda x: _read(batch=x))),
    "layers": Series("layers, one after another", (1, 2, 4, 8), _times(_stack)),
    "tasks": Series("tasks' masks in one pass", (1, 2, 4, 8, 16), _times(_tasks)),
    "pixels": Series(
        "pixels of an image", (16, 64, 256, 1024, 4096), _times(lambda x: _read(batch=4, pixels=round(x**0.5)))
    ),
    "tiles": Series("row tiles of 64 rows, dense", (2, 8, 32, 128, 512), _times(_dense_tiles)),
    "conv_tiles": Series("row tiles of one convolution", (2, 4, 8, 16, 32, 64), _times(_conv_tiles)),
    "memory": Series("row tiles of one dense kernel", (4, 16, 64, 256, 512), _peak_mib, "MiB of a gradient"),
    "compile": Series("layers of one shape", (1, 2, 4, 8, 16), _compile_seconds, "s to compile"),
}
