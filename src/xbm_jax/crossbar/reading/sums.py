"""The analog side of a read: what a column's converters see of an input, and what they make of it.

    I[j, v, t, n] = sum_{r in tile t} x_int[j, r] * E[v, r, n]      analog, with read noise where the device has it
    D[t, n] = sum_{j, v} c_j * c_v * ADC(I[j, v, t, n]) - offset * sum_{r in tile t} x_int[r]

Symbols as in :mod:`xbm_jax.crossbar.reading.reads`, which accumulates D over the row tiles.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from xbm_jax.crossbar.primitives import draws, quantise
from xbm_jax.crossbar.primitives.adc import AdcRange, Mismatch, code, convert
from xbm_jax.crossbar.primitives.exact import PARTS
from xbm_jax.crossbar.primitives.products import tile_product
from xbm_jax.crossbar.reading.gates import LineGains, gated, gated_variance, root
from xbm_jax.crossbar.writing.plans import Plan
from xbm_jax.crossbar.writing.tiles import Tiles
from xbm_jax.streams import Noise, stream

__all__ = [
    "Conversions",
    "Converters",
    "cell_noise",
    "column_sums",
    "conversion_codes",
    "conversion_values",
    "converter_noise",
    "cycle_codes",
]
__all__ += ["digital_offset", "digital_sums"]
__all__ += ["folded_squares", "input_codes", "input_digits", "parts_of", "side_by_side", "tile_sums", "together"]


class Converters(NamedTuple):
    """What a read needs besides weights: grids, mismatch, the variance and curvature of the weights, this read's key
    (a typed one), the number of the first row tile, by which each tile draws noise of its own, gains by line, and
    ``()`` where the weights are others than the plan's cells, so that they are no integers where ideal cells are.
    """

    adc: AdcRange | None = None
    mismatch: Mismatch | None = None
    variance: jax.Array | None = None
    curvature: jax.Array | None = None
    key: jax.Array | None = None
    first_tile: jax.Array | int = 0
    lines: LineGains | None = None
    other_weights: tuple[()] | None = None  # without a leaf: static


Conversions = Iterator[tuple[int, int, jax.Array]]
"""One array [..., V, N] of every (tile, cycle): ``(t, j, array)``."""


def input_codes(tiles: Tiles, x: jax.Array) -> jax.Array:
    """The integers that the DACs get, as floats: ``clip(round(x / s_x))``, straight-through gradient."""
    low, high = quantise.input_code_limits(tiles.plan.spec.input_bits, tiles.plan.signed_inputs)
    assert tiles.input_scale is not None
    return quantise.quantise(x, tiles.input_scale, low, high)


def column_sums(
    plan: Plan,
    codes: jax.Array,
    effective: jax.Array,
    converters: Converters | None = None,
    tile_rows: Sequence[np.ndarray] | None = None,
) -> Conversions:
    """Analog sums of every (tile, cycle): yields ``(t, j, I [..., V, N])`` in units of (input code x level).

    Args:
        plan: the planned kernel.
        codes: what its DACs get.
        effective: its cells, in levels.
        converters: noise and curvature, where there are any.
        tile_rows: which rows each row tile holds, bool arrays of ``effective.shape[1:-1]``. ``None``: the plan's own. A
            loop gives a piece of codes and cells, of as many channels as it likes, and the rows of that piece.
    """
    converters = converters or Converters()
    if converters.lines is not None and converters.lines.negative is not None:
        yield from _gated_sums(plan, codes, effective, converters, tile_rows)
        return
    kernel = side_by_side(effective, plan)
    variance = None if converters.variance is None else side_by_side(converters.variance, plan)
    cycles = cycle_codes(plan, codes)
    parts = parts_of(plan, converters)
    # Cycles lie side by side in the batch: few large products instead of many small ones.
    together = jnp.stack(cycles) if plan.conv is None else jnp.concatenate(cycles)
    for t, tile in enumerate(plan.tile_rows if tile_rows is None else tile_rows):
        sums_of_cycles = tile_product(together, kernel, plan.conv, tile, apart=plan.by_channel, parts=parts)
        if converters.curvature is not None:
            for power, order in enumerate(converters.curvature, start=2):
                sums_of_cycles += tile_product(
                    together**power, side_by_side(order, plan), plan.conv, tile, apart=plan.by_channel
                )
        if plan.conv is not None:
            sums_of_cycles = sums_of_cycles.reshape(len(cycles), -1, *sums_of_cycles.shape[1:])
        for j, streamed in enumerate(cycles):
            sums = sums_of_cycles[j]
            if variance is not None:
                squares = folded_squares(plan, codes) if plan.fold else streamed**2
                spread = jnp.sqrt(tile_product(squares, variance, plan.conv, tile, apart=plan.by_channel))
                conversion = len(cycles) * (t + converters.first_tile) + j
                sums = sums + cell_noise(converters, conversion, spread)
            yield t, j, _apart(sums, plan)


def parts_of(plan: Plan, converters: Converters) -> int:
    """How many numbers of bfloat16 hold a cell; one holds the codes of a cycle."""
    return 1 if plan.integer_cells and converters.other_weights is None else PARTS


def _gated_sums(
    plan: Plan,
    codes: jax.Array,
    effective: jax.Array,
    converters: Converters,
    tile_rows: Sequence[np.ndarray] | None,
) -> Conversions:
    """:func:`column_sums` of pairs whose lines are gated before their one converter.

    Gains act on sums, so that tasks share the products: those of the pairs and those of the negative lines.
    """
    gain, negative = converters.lines or (None, None)
    assert gain is not None and negative is not None
    cycles, tile_rows = cycle_codes(plan, codes), plan.tile_rows if tile_rows is None else tile_rows
    pairs = column_sums(plan, codes, effective, Converters(curvature=converters.curvature), tile_rows)
    own = Converters(curvature=negative.curvature, other_weights=())
    alone = column_sums(plan, codes, negative.effective, own, tile_rows)
    for (t, j, pair), (_, _, line) in zip(pairs, alone, strict=True):
        sums = gated(pair, line, gain[t])
        if converters.variance is not None and negative.variance is not None:
            squares = folded_squares(plan, codes) if plan.fold else cycles[j] ** 2
            of_pair, of_line = (
                tile_product(squares, side_by_side(v, plan), plan.conv, tile_rows[t], apart=plan.by_channel)
                for v in (converters.variance, negative.variance)
            )
            of_pair, of_line = _apart(of_pair, plan), _apart(of_line, plan)
            conversion = len(cycles) * (t + converters.first_tile) + j
            deviation = root(together(gated_variance(of_pair, of_line, gain[t]), plan))
            sums = sums + _apart(cell_noise(converters, conversion, deviation), plan)
        yield t, j, sums


def tile_sums(
    plan: Plan,
    codes: jax.Array,
    effective: jax.Array,
    converters: Converters,
    tile_rows: Sequence[np.ndarray] | None = None,
) -> Iterator[tuple[int, jax.Array]]:
    """Converted partial sums ``(t, D[t] [..., N])``, one row tile after another; arguments of :func:`column_sums`."""
    sums = column_sums(plan, codes, effective, converters, tile_rows)
    yield from digital_sums(plan, conversion_values(plan, sums, converters), codes, converters, tile_rows)


def digital_sums(
    plan: Plan,
    converted: Conversions,
    codes: jax.Array,
    converters: Converters,
    tile_rows: Sequence[np.ndarray] | None = None,
) -> Iterator[tuple[int, jax.Array]]:
    """:func:`tile_sums` of what is ``converted`` already: shift and add, and offset encoding's sum of inputs."""
    cycle_weights, tile_rows = plan.cycle_weights, plan.tile_rows if tile_rows is None else tile_rows
    total: jax.Array | float = 0.0
    for t, j, values in converted:
        digits = _shift_add(plan, values, _gains_of(converters, t)) * cycle_weights[j]
        total = total + digits if j else digits
        if j == len(cycle_weights) - 1:
            yield t, jnp.asarray(total) - digital_offset(plan, codes, tile_rows[t])


