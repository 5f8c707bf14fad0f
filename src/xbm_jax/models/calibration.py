"""What is measured on images: input scales, converter ranges, and norm statistics of a chip as it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from xbm_jax.crossbar import Tiles, nominal_weights, with_signed_inputs
from xbm_jax.crossbar.primitives.adc import snapped_range
from xbm_jax.crossbar.primitives.products import product
from xbm_jax.crossbar.primitives.quantise import input_code_limits
from xbm_jax.crossbar.reading.gates import gated
from xbm_jax.crossbar.reading.sums import Converters, column_sums, input_codes
from xbm_jax.crossbar.validate import check_int
from xbm_jax.crossbar.writing.by_line import by_line
from xbm_jax.errors import DataError, SpecError, warn
from xbm_jax.examples import count, take
from xbm_jax.masks import Method
from xbm_jax.models.chip import Chip, check_inputs
from xbm_jax.models.passes import forward
from xbm_jax.models.percentiles import percentile_range
from xbm_jax.promotion import numpy_promotion
from xbm_jax.streams import stream

__all__ = ["INPUT_PERCENTILE", "calibrate", "measure_inputs", "measure_norms", "measure_ranges", "source_trained"]

INPUT_PERCENTILE = 99.99
"""Share of a layer's inputs that its DAC covers; the rare rest is clipped, which costs less than a coarser step."""


def source_trained(chip: Chip) -> dict[str, Any]:
    """The source task in the form that :func:`forward` takes: no masks, the backbone's norms and head."""
    return {"masks": {}, "norms": {}, "head": chip.head}


@numpy_promotion
def calibrate(chip: Chip, images: Any, *, batch_size: int = 64, lines: bool = False) -> Chip:
    """The chip with input scales and converter ranges measured on ``images`` through the source task's norms.

    Two passes: input scales from the float network, then converter ranges from the quantised network's column sums
    with ideal converters. A percentile is taken over all values of a batch, those of padded positions left out
    (``InputSpec.mask``), and averaged over batches, weighted by their images. Where both percentiles are zero, lowest
    and highest value take their place, with a warning that names the layers. The cells are not touched.

    Args:
        images: uint8 [n, H, W, C], or what else the network takes; some 256 will do
            (:func:`xbm_jax.data.calibration_images` draws them).
        lines: whether ranges hold what one line of a pair alone sends, too: for tasks by line, see
            :func:`measure_ranges`.

    Raises:
        DataError: images that do not fit, or none. SpecError: ``batch_size`` below 1; ``lines`` without pairs.
    """
    _check_pairs(chip, lines)
    chip = measure_inputs(chip, images, batch_size=batch_size)
    return measure_ranges(chip, images, batch_size=batch_size, lines=lines)


@numpy_promotion
def measure_inputs(chip: Chip, images: Any, *, batch_size: int = 64) -> Chip:
    """The chip with new input scales; see :func:`calibrate`."""
    seen = _seen_over_batches(_input_ranges, chip, _checked(chip, images, batch_size), batch_size, "inputs")
    tiles = {}
    for path, layer in chip.tiles.items():
        low, high = (float(v.item()) for v in seen[path])
        signed = low < 0
        top = input_code_limits(layer.plan.spec.input_bits, signed)[1]
        scale = max(high, -low) / top or 1.0
        tiles[path] = with_signed_inputs(layer, signed).replace(input_scale=jnp.float32(scale))
    return chip.replace(tiles=tiles)


@numpy_promotion
def measure_ranges(chip: Chip, images: Any, *, batch_size: int = 64, lines: bool = False) -> Chip:
    """The chip with new converter ranges where they are calibrated ones; see :func:`calibrate`.

        [low, high] = percentiles of I+ - I-                                without lines
                      from the least to the most of those of I+ - I-, I+ and -I-    with lines

    for each batch, in units of (input code x level), for whatever shares a range (``Adc.per``).

    Args:
        lines: whether the converter that a pair shares (``subtract="analog"``) covers each of its lines alone, as a
            task by line sends them that switches the other one off. The range is wider and its steps are coarser for
            every task. No effect where each line has a converter, and so a range, of its own (``subtract="digital"``).

    Raises:
        SpecError: no input scales yet, or ``lines`` where a layer has no pairs.
    """
    _check_pairs(chip, lines)
    images = _checked(chip, images, batch_size)
    if any(tiles.input_scale is None for tiles in chip.tiles.values()):
        raise SpecError("tiles", "no input scales", "measure inputs first: measure_inputs(chip, images)")
    tiles = dict(chip.tiles)
    measure = partial(_sum_ranges, lines=lines)
    for path, (low, high) in _seen_over_batches(measure, chip, images, batch_size, "column sums").items():
        bits = chip.tiles[path].plan.spec.adc.bits
        assert bits is not None
        tiles[path] = chip.tiles[path].replace(adc=snapped_range(jnp.asarray(low), jnp.asarray(high), bits))
    return chip.replace(tiles=tiles)


