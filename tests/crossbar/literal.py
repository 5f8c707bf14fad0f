"""The slow oracle: a crossbar read written down from the equations, tile by tile, in float64 and plain NumPy.

Nothing here calls the code under test (``Conv`` and ``ChannelOrder`` are only records of numbers). A convolution is
unfolded, rows are put in their order and cut into tiles, each slice of each cycle is one product with the difference of
two conductances, the converter is a list of codes, and shift, add and gain follow:

    I[j, s, t, n] = sum_{r in tile t} x[j, r] * (g[+, s, r, n] - g[-, s, r, n]) / g_step
    D[t, n] = sum_{j, s} 2**(j * dac_bits + s * cell_bits) * ADC(I[j, s, t, n])
    y[n] = s_w[n] * s_x * sum_t a[t, n] * D[t, n]
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from xbm_jax.crossbar import ChannelOrder, Conv

NEAR_A_TIE = 1e-3  # in steps: closer than this to the border of two codes, float32 may choose the other one


@dataclass(frozen=True)
class Codes:
    """A converter's list of levels, ``offset + lsb * code``, nearest wins, a tie goes to the even code.

    ``lsb``, ``first`` and ``offset`` broadcast to [cycles, slices, tiles, columns].
    """

    bits: int
    lsb: np.ndarray | float
    first: np.ndarray | float
    offset: np.ndarray | float = 0.0

    def convert(self, sums: np.ndarray, j: int, s: int, t: int) -> tuple[np.ndarray, np.ndarray]:
        """Converted column sums [..., N], and where float32 could not be sure of the code."""
        lsb, first, offset = (self._at(a, j, s, t) for a in (self.lsb, self.first, self.offset))
        codes = np.stack([first + k for k in range(2**self.bits)])  # [codes, 1 or N]
        steps = (sums - offset) / lsb
        distance = np.abs(steps[None] - codes.reshape(len(codes), *[1] * (sums.ndim - 1), -1))
        nearest = distance.min(0)
        tied = distance == nearest
        even = (codes % 2 == 0).reshape(len(codes), *[1] * (sums.ndim - 1), -1)
        choice = np.where((tied & even).any(0), (tied & even).argmax(0), tied.argmax(0))
        code = np.broadcast_to(first, sums.shape[-1:]) + choice
        unsure = np.abs(nearest - 0.5) < NEAR_A_TIE
        return offset + lsb * code, unsure

    @staticmethod
    def _at(a: np.ndarray | float, j: int, s: int, t: int) -> np.ndarray:
        a = np.asarray(a, np.float64)
        a = a.reshape((1,) * (4 - a.ndim) + a.shape)
        return a[j % a.shape[0], s % a.shape[1], t % a.shape[2]]


def explicit_codes(low: float, high: float, bits: int) -> Codes:
    """``2**bits`` codes from ``low`` to ``high`` inclusive."""
    return Codes(bits, (high - low) / (2**bits - 1), 0, low)


def granular_codes(bits: int) -> Codes:
    """The integers that ``bits`` bits hold in two's complement."""
    return Codes(bits, 1.0, -(2 ** (bits - 1)))


def encode(w_int: np.ndarray, weight_bits: int, cell_bits: int) -> np.ndarray:
    """Levels [2, S, *shape] of integer weights: the magnitude in base ``2**cell_bits`` on the cell of its sign."""
    slices = math.ceil((weight_bits - 1) / cell_bits)
    levels = np.zeros((2, slices, *w_int.shape), int)
    for entry, w in np.ndenumerate(w_int):
        rest = abs(int(w))
        for s in range(slices):
            rest, levels[(int(w < 0), s, *entry)] = divmod(rest, 2**cell_bits)
        assert rest == 0
    return levels


def conduct(levels: np.ndarray, cell_bits: int, on_off: float, g_max: float) -> np.ndarray:
    """Conductances of ideal cells: ``g_min + l / (L - 1) * (g_max - g_min)``."""
    g_min = g_max / on_off
    return g_min + levels / (2**cell_bits - 1) * (g_max - g_min)


def signed_levels(
    levels: np.ndarray, conductance: np.ndarray, cell_bits: int, on_off: float, g_max: float
) -> np.ndarray:
    """``(g[+] - g[-]) / g_step`` [S, *shape] of cells that hold ``conductance`` (float32) where ``levels`` were asked.

    Written as nominal levels plus deviations, because float32 conductances resolve a level to 1e-5 only.
    """
    step = g_max * (1 - 1 / on_off) / (2**cell_bits - 1)
    asked = conduct(levels, cell_bits, on_off, g_max).astype(np.float32).astype(np.float64)
    actual = levels + (conductance.astype(np.float64) - asked) / step
    return actual[0] - actual[1]