def conversion_codes(plan: Plan, sums: Conversions, converters: Converters) -> Conversions:
    """The converters' codes, as floats, for sums of :func:`column_sums`."""
    bits = plan.spec.adc.bits
    assert converters.adc is not None and bits is not None  # ideal converters have no codes
    for t, j, own in sums:
        yield t, j, code(own, converters.adc.at(j, t), bits, *_errors(plan, converters, t, j, own))


def conversion_values(plan: Plan, sums: Conversions, converters: Converters) -> Conversions:
    """What the converters make of sums of :func:`column_sums`; ideal ones leave them as they are."""
    for t, j, own in sums:
        if converters.adc is None or plan.fold:
            yield t, j, own
        else:
            yield t, j, convert(own, converters.adc.at(j, t), plan.spec.adc.bits, *_errors(plan, converters, t, j, own))


def _errors(
    plan: Plan, converters: Converters, t: int, j: int, sums: jax.Array
) -> tuple[Mismatch | None, jax.Array | float]:
    """Mismatch and noise of the converters of one (tile, cycle)."""
    mismatch = None if converters.mismatch is None else converters.mismatch.at(t)
    return mismatch, converter_noise(plan, converters, t, j, sums)


def converter_noise(plan: Plan, converters: Converters, t: int, j: int, sums: jax.Array) -> jax.Array | float:
    """What the converters of one (tile, cycle) add in this read, in steps, shaped as ``sums``; 0 for silent ones."""
    if not plan.spec.adc.noise_lsb:
        return 0.0
    conversion = len(plan.cycle_weights) * (t + converters.first_tile) + j
    return plan.spec.adc.noise_lsb * _normal(converters, Noise.CONVERTERS, conversion, sums)


