"""The current-voltage curve of Milo's HfO2 ReRAM: currents of one cell, and the curve that a spec takes."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from xbm_jax.crossbar.devices.curves import Curve
from xbm_jax.crossbar.devices.fitted import polynomial
from xbm_jax.crossbar.validate import check_number, keep_number

__all__ = ["MILO_G_RANGE_SIEMENS", "MILO_MAX_VOLTS", "MiloCurve", "milo_current", "milo_nonlinearity"]

MILO_G_RANGE_SIEMENS = (50e-6, 225e-6)
MILO_MAX_VOLTS = 0.5

# polyval([1.388e-4, 1.541e-3, 5.711e-3, 7.063e-3], L) and polyval([8.871e-5, 6.7919e-4, 1.2968e-3], L), L = log10 G,
# about L = -4 (ascending in L + 4): the terms of the originals are 1e4 times their sum, which float32 cannot hold.
_NL2 = (
    7.063e-3 - 4 * 5.711e-3 + 16 * 1.541e-3 - 64 * 1.388e-4,
    5.711e-3 - 8 * 1.541e-3 + 48 * 1.388e-4,
    1.541e-3 - 12 * 1.388e-4,
    1.388e-4,
)
_NL3 = (1.2968e-3 - 4 * 6.7919e-4 + 16 * 8.871e-5, 6.7919e-4 - 8 * 8.871e-5, 8.871e-5)


def milo_nonlinearity(g: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Second- and third-order coefficients of Milo's I-V curve, in A/V^2 and A/V^3; shapes of ``g`` (siemens).

        NL2 = polyval([1.388e-4, 1.541e-3, 5.711e-3, 7.063e-3], log10 g)
        NL3 = polyval([8.871e-5, 6.7919e-4, 1.2968e-3], log10 g)

    A column's current is then three products: v @ g + v^2 @ NL2 + v^3 @ NL3. The fit holds for 50..225 uS (measured:
    62.5..110, with linearity assumed at 225). Outside it NL/g is held at the nearer end (ours): g = 0 conducts nothing.
    Source: Milo et al., IEEE IRPS (2021), Fig. 1, as fitted by CrossSim (``RRAM_Milo``).
    """
    held = jnp.clip(g, *MILO_G_RANGE_SIEMENS)
    decades = jnp.log10(held * 1e4)
    share = g / held
    return share * polynomial(_NL2, decades), share * polynomial(_NL3, decades)


def milo_current(g: jax.Array, volts: jax.Array | float) -> jax.Array:
    """Current of Milo's ReRAM cell, amperes: ``I = g V + NL2 V^2 + NL3 V^3``, |V| <= 0.5.

    ``g``: siemens at V near 0; ``volts``: any shape that broadcasts with it. Raises SpecError for a plain number
    beyond 0.5 V (arrays are not checked). Source: :func:`milo_nonlinearity`.
    """
    if not isinstance(volts, jax.Array):
        check_number("volts", volts, low=-MILO_MAX_VOLTS, high=MILO_MAX_VOLTS)
    second, third = milo_nonlinearity(g)
    return volts * (g + volts * (second + volts * third))


@dataclass(frozen=True)
class MiloCurve(Curve):
    """HfO2 ReRAM, |V| <= 0.5; see :func:`milo_nonlinearity` for fit and source."""

    def __post_init__(self) -> None:
        keep_number(self, "v_read_volts", low=0.0, high=MILO_MAX_VOLTS, open_low=True)

    def coefficients(self, g: jax.Array) -> tuple[jax.Array, jax.Array]:
        return milo_nonlinearity(g)