Order = str | ChannelOrder


def row_of(entry: tuple[int, ...], kernel_shape: tuple[int, ...], row_order: Order) -> int:
    """Word line of kernel entry (k,) or (i, j, c): ``channel`` counts kh and kw fastest, ``tap`` counts c fastest.

    An order lists channels as they stand, and within one kh and kw count as in ``channel``.
    """
    *taps, c = entry
    place = c if isinstance(row_order, str) else row_order.order.index(c)
    if not taps:
        return place
    (i, j), (kh, kw, channels) = taps, kernel_shape[:3]
    return i * kw * channels + j * channels + c if row_order == "tap" else place * kh * kw + i * kw + j


def tile_of(kernel_shape: tuple[int, ...], rows: int, row_order: Order) -> np.ndarray:
    """Row tile of each kernel entry, shape ``kernel_shape[:-1]``."""
    tiles = np.zeros(kernel_shape[:-1], int)
    for entry in np.ndindex(*kernel_shape[:-1]):
        tiles[entry] = row_of(entry, kernel_shape, row_order) // rows
    return tiles


def pad(x: np.ndarray, kernel_hw: tuple[int, int], conv: Conv) -> np.ndarray:
    """NHWC images with their border of zeros; ``SAME`` puts the odd pixel at the bottom and right."""
    amounts = [(0, 0), (0, 0)] if isinstance(conv.padding, str) else list(conv.padding)
    if conv.padding == "SAME":
        amounts = []
        for size, k, stride, dilation in zip(x.shape[1:3], kernel_hw, conv.strides, conv.dilation, strict=True):
            total = max((math.ceil(size / stride) - 1) * stride + (k - 1) * dilation + 1 - size, 0)
            amounts.append((total // 2, total - total // 2))
    return np.pad(x, [(0, 0), *amounts, (0, 0)])


def unfold(x: np.ndarray, kernel_shape: tuple[int, ...], conv: Conv | None) -> np.ndarray:
    """Every output's inputs [groups, ..., *kernel_shape[:-1]] (im2col), one image patch at a time."""
    if conv is None:
        return x[None]
    kh, kw, channels, _ = kernel_shape
    (down, right), (di, dj) = conv.strides, conv.dilation
    padded = pad(x, (kh, kw), conv)
    height = (padded.shape[1] - (kh - 1) * di - 1) // down + 1
    width = (padded.shape[2] - (kw - 1) * dj - 1) // right + 1
    patches = np.zeros((conv.groups, len(x), height, width, kh, kw, channels))
    for g, row, col, i, j in np.ndindex(conv.groups, height, width, kh, kw):
        pixel = padded[:, row * down + i * di, col * right + j * dj]
        patches[g, :, row, col, i, j] = pixel[:, g * channels : (g + 1) * channels]
    return patches


def fold_back(patches: np.ndarray, x_shape: tuple[int, ...], conv: Conv) -> np.ndarray:
    """Transpose of :func:`unfold` for a convolution: each patch entry added back to its pixel."""
    groups, _, height, width, kh, kw, channels = patches.shape
    (down, right), (di, dj) = conv.strides, conv.dilation
    at = np.arange(np.prod(x_shape[1:3])).reshape(1, *x_shape[1:3], 1) + 1.0
    where = pad(at, (kh, kw), conv)[0, ..., 0].astype(int)  # 1 + pixel, 0 in the border
    x = np.zeros((x_shape[0], 1 + int(np.prod(x_shape[1:3])), x_shape[3]))
    for g, row, col, i, j in np.ndindex(groups, height, width, kh, kw):
        pixel = where[row * down + i * di, col * right + j * dj]
        x[:, pixel, g * channels : (g + 1) * channels] += patches[g, :, row, col, i, j]
    return x[:, 1:].reshape(x_shape)


def contract(patches: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Plain product of unfolded inputs [G, ..., *shape[:-1]] and kernel [*shape[:-1], N]; group g owns N/G columns."""
    groups, axes = len(patches), kernel.ndim - 1
    columns = kernel.shape[-1] // groups
    parts = [np.tensordot(patches[g], kernel[..., g * columns : (g + 1) * columns], axes) for g in range(groups)]
    return np.concatenate(parts, -1)


def stream(codes: np.ndarray, input_bits: int, dac_bits: int | None) -> list[np.ndarray]:
    """What the DACs put on the word lines cycle by cycle: ``dac_bits`` of the magnitude at a time, lowest first."""
    if dac_bits is None:
        return [codes]
    rest, cycles = np.abs(codes).astype(int), []
    for _ in range(math.ceil(input_bits / dac_bits)):
        cycles.append(np.sign(codes) * (rest % 2**dac_bits))
        rest = rest // 2**dac_bits
    return cycles


def input_codes(x: np.ndarray, scale: float, input_bits: int, signed: bool) -> np.ndarray:
    """Integers that the DACs get; a bipolar DAC leaves the lowest two's complement code unused."""
    top = max(2 ** (input_bits - 1) - 1, 1) if signed else 2**input_bits - 1
    return np.clip(np.rint(x / scale), -top if signed else 0, top)


@dataclass(frozen=True)
class Literal:
    """A programmed kernel as the oracle sees it: signed levels ``pairs`` [S, *kernel_shape], in units of ``g_step``."""

    pairs: np.ndarray
    rows: int
    cell_bits: int
    input_bits: int = 8
    dac_bits: int | None = None
    row_order: Order = "channel"
    conv: Conv | None = None
    adc: Codes | None = None

    @property
    def tiles(self) -> np.ndarray:
        return tile_of(self.pairs.shape[1:], self.rows, self.row_order)

    def column_sums(
        self, codes: np.ndarray, disturb: Callable[[int], np.ndarray] | None = None
    ) -> list[list[list[np.ndarray]]]:
        """Analog sums ``I[t][j][s]`` [..., N]; ``disturb(s)`` draws what is added to a slice's cells in one read."""
        tiles = self.tiles
        cycles = [unfold(c, self.pairs.shape[1:], self.conv) for c in stream(codes, self.input_bits, self.dac_bits)]
        noise = disturb or (lambda s: np.zeros(self.pairs.shape[1:]))
        return [
            [
                [contract(x, (pair + noise(s)) * (tiles == t)[..., None]) for s, pair in enumerate(self.pairs)]
                for x in cycles
            ]
            for t in range(tiles.max() + 1)
        ]

    def digital(
        self, codes: np.ndarray, disturb: Callable[[int], np.ndarray] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """``D`` [T, ..., N] after converters, shift and add, and whether float32 can be sure of every code in it."""
        totals, sure = [], []
        for t, per_cycle in enumerate(self.column_sums(codes, disturb)):
            total, certain = 0.0, True
            for j, per_slice in enumerate(per_cycle):
                for s, sums in enumerate(per_slice):
                    value, unsure = (sums, False) if self.adc is None else self.adc.convert(sums, j, s, t)
                    total = total + 2.0 ** (j * (self.dac_bits or 0) + s * self.cell_bits) * value
                    certain = certain & ~np.broadcast_to(unsure, sums.shape)
            totals.append(total)
            sure.append(certain)
        return np.stack(totals), np.stack(sure)

    def read(self, codes: np.ndarray, gain: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """``sum_t a[t, n] * D[t, n]`` in units of (input code x level), and where float32 can be sure of it."""
        digital, sure = self.digital(codes)
        return accumulate(digital, gain), np.asarray(sure.all(0))

    def worst_case(self, low_code: int, high_code: int) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest column sums [1, S, T, N] over all inputs whose codes lie in [low_code, high_code]."""
        tiles, shape = self.tiles, self.pairs.shape
        low = np.zeros((1, shape[0], tiles.max() + 1, shape[-1]))
        high = np.zeros_like(low)
        for (s, *entry, n), g in np.ndenumerate(self.pairs):
            at = (0, s, tiles[tuple(entry)], n)
            low[at] += min(g * low_code, g * high_code)
            high[at] += max(g * low_code, g * high_code)
        return low, high


def accumulate(digital: np.ndarray, gain: np.ndarray | None) -> np.ndarray:
    """Digital sum of ``D`` [T, ..., N] over row tiles, each column weighed by its gain [T, N]."""
    total = np.zeros(digital.shape[1:])
    for t, partial_sum in enumerate(digital):
        total = total + (partial_sum if gain is None else partial_sum * gain[t])
    return total


def snapped_codes(low: np.ndarray, high: np.ndarray, bits: int) -> Codes:
    """Codes over [low, high] widened to hold zero, moved by at most half a step so that zero is one of them."""
    low, high = np.minimum(low, 0.0), np.maximum(high, 0.0)
    lsb = np.where(high > low, (high - low) / (2**bits - 1), 1.0)
    return Codes(bits, lsb, np.rint(low / lsb))
