"""What is measured on images: input scales, converter ranges, and norm statistics of a chip as it is."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from xbm_jax.crossbar import Tiles, nominal_weights, with_signed_inputs
from xbm_jax.crossbar.adc import snapped_range
from xbm_jax.crossbar.products import product
from xbm_jax.crossbar.quantise import input_code_limits
from xbm_jax.crossbar.sums import Converters, column_sums, input_codes
from xbm_jax.errors import DataError, SpecError
from xbm_jax.masks import Method
from xbm_jax.models.chip import Chip, check_images
from xbm_jax.models.forward import forward
from xbm_jax.models.norm import MOMENTUM
from xbm_jax.promotion import numpy_promotion

__all__ = ["INPUT_PERCENTILE", "calibrate", "measure_inputs", "measure_norms", "measure_ranges", "source_trained"]

INPUT_PERCENTILE = 99.99
"""Share of a layer's inputs that its DAC covers; the rare rest is clipped, which costs less than a coarser step."""

_SAMPLES = 2**17
"""Values that a percentile is taken over: enough for 99.99 %, far cheaper to sort than all of them."""


def source_trained(chip: Chip) -> dict[str, Any]:
    """The source task in the form that :func:`forward` takes: no masks, the backbone's norms and head."""
    return {"masks": {}, "norms": {}, "head": chip.head}


@numpy_promotion
def calibrate(chip: Chip, images: jax.Array | np.ndarray, *, batch_size: int = 64) -> Chip:
    """The chip with input scales and converter ranges measured on ``images`` through the source task's norms.

    Two passes: input scales from the float network, then converter ranges from the quantised network's column sums
    with ideal converters. A percentile is the mean over batches of each batch's percentile. The cells are not touched.

    Args:
        images: uint8 [n, H, W, C]; some 256 will do.
    """
    images = check_images(chip, images)
    if len(images) == 0:
        raise DataError("images", "0 images", "at least one image to calibrate on")
    chip = measure_inputs(chip, images, batch_size=batch_size)
    return measure_ranges(chip, images, batch_size=batch_size)


@numpy_promotion
def measure_inputs(chip: Chip, images: jax.Array | np.ndarray, *, batch_size: int = 64) -> Chip:
    """The chip with new input scales; see :func:`calibrate`."""
    peaks = _mean_over_batches(_input_peaks, chip, images, batch_size)
    tiles = {}
    for path, layer in chip.tiles.items():
        low, high = (float(v) for v in peaks[path])
        signed = low < 0
        top = input_code_limits(layer.plan.spec.input_bits, signed)[1]
        scale = max(high, -low) / top or 1.0
        tiles[path] = with_signed_inputs(layer, signed).replace(input_scale=jnp.float32(scale))
    return chip.replace(tiles=tiles)


@numpy_promotion
def measure_ranges(chip: Chip, images: jax.Array | np.ndarray, *, batch_size: int = 64) -> Chip:
    """The chip with new converter ranges where they are calibrated ones; see :func:`calibrate`."""
    if any(tiles.input_scale is None for tiles in chip.tiles.values()):
        raise SpecError("tiles", "no input scales", "measure inputs first: measure_inputs(chip, images)")
    limits = _mean_over_batches(_sum_limits, chip, images, batch_size)
    tiles = dict(chip.tiles)
    for path, (low, high) in limits.items():
        layer = chip.tiles[path]
        bits = layer.plan.spec.adc.bits
        assert bits is not None
        tiles[path] = layer.replace(adc=snapped_range(jnp.asarray(low), jnp.asarray(high), bits))
    return chip.replace(tiles=tiles)


@numpy_promotion
def measure_norms(
    chip: Chip, images: jax.Array | np.ndarray, *, batch_size: int = 64, key: jax.Array | None = None
) -> Chip:
    """The chip with the source task's running statistics measured anew through its cells and converters as they are.

        mean = E_b[mean_b],   var = E_b[var_b + mean_b^2] - mean^2

    over batches b, each normalised by its own statistics as in training, ``var_b`` unbiased; a last batch that is not
    full is left out. Cells, ranges, scales and biases are not touched: a remedy of its own for drift and faults.

    Args:
        images: uint8 [n, H, W, C], at least one batch.
        key: draws read noise; needed where the chip's reads are noisy.
    """
    source = Method("source", norms="full")
    return chip.replace(
        stats=norm_statistics(chip, source, source_trained(chip), images, batch_size=batch_size, key=key)
    )