@numpy_promotion
def measure_norms(chip: Chip, images: Any, *, batch_size: int = 64, key: jax.Array | None = None) -> Chip:
    """The chip with the source task's running statistics measured anew through its cells and converters as they are.

        mean = E_b[mean_b],   var = E_b[var_b + mean_b^2] - mean^2

    over batches b, each normalised by its own statistics as in training, ``var_b`` unbiased; a last batch that is not
    full is left out. Cells, ranges, scales and biases are not touched: a remedy of its own for drift and faults.

    Args:
        images: uint8 [n, H, W, C], at least one batch.
        key: draws read noise, of every batch its own; needed where the chip's reads are noisy.
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
    images: Any,
    *,
    batch_size: int = 64,
    key: jax.Array | None = None,
) -> dict[str, dict[str, jax.Array]]:
    """Running statistics ``{path: {mean, var}}`` of what a task trained, as :func:`measure_norms` measures them."""
    images = _checked(chip, images, batch_size)
    if count(images) < batch_size:
        raise DataError("images", f"{count(images)} images", f"at least batch_size = {batch_size} to measure norms on")
    whole = take(images, slice(count(images) // batch_size * batch_size))
    following = dataclasses.replace(method, norms="full")
    moments = [
        _norm_moments(chip, batch, following, trained, None if key is None else stream(key, number))
        for number, batch in enumerate(_batches(whole, batch_size))
    ]
    mean_of = jax.tree.map(lambda *values: np.mean(np.stack(values), axis=0), *moments)
    return {
        path: {"mean": jnp.asarray(mean), "var": jnp.asarray(np.maximum(square - mean**2, 0.0))}
        for path, (mean, square) in mean_of.items()
    }


def _checked(chip: Chip, images: Any, batch_size: int) -> Any:
    """The images, or an error before any work."""
    check_int("batch_size", batch_size, 1, 2**31 - 1)
    images = check_inputs(chip, images)
    if count(images) == 0:
        raise DataError("images", "0 images", "at least one image to calibrate on")
    real = chip.network.real(images)
    if real is not None and not real.any(axis=1).all():
        example = int(np.flatnonzero(~real.any(axis=1))[0])
        raise DataError("inputs", f"nothing but padding in example {example}", "a real position in every example")
    return images


def _check_pairs(chip: Chip, lines: bool) -> None:
    for path, tiles in chip.tiles.items():
        encoding = tiles.plan.spec.encoding
        if lines and encoding != "differential":
            allowed = "'differential' with lines=True: no other encoding has a positive and a negative line"
            raise SpecError(f"{path}.encoding", encoding, allowed)


def _batches(images: Any, batch_size: int) -> Iterable[Any]:
    starts = range(0, count(images), batch_size)
    return (jax.tree.map(jnp.asarray, take(images, slice(i, i + batch_size))) for i in starts)


_Ranges = dict[str, tuple[jax.Array, ...]]
"""Low and high percentile, lowest and highest of what was seen, by layer."""

_WIDEST = (jnp.minimum, jnp.maximum, jnp.minimum, jnp.maximum)


def _seen_over_batches(
    measure: Callable[[Chip, Any], _Ranges], chip: Chip, images: Any, batch_size: int, what: str
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Low and high end of what each layer has to cover."""
    found = [measure(chip, batch) for batch in _batches(images, batch_size)]
    sizes = [min(batch_size, count(images) - start) for start in range(0, count(images), batch_size)]
    covered, sparse = {}, []
    for path in found[0]:
        low, high, least, most = (np.stack(values) for values in zip(*(seen[path] for seen in found), strict=True))
        low, high = (np.average(ends, axis=0, weights=sizes) for ends in (low, high))
        least, most = least.min(0), most.max(0)
        nothing = (low == 0) & (high == 0) & (least < most)
        if nothing.any():
            sparse.append(path)
        ends = np.where(nothing, least, low), np.where(nothing, most, high)
        covered[path] = ends[0].astype(np.float32), ends[1].astype(np.float32)
    if sparse:
        warn(
            f"{what} of {', '.join(sparse)}: zero but for outliers beyond the percentile, "
            "so that the range is that of the outliers"
        )
    return covered


@jax.jit
def _input_ranges(chip: Chip, images: Any) -> _Ranges:
    """Of each layer's inputs in the float network."""
    seen: _Ranges = {}

    def observe(path: str, tiles: Tiles, x: jax.Array, *_: Any) -> jax.Array:
        found = percentile_range(x, INPUT_PERCENTILE, tuple(range(x.ndim)), _counted(chip, images, x.shape))
        seen[path] = _widest(seen.get(path), found)
        return product(x, nominal_weights(tiles), tiles.plan.conv)

    forward(chip, Method("source", norms="frozen"), source_trained(chip), chip.stats, images, layer_read=observe)
    return seen


