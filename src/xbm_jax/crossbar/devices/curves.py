"""Cells whose current is not in proportion to the voltage: a third-order curve of every cell.

    I(g, V) = g V + A2(g) V^2 + A3(g) V^3

A DAC puts V = v_read * code / c_full on a word line, c_full the largest code of one cycle. In units of (input code x
level) a column is then three products::

    I / (v_unit g_step) = c @ E + c^2 @ E2 + c^3 @ E3,    v_unit = v_read / c_full
    E2 = v_unit A2(g) / g_step,    E3 = v_unit^2 A3(g) / g_step        a pair's two cells subtracted, as for E

The linear part is what a read without a curve multiplies by. With one input bit a cycle every driven cell sees v_read,
and the curve is a change of conductance; with more, small inputs count for less or more than their share.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax

from xbm_jax.crossbar.validate import keep_number

__all__ = ["Curve"]


@dataclass(frozen=True)
class Curve:
    """The base of current-voltage curves; a user's own is a frozen dataclass with :meth:`coefficients`.

    Args:
        v_read_volts: voltage of the largest code that one DAC cycle streams; above 0.
    """

    v_read_volts: float = 0.2

    def __post_init__(self) -> None:
        keep_number(self, "v_read_volts", low=0.0, open_low=True)

    def coefficients(self, g: jax.Array) -> tuple[jax.Array, jax.Array]:
        """A2 and A3 of cells of conductance ``g`` (siemens near 0 V), in A/V^2 and A/V^3; the shape of ``g``."""
        raise TypeError(f"{type(self).__name__} gives no coefficients for {g.shape}")