@numpy_promotion
def norm_statistics(
    chip: Chip,
    method: Method,
    trained: dict[str, Any],
    images: jax.Array | np.ndarray,
    *,
    batch_size: int = 64,
    key: jax.Array | None = None,
) -> dict[str, dict[str, jax.Array]]:
    """Running statistics ``{path: {mean, var}}`` of what a task trained, as :func:`measure_norms` measures them."""
    images = check_images(chip, images)
    if len(images) < batch_size:
        raise DataError("images", f"{len(images)} images", f"at least batch_size = {batch_size} to measure norms on")
    whole = images[: len(images) // batch_size * batch_size]
    following = dataclasses.replace(method, norms="full")
    measure = partial(_norm_moments, method=following, trained=trained, key=key)
    moments = _mean_over_batches(measure, chip, whole, batch_size)
    return {
        path: {"mean": jnp.asarray(mean), "var": jnp.asarray(np.maximum(square - mean**2, 0.0))}
        for path, (mean, square) in moments.items()
    }


def _mean_over_batches(measure: Any, chip: Chip, images: jax.Array | np.ndarray, batch_size: int) -> dict[str, Any]:
    batches = [measure(chip, jnp.asarray(images[i : i + batch_size])) for i in range(0, len(images), batch_size)]
    return jax.tree.map(lambda *values: np.mean(np.stack(values), axis=0), *batches)


@jax.jit
def _input_peaks(chip: Chip, images: jax.Array) -> dict[str, tuple[jax.Array, jax.Array]]:
    """Lowest and highest input of each layer in the float network, rare outliers left out."""
    seen: dict[str, tuple[jax.Array, jax.Array]] = {}

    def observe(path: str, tiles: Tiles, x: jax.Array, *_: Any) -> jax.Array:
        seen[path] = (_percentile(x, 100 - INPUT_PERCENTILE), _percentile(x, INPUT_PERCENTILE))
        return product(x, nominal_weights(tiles), tiles.plan.conv)

    forward(chip, Method("source", norms="frozen"), source_trained(chip), chip.stats, images, layer_read=observe)
    return seen


@partial(jax.jit, static_argnames="method")
def _norm_moments(
    chip: Chip, images: jax.Array, method: Method, trained: dict[str, Any], key: jax.Array | None
) -> dict[str, tuple[jax.Array, jax.Array]]:
    """Mean and mean square of every batch norm's input."""
    silent = jax.tree.map(jnp.zeros_like, chip.stats)
    followed = forward(chip, method, trained, silent, images, train=True, key=key)[1]
    # From zero, running statistics move by their momentum towards the batch's.
    batch = jax.tree.map(lambda moved: moved / MOMENTUM, followed)
    return {path: (stats["mean"], stats["var"] + stats["mean"] ** 2) for path, stats in batch.items()}


@jax.jit
def _sum_limits(chip: Chip, images: jax.Array) -> dict[str, tuple[jax.Array, jax.Array]]:
    """Low and high percentile of each converter's sums, [J, V, T|1, N|1]; layers with known ranges are left out."""
    seen: dict[str, tuple[jax.Array, jax.Array]] = {}

    def observe(path: str, tiles: Tiles, x: jax.Array, *_: Any) -> jax.Array:
        assert tiles.input_scale is not None
        codes, plan = input_codes(tiles, x), tiles.plan
        total = product(codes, nominal_weights(tiles), plan.conv) * tiles.input_scale
        if plan.fold or plan.spec.adc.bits is None or plan.spec.adc.range != "calibrated":
            return total
        seen_by = Converters(curvature=tiles.curvature)
        sums = {(t, j): s for t, j, s in column_sums(plan, codes, tiles.effective, seen_by)}
        seen[path] = _limits(tiles, sums)
        return total

    forward(chip, Method("source", norms="frozen"), source_trained(chip), chip.stats, images, layer_read=observe)
    return seen


def _limits(tiles: Tiles, sums: dict[tuple[int, int], jax.Array]) -> tuple[jax.Array, jax.Array]:
    """Percentiles of one layer's sums over images and pixels, then over what shares a converter range."""
    plan, adc = tiles.plan, tiles.plan.spec.adc
    columns = adc.per == "column"
    ends = []
    for percent, widest in ((100 - adc.percentile, jnp.min), (adc.percentile, jnp.max)):
        values = jnp.stack(
            [
                jnp.stack([_percentile_by_conversion(sums[t, j], percent, columns) for t in range(plan.tiles)], axis=1)
                for j in range(len(plan.cycle_weights))
            ]
        )
        ends.append(widest(values, axis=2, keepdims=True) if adc.per == "layer" else values)
    return ends[0], ends[1]


def _percentile_by_conversion(sums: jax.Array, percent: float, columns: bool) -> jax.Array:
    """[..., V, N] to [V, N] (one range a column) or [V, 1]."""
    rows = sums.reshape(-1, *sums.shape[-2:])
    if columns:
        return jnp.percentile(_thinned(rows), jnp.asarray(percent, rows.dtype), axis=0)
    return jnp.stack([_percentile(rows[:, s], percent)[None] for s in range(rows.shape[1])])


def _percentile(values: jax.Array, percent: float) -> jax.Array:
    return jnp.percentile(_thinned(values.reshape(-1)), jnp.asarray(percent, values.dtype))


def _thinned(values: jax.Array) -> jax.Array:
    """Every k-th entry of a long first axis. k is odd, so that it does not pick one channel of a power of two."""
    step = max(values.shape[0] // _SAMPLES, 1)
    return values[:: step + (step + 1) % 2]
