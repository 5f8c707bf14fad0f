"""What a chip is built of: arrays, cells, converters. Frozen, hashable, validated where they are made."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal

from xbm_jax.crossbar.devices.curves import Curve
from xbm_jax.crossbar.devices.laws import Device, Faults, Ideal
from xbm_jax.crossbar.validate import UNLESS_DEFAULT, check_choice, check_number, keep_int, keep_number
from xbm_jax.crossbar.writing.orders import RowOrder, check_row_order
from xbm_jax.errors import SpecError

__all__ = ["Adc", "Cell", "CrossbarSpec", "Wires"]

_SMALLEST, _LARGEST = 1e-30, 1e30
"""Steps and limits that float32 holds with room for the sums and quotients made of them."""


@dataclass(frozen=True)
class Cell:
    """One ReRAM device: ``g(level) = g_min + level / (L - 1) * (g_max - g_min)``, ``g_min = g_max / on_off``.

    Args:
        bits: a cell holds ``L = 2**bits`` levels; 1 to 8. ``None`` for an analog cell, which holds a whole weight at
            any conductance: its "levels" are the weight's integers.
        on_off: ratio of the highest to the lowest conductance, above 1; ``math.inf`` for a cell that closes fully.
        g_max_siemens: the highest conductance; a level's step must be at least 1e-30 S.
        max_writes: a cell that has been written this often is worn: it stays as it is, whatever is asked of it
            (ours: the mildest end of life). ``None`` for cells that do not wear.
    """

    bits: int | None = 7
    on_off: float = math.inf
    g_max_siemens: float = 1e-4
    max_writes: int | None = None

    def __post_init__(self) -> None:
        if self.bits is not None:
            keep_int(self, "bits", 1, 8)
        keep_number(self, "on_off", low=1.0, open_low=True, inf=True)
        keep_number(self, "g_max_siemens", low=0.0, high=_LARGEST, open_low=True)
        if self.max_writes is not None:
            keep_int(self, "max_writes", 1, 2**31 - 1)

    @property
    def g_min_siemens(self) -> float:
        """Conductance of level 0."""
        return self.g_max_siemens / self.on_off


@dataclass(frozen=True)
class Adc:
    """The converter of a column: clip to a range, then round half to even onto exactly ``2**bits`` codes.

    Args:
        bits: 1 to 16, or ``None`` for an ideal converter.
        range: ``"calibrated"``: a percentile of the column sums of real images, snapped so that zero is a code;
            ``"max"``: the column's worst case, known because the weights are frozen, snapped likewise;
            ``"granular"``: one level a step, the codes ``-2**(bits-1) .. 2**(bits-1)-1``;
            ``(lo, hi)``: taken as given, in units of (input code x level).
        per: what shares one calibrated range: the ``"layer"``, each row ``"tile"`` or each ``"column"`` of a tile.
        percentile: how much of the calibration images' column sums a range covers, in (50, 100].
        gain_mismatch: standard deviation of the converters' relative gain error, drawn once per converter.
        offset_mismatch_lsb: likewise of their offset, in steps.
        noise_lsb: output-referred noise of every conversion, in steps; reads then need a key.
        clip_gradient: what happens to the input's gradient where a conversion clips: ``"pass"`` lets it through, so
            that the backward pass is one product; ``"zero"`` stops it, tile by tile, at one product per conversion.
    """

    bits: int | None = 8
    range: Literal["calibrated", "max", "granular"] | tuple[float, float] = "calibrated"
    per: Literal["layer", "tile", "column"] = "layer"
    percentile: float = 99.9
    gain_mismatch: float = 0.0
    offset_mismatch_lsb: float = 0.0
    noise_lsb: float = 0.0
    clip_gradient: Literal["pass", "zero"] = "pass"

    def __post_init__(self) -> None:
        if self.bits is not None:
            keep_int(self, "bits", 1, 16)
        if isinstance(self.range, (tuple, list)):
            object.__setattr__(self, "range", self._explicit(tuple(self.range)))
        else:
            check_choice("Adc.range", self.range, ("calibrated", "max", "granular"))
        check_choice("Adc.per", self.per, ("layer", "tile", "column"))
        keep_number(self, "percentile", low=50.0, high=100.0, open_low=True)
        for name in ("gain_mismatch", "offset_mismatch_lsb", "noise_lsb"):
            keep_number(self, name, low=0.0)
        check_choice("Adc.clip_gradient", self.clip_gradient, ("pass", "zero"))
        if self.bits is None and (self.gain_mismatch or self.offset_mismatch_lsb or self.noise_lsb):
            raise SpecError("Adc.bits", None, "a number of bits: an ideal converter has neither mismatch nor noise")

    @property
    def exact(self) -> bool:
        """Whether all converters are alike and silent."""
        return self.gain_mismatch == 0 and self.offset_mismatch_lsb == 0 and self.noise_lsb == 0

    @staticmethod
    def _explicit(limits: tuple[Any, ...]) -> tuple[float, float]:
        if len(limits) != 2:
            raise SpecError("Adc.range", limits, "a pair (lo, hi) with lo < hi, or a named range")
        low, high = (float(check_number("Adc.range", limit, -_LARGEST, _LARGEST)) for limit in limits)
        if not high - low >= 2**16 * _SMALLEST:
            raise SpecError("Adc.range", limits, "a pair (lo, hi) with lo < hi")
        return low, high


@dataclass(frozen=True)
class Wires:
    """Resistance of wires, per segment between neighbouring cells; see :mod:`xbm_jax.crossbar.primitives.wires`.

    Args:
        row_ohms: a segment of a word line.
        col_ohms: a segment of a bit line.
    """

    row_ohms: float = 0.0
    col_ohms: float = 0.0

    def __post_init__(self) -> None:
        keep_number(self, "row_ohms", low=0.0)
        keep_number(self, "col_ohms", low=0.0)

    @property
    def ideal(self) -> bool:
        """Whether nothing drops along the wires."""
        return self.row_ohms == 0 and self.col_ohms == 0


@dataclass(frozen=True)
class CrossbarSpec:
    """Everything that decides how a kernel becomes cells and how its columns are read.

    Args:
        rows: word lines of an array, 8 to 1024.
        cols: physical bit lines of an array, 8 to 1024; a logical column stands on its slices' and its pair's
            neighbouring bit lines.
        weight_bits: 2 to 8, symmetric: ``|w_int| <= 2**(weight_bits - 1) - 1``.
        input_bits: 1 to 8; inputs are quantised with one calibrated scale per layer.
        dac_bits: inputs are streamed ``dac_bits`` at a time; ``None`` for all at once.
        encoding: ``"differential"``: positive and negative parts on two cells; ``"offset"``: ``w_int +
            2**(weight_bits - 1)`` on one, the offset (and what ``g_min`` conducts) removed digitally with the tile's
            input sum.
        subtract: where a pair's columns are subtracted: ``"analog"``, before the one converter, or ``"digital"``,
            after a conversion of each.
        negative_inputs: how a layer with signed inputs is read: ``"bipolar"`` DACs in one pass, or ``"two_pass"``:
            positive and negative parts in passes of their own.
        cell: the cells.
        adc: the converters.
        device: what writing, time and reading do to a conductance.
        faults: stuck cells.
        wires: resistance of word and bit lines.
        curve: the cells' current-voltage curve; ``None`` where current is in proportion to voltage.
        row_order: which kernel rows share a tile. ``"channel"``: (c, kh, kw), ``"tap"``: (kh, kw, c); or a
            :class:`ChannelOrder`, (order[0], kh, kw), (order[1], kh, kw), ..., of one layer's input channels: given by
            layer, ``program(..., rules={path: spec.replace(row_order=...)})``.
        active_rows: word lines that are read at once, 8 to ``rows`` and a divisor of it; ``None`` for all of them. A
            kernel matrix [K, N] is cut into ``ceil(K / active_rows)`` row tiles, each with conversions and mask bits of
            its own; an array holds ``rows / active_rows`` of them and is read once for each.
    """

    rows: int = 64
    cols: int = 64
    weight_bits: int = 8
    input_bits: int = 8
    dac_bits: int | None = None
    encoding: Literal["differential", "offset"] = "differential"
    subtract: Literal["analog", "digital"] = "analog"
    negative_inputs: Literal["bipolar", "two_pass"] = "bipolar"
    cell: Cell = field(default_factory=Cell)
    adc: Adc = field(default_factory=Adc)
    device: Device = field(default_factory=Ideal)
    faults: Faults = field(default_factory=Faults)
    wires: Wires = field(default_factory=Wires)
    curve: Curve | None = None
    row_order: RowOrder = "channel"
    active_rows: int | None = field(default=None, metadata=UNLESS_DEFAULT)

    def __post_init__(self) -> None:
        keep_int(self, "rows", 8, 1024)
        keep_int(self, "cols", 8, 1024)
        self._check_active_rows()
        keep_int(self, "weight_bits", 2, 8)
        keep_int(self, "input_bits", 1, 8)
        if self.dac_bits is not None:
            keep_int(self, "dac_bits", 1, self.input_bits)
        check_choice("CrossbarSpec.encoding", self.encoding, ("differential", "offset"))
        check_choice("CrossbarSpec.subtract", self.subtract, ("analog", "digital"))
        check_choice("CrossbarSpec.negative_inputs", self.negative_inputs, ("bipolar", "two_pass"))
        check_row_order("CrossbarSpec.row_order", self.row_order)
        kinds = {"cell": Cell, "adc": Adc, "device": Device, "faults": Faults, "wires": Wires}
        for name, kind in kinds.items():
            if not isinstance(getattr(self, name), kind):
                raise SpecError(f"CrossbarSpec.{name}", getattr(self, name), f"a {kind.__name__}")
        if self.curve is not None and not isinstance(self.curve, Curve):
            raise SpecError("CrossbarSpec.curve", self.curve, "a Curve, or None")
        self._check_combinations()

    def _check_active_rows(self) -> None:
        if self.active_rows is None:
            return
        keep_int(self, "active_rows", 8, self.rows)
        if self.rows % self.active_rows:
            raise SpecError("CrossbarSpec.active_rows", self.active_rows, f"a divisor of the {self.rows} rows, or None")

    def _check_combinations(self) -> None:
        if not self.g_step_siemens >= _SMALLEST:
            allowed = f"at least {_SMALLEST:g} S between neighbouring levels, here {self.g_step_siemens:g} S"
            raise SpecError("CrossbarSpec.cell.g_max_siemens", self.cell.g_max_siemens, allowed)
        if self.cell.bits is not None and self.cell.bits > self.stored_bits:
            allowed = f"at most the {self.stored_bits} bits that a {self.encoding} {self.weight_bits}-bit weight stores"
            raise SpecError("CrossbarSpec.cell.bits", self.cell.bits, allowed)
        if self.cell.bits is None and self.adc.range == "granular":
            raise SpecError(
                "CrossbarSpec.adc.range", "granular", "another range: analog cells have no levels to step by"
            )
        if self.encoding == "offset" and self.subtract == "digital":
            raise SpecError("CrossbarSpec.subtract", "digital", "'analog' (the default): offset encoding has no pairs")
        if self.curve is not None and not self.wires.ideal:
            allowed = "None: resistive wires are folded into conductances, which holds for cells with a linear current"
            raise SpecError("CrossbarSpec.curve", self.curve, allowed)
        if self.bitlines_per_column > self.cols:
            raise SpecError("CrossbarSpec.cols", self.cols, f"at least {self.bitlines_per_column}, one logical column")

    @property
    def tile_height(self) -> int:
        """Word lines of a row tile: those that are read at once."""
        return self.rows if self.active_rows is None else self.active_rows

    @property
    def max_weight(self) -> int:
        """The largest ``|w_int|``."""
        return 2 ** (self.weight_bits - 1) - 1

    @property
    def stored_bits(self) -> int:
        """Bits of a weight that cells hold: its magnitude (differential), or all of it (offset)."""
        return self.weight_bits - 1 if self.encoding == "differential" else self.weight_bits

    @property
    def cell_bits(self) -> int:
        """Bits that one cell stands for: its own, or the whole weight's in an analog cell."""
        return self.stored_bits if self.cell.bits is None else self.cell.bits

    @property
    def max_level(self) -> int:
        """The level of ``g_max``, ``L - 1``."""
        return 2**self.cell_bits - 1

    @property
    def g_step_siemens(self) -> float:
        """Conductance between neighbouring levels."""
        return (self.cell.g_max_siemens - self.cell.g_min_siemens) / self.max_level

    @property
    def slices(self) -> int:
        """Cells that hold one polarity of a weight, ``S = ceil(stored_bits / cell_bits)``; slice 0 is lowest."""
        return math.ceil(self.stored_bits / self.cell_bits)

    @property
    def cycles(self) -> int:
        """DAC cycles of one pass, ``J = ceil(input_bits / dac_bits)``."""
        return math.ceil(self.input_bits / (self.dac_bits or self.input_bits))

    @property
    def polarities(self) -> int:
        """Cells per slice: the two of a pair, or one."""
        return 2 if self.encoding == "differential" else 1

    @property
    def bitlines_per_column(self) -> int:
        """Physical bit lines of one logical column."""
        return self.slices * self.polarities

    def replace(self, **changes: Any) -> CrossbarSpec:
        """A copy with some fields changed, validated again."""
        return dataclasses.replace(self, **changes)