def _gains_of(converters: Converters, t: int) -> jax.Array | None:
    """Gains [2, N] of a tile's lines where each has converters of its own, so that they act behind them."""
    lines = converters.lines
    return None if lines is None or lines.negative is not None else lines.gain[t]


def _shift_add(plan: Plan, converted: jax.Array, gains: jax.Array | None = None) -> jax.Array:
    """Weighted sum over a tile's conversions, ``[..., V, N] -> [..., N]``, each times its line's gain."""
    # Term by term: as one reduction over the conversions, XLA's CPU backend (jaxlib 0.10.2) fuses this with its
    # neighbours and computes wrong sums where an axis has size 1.
    terms = [converted[..., v, :] * weight for v, weight in enumerate(plan.conversion_weights)]
    if gains is not None:  # positive lines first
        terms = [term * gains[2 * v // len(terms)] for v, term in enumerate(terms)]
    return sum(terms[1:], start=terms[0])


def digital_offset(plan: Plan, codes: jax.Array, rows: np.ndarray) -> jax.Array | float:
    """Offset encoding: the offset times the input sum of a tile's rows, added up digitally beside the array."""
    if plan.digital_offset == 0.0 or plan.fold:
        return 0.0
    ones = jnp.ones((*rows.shape, plan.groups), codes.dtype)
    sums = tile_product(codes, ones, plan.conv, rows, apart=plan.by_channel, parts=1)
    return plan.digital_offset * jnp.repeat(sums, plan.columns // plan.groups, axis=-1)


def input_digits(plan: Plan, codes: jax.Array) -> list[jax.Array]:
    """What each cycle of one pass streams: ``sign(x) * ((|x| >> j * dac_bits) & (2**dac_bits - 1))``, lowest first."""
    count = plan.spec.cycles
    if count == 1:
        return [codes]
    base = 2.0 ** (plan.spec.dac_bits or 0)
    magnitude = jnp.abs(codes)
    shifted = [jnp.floor(magnitude / base**j) for j in range(count)] + [jnp.zeros_like(magnitude)]
    return [jnp.sign(codes) * (shifted[j] - base * shifted[j + 1]) for j in range(count)]


def cycle_codes(plan: Plan, codes: jax.Array) -> list[jax.Array]:
    """What a read streams: one array per entry of ``plan.cycle_weights``."""
    if plan.fold:
        return [codes]
    digits = input_digits(plan, codes)
    if not plan.two_pass:
        return digits
    return [jnp.maximum(d, 0.0) for d in digits] + [jnp.maximum(-d, 0.0) for d in digits]


def folded_squares(plan: Plan, codes: jax.Array) -> jax.Array:
    """Squared inputs that weigh a folded read's variance: each cycle's noise is its own and is shifted with its sum."""
    squares = [4.0 ** (j * (plan.spec.dac_bits or 0)) * c**2 for j, c in enumerate(input_digits(plan, codes))]
    return sum(squares[1:], start=squares[0])


def side_by_side(effective: jax.Array, plan: Plan) -> jax.Array:
    """Conversions as neighbouring columns, ``[V, ..., N] -> [..., V * N]``, within each group of a convolution."""
    count = effective.shape[0]
    if count == 1:
        return effective[0]
    split = effective.reshape(*effective.shape[:-1], plan.groups, plan.columns // plan.groups)
    return jnp.moveaxis(split, 0, -2).reshape(*effective.shape[1:-1], count * plan.columns)


def _apart(sums: jax.Array, plan: Plan) -> jax.Array:
    """Undo :func:`side_by_side` on column sums: ``[..., V * N] -> [..., V, N]``."""
    count = sums.shape[-1] // plan.columns
    if count == 1:
        return sums[..., None, :]
    split = sums.reshape(*sums.shape[:-1], plan.groups, count, plan.columns // plan.groups)
    return jnp.moveaxis(split, -2, -3).reshape(*sums.shape[:-1], count, plan.columns)


def together(sums: jax.Array, plan: Plan) -> jax.Array:
    """:func:`side_by_side` for column sums: ``[..., V, N] -> [..., V * N]``."""
    split = sums.reshape(*sums.shape[:-1], plan.groups, plan.columns // plan.groups)
    return jnp.moveaxis(split, -3, -2).reshape(*sums.shape[:-2], -1)


def cell_noise(converters: Converters, conversion: jax.Array | int, deviation: jax.Array) -> jax.Array:
    """What the cells of one conversion add to their columns in this read, of standard deviation ``deviation``.

    One draw a column, equal in distribution to one a cell.
    """
    return deviation * _normal(converters, Noise.CELLS, conversion, deviation)


def _normal(converters: Converters, purpose: Noise, conversion: jax.Array | int, like: jax.Array) -> jax.Array:
    """Standard normal draws of this read, shaped as ``like``."""
    assert converters.key is not None
    key = stream(converters.key, len(Noise) * conversion + int(purpose))
    return draws.coarse_normal(key, like.shape, like.dtype)
