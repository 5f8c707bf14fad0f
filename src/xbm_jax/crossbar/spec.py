"""What a chip is built of: arrays, cells, converters. Frozen, hashable, validated where they are made."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal

from xbm_jax.crossbar.devices import Device, Faults, Ideal
from xbm_jax.crossbar.validate import check_choice, check_int, check_number
from xbm_jax.errors import SpecError

__all__ = ["Adc", "Cell", "CrossbarSpec"]


@dataclass(frozen=True)
class Cell:
    """One ReRAM device: ``g(level) = g_min + level / (L - 1) * (g_max - g_min)``, ``g_min = g_max / on_off``.

    Args:
        bits: a cell holds ``L = 2**bits`` levels; 1 to 8.
        on_off: ratio of the highest to the lowest conductance, above 1; ``math.inf`` for a cell that closes fully.
        g_max_siemens: the highest conductance.
    """

    bits: int = 7
    on_off: float = math.inf
    g_max_siemens: float = 1e-4

    def __post_init__(self) -> None:
        check_int("Cell.bits", self.bits, 1, 8)
        check_number("Cell.on_off", self.on_off, low=1.0, open_low=True, inf=True)
        check_number("Cell.g_max_siemens", self.g_max_siemens, low=0.0, open_low=True)

    @property
    def max_level(self) -> int:
        """The top level, ``L - 1``."""
        return 2**self.bits - 1

    @property
    def g_min_siemens(self) -> float:
        """Conductance of level 0."""
        return self.g_max_siemens / self.on_off

    @property
    def g_step_siemens(self) -> float:
        """Conductance between neighbouring levels."""
        return (self.g_max_siemens - self.g_min_siemens) / self.max_level


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
    """

    bits: int | None = 8
    range: Literal["calibrated", "max", "granular"] | tuple[float, float] = "calibrated"
    per: Literal["layer", "tile", "column"] = "layer"
    percentile: float = 99.9

    def __post_init__(self) -> None:
        if self.bits is not None:
            check_int("Adc.bits", self.bits, 1, 16)
        if isinstance(self.range, (tuple, list)):
            object.__setattr__(self, "range", self._explicit(tuple(self.range)))
        else:
            check_choice("Adc.range", self.range, ("calibrated", "max", "granular"))
        check_choice("Adc.per", self.per, ("layer", "tile", "column"))
        check_number("Adc.percentile", self.percentile, low=50.0, high=100.0, open_low=True)

    @staticmethod
    def _explicit(limits: tuple[Any, ...]) -> tuple[float, float]:
        if len(limits) != 2:
            raise SpecError("Adc.range", limits, "a pair (lo, hi) with lo < hi, or a named range")
        for limit in limits:
            check_number("Adc.range", limit)
        if not limits[0] < limits[1]:
            raise SpecError("Adc.range", limits, "a pair (lo, hi) with lo < hi")
        return float(limits[0]), float(limits[1])


@dataclass(frozen=True)
class CrossbarSpec:
    """Everything that decides how a kernel becomes cells and how its columns are read.

    Args:
        rows: word lines of an array, 8 to 1024; a kernel matrix [K, N] is cut into ``ceil(K / rows)`` row tiles.
        cols: physical bit lines of an array, 8 to 1024; a logical column stands on its slices' and its pair's
            neighbouring bit lines.
        weight_bits: 2 to 8, symmetric: ``|w_int| <= 2**(weight_bits - 1) - 1``.
        input_bits: 1 to 8; inputs are quantised with one calibrated scale per layer.
        dac_bits: inputs are streamed ``dac_bits`` at a time; ``None`` for all at once.
        encoding: ``"differential"``: positive and negative parts on two cells.
        cell: the cells.
        adc: the converters.
        device: what writing, time and reading do to a conductance.
        faults: stuck cells.
        row_order: which kernel rows share a tile. ``"channel"``: (c, kh, kw), ``"tap"``: (kh, kw, c).
    """

    rows: int = 64
    cols: int = 64
    weight_bits: int = 8
    input_bits: int = 8
    dac_bits: int | None = None
    encoding: Literal["differential"] = "differential"
    cell: Cell = field(default_factory=Cell)
    adc: Adc = field(default_factory=Adc)
    device: Device = field(default_factory=Ideal)
    faults: Faults = field(default_factory=Faults)
    row_order: Literal["channel", "tap"] = "channel"

    def __post_init__(self) -> None:
        check_int("CrossbarSpec.rows", self.rows, 8, 1024)
        check_int("CrossbarSpec.cols", self.cols, 8, 1024)
        check_int("CrossbarSpec.weight_bits", self.weight_bits, 2, 8)
        check_int("CrossbarSpec.input_bits", self.input_bits, 1, 8)
        if self.dac_bits is not None:
            check_int("CrossbarSpec.dac_bits", self.dac_bits, 1, self.input_bits)
        check_choice("CrossbarSpec.encoding", self.encoding, ("differential",))
        check_choice("CrossbarSpec.row_order", self.row_order, ("channel", "tap"))
        for name, kind in (("cell", Cell), ("adc", Adc), ("device", Device), ("faults", Faults)):
            if not isinstance(getattr(self, name), kind):
                raise SpecError(f"CrossbarSpec.{name}", getattr(self, name), f"a {kind.__name__}")
        if self.cell.bits > self.weight_bits - 1:
            allowed = f"at most weight_bits - 1 = {self.weight_bits - 1} for a differential pair"
            raise SpecError("CrossbarSpec.cell.bits", self.cell.bits, allowed)
        if self.bitlines_per_column > self.cols:
            raise SpecError("CrossbarSpec.cols", self.cols, f"at least {self.bitlines_per_column}, one logical column")

    @property
    def max_weight(self) -> int:
        """The largest ``|w_int|``."""
        return 2 ** (self.weight_bits - 1) - 1

    @property
    def slices(self) -> int:
        """Cells that hold one weight's magnitude, ``S = ceil((weight_bits - 1) / cell.bits)``; slice 0 is lowest."""
        return math.ceil((self.weight_bits - 1) / self.cell.bits)

    @property
    def cycles(self) -> int:
        """DAC cycles of one read, ``J = ceil(input_bits / dac_bits)``."""
        return math.ceil(self.input_bits / (self.dac_bits or self.input_bits))

    @property
    def polarities(self) -> int:
        """Cells per slice: the positive and the negative one of a pair."""
        return 2

    @property
    def bitlines_per_column(self) -> int:
        """Physical bit lines of one logical column."""
        return self.slices * self.polarities

    def replace(self, **changes: Any) -> CrossbarSpec:
        """A copy with some fields changed, validated again."""
        return dataclasses.replace(self, **changes)
