"""The slow oracle for chips of any specification: what each cell holds, one conversion at a time, in float64 and NumPy.

Of the code under test it takes numbers alone: levels, conductances, converter grids and mismatch of the chip at hand.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from crossbar.literal import NEAR_A_TIE, contract, fold_back, stream, tile_of, unfold
from xbm_jax.crossbar import Conv, Tiles

FLOAT32 = 4e-6  # of the magnitudes added up: what a sum in float32 may be wrong by


class Conversion(NamedTuple):
    """One pass of a tile's columns through their converters."""

    tile: int
    cycle: int
    weight: float  # of cycle, slice and polarity together
    kernel: np.ndarray  # what multiplies the inputs, [*shape], in levels; zero in other tiles
    codes: np.ndarray  # what came out, [..., N]
    clipped: np.ndarray  # bool
    sure: np.ndarray  # bool: float32 gives the same code


class ByLine(NamedTuple):
    """A read under gains by line, and its straight-through derivatives."""

    digital: np.ndarray  # D [T, ..., N]
    sure: np.ndarray  # bool: float32 gives the same codes
    of_gain: np.ndarray  # dD/da [T, 2, ..., N]
    of_input: list[tuple[Any, np.ndarray]]  # dD/dx is the sum of: a factor of dy, and the kernel that spreads it
    size: float  # magnitudes that were added up
    clipped: np.ndarray  # share of the conversions of each column [T, N], or of each line [T, 2, N] if converted apart


