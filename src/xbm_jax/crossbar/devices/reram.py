"""Filamentary ReRAM: three published devices. None drifts as PCM does; where time was measured, the spread grows."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp

from xbm_jax.crossbar.devices.ages import check_time
from xbm_jax.crossbar.devices.fitted import FittedDevice, polynomial, relax
from xbm_jax.crossbar.primitives import draws
from xbm_jax.crossbar.validate import check_choice

__all__ = ["ReramCmo", "ReramMilo", "ReramWan"]

_WAN_FITS = (
    (math.log(1.0), (0.348, 16.030, -43.853, 45.393, -16.815)),
    (math.log(86_400.0), (0.701, 22.086, -50.773, 47.095, -16.458)),
    (math.log(172_800.0), (0.782, 20.274, -43.507, 37.062, -11.934)),
)


@dataclass(frozen=True)
class ReramWan(FittedDevice):
    """The 1T1R ReRAM of NeuRRAM; G_fs = 40 uS.

        fit "crosssim": sigma(1 s) = 1.053 + 0.2374 G - 1.167e-2 G^2 + 1.536e-4 G^3        uS, fitted up to 39.26 uS
        fit "aihwkit":  sigma(1 s) = 0.348 + 16.030 x - 43.853 x^2 + 45.393 x^3 - 16.815 x^4
                        sigma(1 d) = 0.701 + 22.086 x - 50.773 x^2 + 47.095 x^3 - 16.458 x^4
                        sigma(2 d) = 0.782 + 20.274 x - 43.507 x^2 + 37.062 x^3 - 11.934 x^4      uS

    The mean does not move. Between the three times sigma is linear in ln t, and before 1 s and after 2 d it is held
    (aihwkit refuses other times: the interpolation is ours). A cell keeps the error that it was written with and gains
    an independent increment (:func:`~xbm_jax.crossbar.devices.fitted.relax`). The CrossSim fit has no data after 1 s,
    so no drift.
    The two fits are 77 % apart at 1 uS, 7 % at 10 uS and 46 % at 39.26 uS. Read noise was not fitted.

    Source: Wan et al., Nature 608, 504 (2022), Extended Data Fig. 3; CrossSim ``RRAM_Wan``, aihwkit
    ``inference/noise/reram.py`` (which leaves the 40 uS fit unscaled at its default g_max of 25 uS; here it is scaled).

    Args:
        fit: whose fit.
    """

    _full_scale: ClassVar[float] = 40.0

    fit: Literal["aihwkit", "crosssim"] = "aihwkit"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("ReramWan.fit", self.fit, ("aihwkit", "crosssim"))

    def drift(
        self, g: jax.Array, target: jax.Array, g_max: float, t_seconds: jax.Array | float, key: jax.Array
    ) -> jax.Array:
        t = check_time(t_seconds, g.dtype)
        if self.fit == "crosssim":
            return g
        eps = draws.normal(key, target.shape, target.dtype)
        unit = self.unit(g_max)
        growth = unit * self._growth(target / unit, t)
        return relax(g, target, self.program_sigma(target, g_max), 0.0, growth, eps)

    def _fit_sigma(self, g_fit: jax.Array) -> jax.Array:
        if self.fit == "crosssim":
            return polynomial((1.053, 0.2374, -1.167e-2, 1.536e-4), g_fit)
        return polynomial(_WAN_FITS[0][1], g_fit / self.full_scale)

    def _growth(self, g_fit: jax.Array, t_seconds: jax.Array) -> jax.Array:
        """sigma(t) - sigma(1 s), uS."""
        x, log_t = g_fit / self.full_scale, jnp.log(jnp.maximum(t_seconds, 1.0))
        total = jnp.zeros_like(x)
        for (log_a, sigma_a), (log_b, sigma_b) in itertools.pairwise(_WAN_FITS):
            share = jnp.clip((log_t - log_a) / (log_b - log_a), 0.0, 1.0)
            total += share * polynomial(tuple(b - a for a, b in zip(sigma_a, sigma_b, strict=True)), x)
        return total


@dataclass(frozen=True)
class ReramMilo(FittedDevice):
    """HfO2 ReRAM written by an incremental gate-voltage verify algorithm (IGVVA-100); 50..225 uS, G_fs = 225 uS.

        sigma_prog = max(4.782321 - 0.009107 G, 0)      uS, G in uS

    No drift and no read noise were fitted. Its current-voltage curve is :func:`milo_current`.
    Source: Milo et al., IEEE IRPS (2021), Fig. 4, as fitted by CrossSim (``RRAM_Milo``).
    """

    _full_scale: ClassVar[float] = 225.0

    def _fit_sigma(self, g_fit: jax.Array) -> jax.Array:
        return polynomial((4.782321, -0.009107), g_fit)


@dataclass(frozen=True)
class ReramCmo(FittedDevice):
    """CMO/HfOx ReRAM; 9..88.2 uS, G_fs = 88.2 uS.

        acceptance "2%":   sigma_prog = 0.0112185391 + 0.01129027418 G                     uS, G in uS
        acceptance "0.2%": sigma_prog = 0.00081107 + 0.00106879 G                          uS
        t > 0:  g_t = g_target - 0.08900206 ln t + (0.04201137 ln t + 0.41183342) eps      uS, t in s

    The decay replaces the programming error: it is drawn about the target. Before 1 s, where ln t turns negative and
    sigma would too, that of 1 s is held (ours). Clipped at zero, not at 9 and 88.2 uS; read noise is not modelled.
    Source: Falcone et al., as fitted by aihwkit (``ReRamCMONoiseModel``).

    Args:
        acceptance: the width of the program-and-verify loop's acceptance range, of the target.
    """

    _full_scale: ClassVar[float] = 88.2

    acceptance: Literal["2%", "0.2%"] = "2%"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("ReramCmo.acceptance", self.acceptance, ("2%", "0.2%"))

    def drift(
        self, g: jax.Array, target: jax.Array, g_max: float, t_seconds: jax.Array | float, key: jax.Array
    ) -> jax.Array:
        t = check_time(t_seconds, g.dtype)
        log_t = jnp.log(jnp.maximum(t, 1.0))
        eps = draws.normal(key, target.shape, target.dtype)
        change = -0.08900206 * log_t + (0.04201137 * log_t + 0.41183342) * eps
        return jnp.where(t > 0.0, jnp.maximum(target + self.unit(g_max) * change, 0.0), g)

    def _fit_sigma(self, g_fit: jax.Array) -> jax.Array:
        wide = self.acceptance == "2%"
        return polynomial((0.0112185391, 0.01129027418) if wide else (0.00081107, 0.00106879), g_fit)