@partial(jax.jit, static_argnames="method")
def _norm_moments(
    chip: Chip, images: Any, method: Method, trained: dict[str, Any], key: jax.Array | None
) -> dict[str, tuple[jax.Array, jax.Array]]:
    """Mean and mean square of every batch norm's input."""
    silent = jax.tree.map(jnp.zeros_like, chip.stats)
    followed = forward(chip, method, trained, silent, images, train=True, key=key)[1]
    # From zero, running statistics move by their momentum towards the batch's.
    weights = {path: 1 - chip.network.momenta[path] for path in followed}
    batch = {path: {name: a / weights[path] for name, a in moved.items()} for path, moved in followed.items()}
    return {path: (stats["mean"], stats["var"] + stats["mean"] ** 2) for path, stats in batch.items()}


@partial(jax.jit, static_argnames="lines")
def _sum_ranges(chip: Chip, images: Any, lines: bool) -> _Ranges:
    """Of each converter's sums, [J, V, T|1, N|1]; layers with known ranges are left out."""
    seen: _Ranges = {}

    def observe(path: str, tiles: Tiles, x: jax.Array, *_: Any) -> jax.Array:
        assert tiles.input_scale is not None
        codes, plan = input_codes(tiles, x), tiles.plan
        total = product(codes, nominal_weights(tiles), plan.conv) * tiles.input_scale
        if plan.fold or plan.spec.adc.bits is None or plan.spec.adc.range != "calibrated":
            return total
        for sums in _sums(tiles, codes, lines):
            seen[path] = _widest(seen.get(path), _converter_ranges(tiles, sums, _counted(chip, images, x.shape)))
        return total

    forward(chip, Method("source", norms="frozen"), source_trained(chip), chip.stats, images, layer_read=observe)
    return seen


def _counted(chip: Chip, images: Any, shape: tuple[int, ...]) -> jax.Array | None:
    """Which inputs ``[examples, positions, ..., features]`` of a layer are real, one feature wide; ``None``: all.

    A layer behind the mean over positions has none that could be padding.
    """
    real = chip.network.real(images)
    if real is None or len(shape) <= real.ndim or shape[: real.ndim] != real.shape:
        return None
    return jnp.broadcast_to(real.reshape(*real.shape, *(1,) * (len(shape) - real.ndim)), (*shape[:-1], 1))


_Sums = dict[tuple[int, int], jax.Array]
"""Column sums [..., V, N] by row tile and cycle."""


def _sums(tiles: Tiles, codes: jax.Array, lines: bool) -> Iterator[_Sums]:
    """What a layer's converters see; with ``lines`` then what the one they share sees of each line of a pair alone."""

    def under(effective: jax.Array, curvature: jax.Array | None, other: tuple[()] | None = None) -> _Sums:
        seen_by = Converters(curvature=curvature, other_weights=other)
        found = column_sums(tiles.plan, codes, effective, seen_by)
        return {(t, j): sums for t, j, sums in found}

    pairs = under(tiles.effective, tiles.curvature)
    yield pairs
    negative = by_line(tiles).lines if lines else None
    if negative is None:
        return
    alone = under(negative.effective, negative.curvature, ())
    for gain in (jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0])):
        yield {place: gated(sums, alone[place], gain) for place, sums in pairs.items()}


def _widest(one: tuple[jax.Array, ...] | None, other: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
    """The ends that hold those of all sums of a layer, which the network may call more than once."""
    if one is None:
        return other
    return tuple(widest(a, b) for widest, a, b in zip(_WIDEST, one, other, strict=True))


def _converter_ranges(tiles: Tiles, sums: _Sums, counted: jax.Array | None) -> tuple[jax.Array, ...]:
    """Of one layer's sums [..., V, N], over images and pixels, then over what shares a converter range."""
    plan, adc = tiles.plan, tiles.plan.spec.adc
    alone = {place: _of_conversions(s, adc.percentile, adc.per == "column", counted) for place, s in sums.items()}
    ends = []
    for end, widest in enumerate((jnp.min, jnp.max, jnp.min, jnp.max)):
        cycles = [[alone[t, j][end] for t in range(plan.row_tiles)] for j in range(len(plan.cycle_weights))]
        values = jnp.stack([jnp.stack(of_tiles, axis=1) for of_tiles in cycles])
        ends.append(widest(values, axis=2, keepdims=True) if adc.per == "layer" else values)
    return tuple(ends)


def _of_conversions(sums: jax.Array, percentile: float, columns: bool, counted: jax.Array | None) -> list[jax.Array]:
    """[..., V, N] to [V, N] (one range a column) or [V, 1]."""
    rows = sums.reshape(-1, *sums.shape[-2:])
    counted = None if counted is None else counted.reshape(-1, 1, 1)  # a row for every read
    return [end[0] for end in percentile_range(rows, percentile, (0,) if columns else (0, 2), counted)]