@dataclass(frozen=True)
class CellByCell:
    """A programmed kernel as the oracle sees it; ``seen`` are conductances behind wires, siemens [P, S, *shape]."""

    tiles: Tiles
    seen: np.ndarray

    @property
    def conv(self) -> Conv | None:
        return self.tiles.plan.conv

    @property
    def shape(self) -> tuple[int, ...]:
        return self.tiles.plan.kernel_shape

    @property
    def index(self) -> np.ndarray:
        spec = self.tiles.plan.spec
        return tile_of(self.shape, spec.active_rows or spec.rows, spec.row_order)

    @property
    def cell_bits(self) -> int:
        spec = self.tiles.plan.spec
        return spec.cell.bits or spec.weight_bits - (spec.encoding == "differential")

    @property
    def step(self) -> float:
        cell = self.tiles.plan.spec.cell
        return cell.g_max_siemens * (1 - 1 / cell.on_off) / (2**self.cell_bits - 1)

    @property
    def g_min(self) -> float:
        cell = self.tiles.plan.spec.cell
        return cell.g_max_siemens / cell.on_off

    @property
    def held(self) -> np.ndarray:
        """Conductances in levels; as nominal levels plus deviations, since float32 resolves a level to 1e-5 only."""
        levels = np.asarray(self.tiles.levels, np.float64)
        asked = (self.g_min + levels * self.step).astype(np.float32).astype(np.float64)
        return levels + (np.asarray(self.seen, np.float64) - asked) / self.step + self.g_min / self.step

    def cycles(self, codes: np.ndarray) -> list[tuple[float, np.ndarray]]:
        """Weight and word-line codes of every cycle of every pass."""
        made, spec = self.tiles.plan, self.tiles.plan.spec
        passes = [(1.0, codes)]
        if made.signed_inputs and spec.negative_inputs == "two_pass":
            passes = [(1.0, np.maximum(codes, 0)), (-1.0, np.maximum(-codes, 0))]
        base = 2.0 ** (spec.dac_bits or 0)
        return [
            (sign * base**j, streamed)
            for sign, part in passes
            for j, streamed in enumerate(stream(part, spec.input_bits, spec.dac_bits))
        ]

    def currents(self, streamed: np.ndarray, cells: np.ndarray, held: np.ndarray) -> np.ndarray:
        """Column sums [..., N] of cells at their word lines' codes, in units of (input code x level)."""
        made, spec = self.tiles.plan, self.tiles.plan.spec
        patches = unfold(streamed, self.shape, self.conv)
        sums = contract(patches, held)
        if spec.curve is None:
            return sums
        top = (2 ** (spec.input_bits - 1) - 1 or 1) if made.signed_inputs else 2**spec.input_bits - 1
        if spec.dac_bits is not None and spec.dac_bits < spec.input_bits:
            top = min(top, 2**spec.dac_bits - 1)
        unit = spec.curve.v_read_volts / top
        second, third = milo(cells)
        cubic = contract((patches * unit) ** 2, second) + contract((patches * unit) ** 3, third)
        return sums + cubic / (unit * self.step)

    def conversions(self, codes: np.ndarray) -> Iterator[Conversion]:
        spec, held = self.tiles.plan.spec, self.held
        pair = spec.encoding == "differential"
        columns = [(s, p) for p in range(2 if pair and spec.subtract == "digital" else 1) for s in range(held.shape[1])]
        for t in range(self.index.max() + 1):
            inside = (self.index == t)[..., None]
            own, cells = held * inside, self.seen * inside
            for j, (cycle_weight, streamed) in enumerate(self.cycles(codes)):
                for v, (s, p) in enumerate(columns):
                    kernel, sums = own[p, s], self.currents(streamed, cells[p, s], own[p, s])
                    size = contract(unfold(np.abs(streamed), self.shape, self.conv), np.abs(own[:, s]).sum(0))
                    if pair and spec.subtract == "analog":
                        sums = sums - self.currents(streamed, cells[1, s], own[1, s])
                        kernel = own[0, s] - own[1, s]
                    weight = cycle_weight * 2.0 ** (s * self.cell_bits) * (-1.0) ** p
                    yield Conversion(t, j, weight, kernel, *self.convert(sums, size, j, v, t))

    def convert(
        self, sums: np.ndarray, size: np.ndarray, j: int, v: int, t: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Converted sums, whether they clip, and whether float32 can be sure of both."""
        bits, grid, own = self.tiles.plan.spec.adc.bits, self.tiles.adc, self.tiles.mismatch
        if bits is None or grid is None:
            return sums, np.zeros(sums.shape, bool), np.ones(sums.shape, bool)
        arrays = [np.asarray(a, np.float64) for a in (grid.lsb, grid.min_code, grid.offset)]
        lsb, first, offset = (a[j % a.shape[0], v % a.shape[1], t % a.shape[2]] for a in arrays)
        gain, shift = (1.0, 0.0) if own is None else (np.asarray(own.gain)[v, t], np.asarray(own.offset_lsb)[v, t])
        position = (sums * gain - offset) / lsb + shift
        code = np.clip(np.rint(position), first, first + 2**bits - 1)
        doubt = NEAR_A_TIE + FLOAT32 * (size + np.abs(offset)) / lsb
        sure = np.abs(position - np.floor(position) - 0.5) > doubt
        clipped = (position < first - 0.5) | (position > first + 2**bits - 0.5)
        return offset + lsb * code, clipped, sure

    @property
    def offset(self) -> float:
        """What is taken off a tile's sum per unit of its input sum."""
        spec = self.tiles.plan.spec
        if spec.encoding != "offset":
            return 0.0
        slices = sum(2.0 ** (s * self.cell_bits) for s in range(self.held.shape[1]))
        return 2.0 ** (spec.weight_bits - 1) + slices * self.g_min / self.step

    def digital(self, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        """``D`` [T, ..., N], where float32 is sure of every code in it, and the magnitudes that it adds up."""
        ones = np.ones(self.shape)
        count = int(self.index.max()) + 1
        totals: list[np.ndarray | float] = [0.0] * count
        certain: list[np.ndarray | bool] = [True] * count
        size = 0.0
        for made in self.conversions(codes):
            totals[made.tile] = totals[made.tile] + made.weight * made.codes
            certain[made.tile] = certain[made.tile] & made.sure
            size += float(np.abs(made.weight * made.codes).max())
        for t in range(count):
            inside = unfold(codes, self.shape, self.conv)
            taken_off = self.offset * contract(inside, ones * (self.index == t)[..., None])
            totals[t] = totals[t] - taken_off
            size += float(np.abs(taken_off).max())
        return np.stack(totals), np.stack(certain), size

    def input_gradient(self, codes: np.ndarray, dy: np.ndarray, gain: np.ndarray) -> tuple[np.ndarray, bool]:
        """dL/dx_int for an outer gradient ``dy`` [..., N], and whether float32 decides all clipping alike.

        Straight through the converters, or with clipped conversions left out; a cycle answers for an equal share.
        """
        stops = self.tiles.plan.spec.adc.clip_gradient == "zero" and not self.tiles.plan.fold
        parts = len(self.cycles(codes))
        total, certain = np.zeros(codes.shape), True
        for made in self.conversions(codes):
            # One cycle's weight is left out: over the cycles of a conversion the shares add up to its slice's own.
            own = made.weight / self.cycles(codes)[made.cycle][0] / parts
            free = ~made.clipped if stops else np.ones(dy.shape)
            total += self.spread(dy * gain[made.tile] * free * own, made.kernel, codes.shape)
            certain &= bool(made.sure.all()) or not stops
        for t in range(len(gain)):
            ones = np.ones(self.shape) * (self.index == t)[..., None]
            total -= self.spread(dy * gain[t] * self.offset, ones, codes.shape)
        return total, certain

    def by_line(self, codes: np.ndarray, gain: np.ndarray) -> ByLine:
        """A read under gains by line [T, 2, N]: tile, cycle and slice, one after another, each line's current apart.

        Where a pair is subtracted before its converter the two currents are gated first; a column without a line that
        is on is not converted. Else each line is converted, and its gain acts on the code.
        """
        spec, held = self.tiles.plan.spec, self.held
        stops = spec.adc.clip_gradient == "zero"
        total: list[Any] = [0.0] * len(gain)
        certain: list[Any] = [True] * len(gain)
        of_gain: dict[tuple[int, int], Any] = {(t, line): 0.0 for t in range(len(gain)) for line in (0, 1)}
        of_input: list[tuple[Any, np.ndarray]] = []
        beyond: list[list[np.ndarray]] = [[] for _ in range(len(gain))]
        size = 0.0
        for t in range(len(gain)):
            inside = (self.index == t)[..., None]
            for j, (cycle_weight, streamed) in enumerate(self.cycles(codes)):
                for s in range(held.shape[1]):
                    weight, own = cycle_weight * 2.0 ** (s * self.cell_bits), held[:, s] * inside
                    lines = [self.currents(streamed, self.seen[p, s] * inside, own[p]) for p in (0, 1)]
                    load = contract(unfold(np.abs(streamed), self.shape, self.conv), np.abs(own).sum(0))
                    share = 2.0 ** (s * self.cell_bits) / len(self.cycles(codes))
                    if spec.subtract == "analog":
                        load = load * np.abs(gain[t]).max(0)
                        sums = gain[t, 0] * lines[0] - gain[t, 1] * lines[1]
                        out, clipped, sure = self.convert(sums, load, j, s, t)
                        on = (gain[t] != 0).any(0)
                        free = ~clipped | (not stops)
                        total[t] = total[t] + weight * out * on
                        beyond[t].append(clipped)
                        certain[t] = certain[t] & (sure | ~on)
                        for line, sign in ((0, 1.0), (1, -1.0)):
                            of_gain[t, line] = of_gain[t, line] + weight * sign * lines[line] * free
                        of_input.append((share * free, gain[t, 0] * own[0] - gain[t, 1] * own[1]))
                        size += float(np.abs(weight * load).max())
                        continue
                    for line, sign in ((0, 1.0), (1, -1.0)):
                        out, clipped, sure = self.convert(lines[line], load, j, line * held.shape[1] + s, t)
                        total[t] = total[t] + sign * weight * gain[t, line] * out
                        beyond[t].append(clipped)
                        certain[t] = certain[t] & sure
                        of_gain[t, line] = of_gain[t, line] + sign * weight * out
                        of_input.append((sign * share * (~clipped | (not stops)), gain[t, line] * own[line]))
                        size += float(np.abs(weight * out).max())
        slopes = np.stack([np.stack([of_gain[t, line] for line in (0, 1)]) for t in range(len(gain))])
        lines = 1 if spec.subtract == "analog" else 2
        each = np.array(beyond).reshape(len(gain), -1, lines, int(np.prod(beyond[0][0].shape[:-1])), gain.shape[-1])
        rates = each.mean((1, 3))
        return ByLine(np.stack(total), np.stack(certain), slopes, of_input, size, rates[:, 0] if lines == 1 else rates)

    def spread(self, dy: np.ndarray, kernel: np.ndarray, x_shape: tuple[int, ...]) -> np.ndarray:
        """Transpose of the plain product with ``kernel``."""
        if self.conv is None:
            return dy @ kernel.T
        width = self.shape[-1] // self.conv.groups
        parts = [slice(g * width, (g + 1) * width) for g in range(self.conv.groups)]
        patches = np.stack([np.tensordot(dy[..., p], kernel[..., p], (-1, -1)) for p in parts])
        return fold_back(patches, x_shape, self.conv)


def milo(g: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The published polynomials in log10 G; outside of 50 to 225 uS their share of G is held."""
    held = np.clip(g, 50e-6, 225e-6)
    decades = np.log10(held)
    second = np.polyval([1.388e-4, 1.541e-3, 5.711e-3, 7.063e-3], decades)
    third = np.polyval([8.871e-5, 6.7919e-4, 1.2968e-3], decades)
    return second * g / held, third * g / held
