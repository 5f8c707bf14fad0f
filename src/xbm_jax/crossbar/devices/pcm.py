"""Phase-change memory: conductance-dependent programming error, power-law drift and 1/f read noise.

    program: g_0 = max(g_target + sigma_prog(x) eps, 0)
    drift:   g_t = g_0 (1 + t/t_0)^-nu,   nu = |mu_nu(x) + sigma_nu(x) eps_nu|,   one eps_nu per cell for all times
    read:    sigma_read = g_t Q(x_0) sqrt(ln((t + t_0 + t_read) / (2 t_read)))

with x = g_target / g_max, x_0 = g_0 / g_max, and t the user's time. The fits take their clock from programming and call
t_0 the first readout after it, which is the user's t = 0: drift is then none, and the noise is that of a cell t_0 old.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp

from xbm_jax.crossbar.devices.ages import check_time
from xbm_jax.crossbar.devices.fitted import FittedDevice, polynomial
from xbm_jax.crossbar.primitives import draws
from xbm_jax.crossbar.validate import check_choice, keep_int

__all__ = ["PcmHermes", "PcmJoshi"]

# Below this share of g_max the logarithms and powers below have all met their clips; it keeps x = 0 finite.
_X_MIN = 1e-4


@dataclass(frozen=True)
class _Pcm(FittedDevice):
    """Drift and read noise of the module's equations; subclasses give the fits as functions of x."""

    _t_read: ClassVar[float] = 250e-9

    def _share(self, g: jax.Array, g_max: float) -> jax.Array:
        return jnp.maximum(g / (self.unit(g_max) * self.full_scale), _X_MIN)

    def nu(self, target: jax.Array, g_max: float) -> tuple[jax.Array, jax.Array]:
        """Mean and standard deviation of the drift exponent (before the absolute value), both of target's shape."""
        return self._fit_nu(self._share(target, g_max))

    def drift(
        self, g: jax.Array, target: jax.Array, g_max: float, t_seconds: jax.Array | float, key: jax.Array
    ) -> jax.Array:
        mean, sigma = self.nu(target, g_max)
        nu = jnp.abs(mean + sigma * draws.normal(key, target.shape, target.dtype))
        return g * jnp.exp(-nu * jnp.log1p(check_time(t_seconds, g.dtype) / self._t_0()))

    def read_sigma(
        self, g: jax.Array, g_max: float, t_seconds: jax.Array | float, programmed: jax.Array | None = None
    ) -> jax.Array | None:
        x = self._share(g if programmed is None else programmed, g_max)
        age = check_time(t_seconds, g.dtype) + self._t_0()
        return g * self._fit_q(x) * jnp.sqrt(jnp.log((age + self._t_read) / (2.0 * self._t_read)))

    def _t_0(self) -> float:
        return 20.0

    @abstractmethod
    def _fit_nu(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Mean and standard deviation of the drift exponent."""

    @abstractmethod
    def _fit_q(self, x: jax.Array) -> jax.Array:
        """Read noise's share of the conductance."""


@dataclass(frozen=True)
class PcmJoshi(_Pcm):
    """Doped-GST mushroom PCM, one million cells at 90 nm; G_fs = 25 uS, t_0 = 20 s, t_read = 250 ns.

        fit "aihwkit":  sigma_prog = 0.26348 + 1.9650 x - 1.1731 x^2                        uS
        fit "crosssim": sigma_prog = 0.28638599 + 0.07585724 G - 0.00178767 G^2             uS, G in uS
        mu_nu = clip(-0.0155 ln x + 0.0244, 0.049, 0.1);  sigma_nu = clip(-0.0125 ln x - 0.0059, 0.008, 0.045)
        Q = min(0.0088 / x_0^0.65, 0.2)

    Source: Joshi et al., Nature Communications 11, 2473 (2020); drift, read noise and the first sigma as in aihwkit
    (``inference/noise/pcm.py``), the other sigma as in CrossSim (``PCM_Joshi``: no drift there; here both share it).
    The two sigmas agree within 4 % for G = 2.5..25 uS.

    Args:
        fit: whose fit of the programming error.
    """

    _full_scale: ClassVar[float] = 25.0

    fit: Literal["aihwkit", "crosssim"] = "aihwkit"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("PcmJoshi.fit", self.fit, ("aihwkit", "crosssim"))

    def _fit_sigma(self, g_fit: jax.Array) -> jax.Array:
        if self.fit == "crosssim":
            return polynomial((0.28638599, 0.07585724, -0.00178767), g_fit)
        return polynomial((0.26348, 1.9650, -1.1731), g_fit / self.full_scale)

    def _fit_nu(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        log_x = jnp.log(x)
        return jnp.clip(-0.0155 * log_x + 0.0244, 0.049, 0.1), jnp.clip(-0.0125 * log_x - 0.0059, 0.008, 0.045)

    def _fit_q(self, x: jax.Array) -> jax.Array:
        return jnp.minimum(0.0088 / x**0.65, 0.2)


@dataclass(frozen=True)
class PcmHermes(_Pcm):
    """PCM of the IBM HERMES project chip with one or two devices a cell; G_fs = 10.35 or 20.7 uS.

        two devices: sigma_prog = 0.16603222 + 4.71806468 x - 8.48101252 x^2 + 4.68961419 x^3    uS, t_0 = 300 s
        one device:  sigma_prog = 0.15781817 + 2.32443916 x - 2.16310839 x^2 + 0.68841818 x^3    uS, t_0 = 200 s
        mu_nu:    x < 0.0945: clip(-0.0387 ln x - 0.0182, 0.072, 0.13);    else 0.0736 - 0.0126 x - 0.0436 x^2
        sigma_nu: two: x < 0.3055: clip(-0.0117 ln x - 0.0057, 0.0091, 0.04);  else 0.0073 + 0.0093 x - 0.0118 x^2
                  one: x < 0.3039: clip(-0.0120 ln x - 0.0023, 0.0124, 0.04);  else 0.0104 + 0.0116 x - 0.0165 x^2
        Q:  two: x_0 < 0.16:   clip(-0.0117 ln x_0 - 0.0069, 0.015, 0.04)
                 else 0.0123 + 0.0211 x_0 - 0.0280 x_0^2 + 0.0069 x_0^3
            one: x_0 < 0.1591: clip(-0.0078 ln x_0 + 0.0038, 0.0179, 0.04)
                 else 0.0088 + 0.0768 x_0 - 0.1352 x_0^2 + 0.0664 x_0^3

    with t_read = 512 ns. Source: Le Gallo et al., Nature Electronics (2023), and Vasilopoulos et al., IEEE TED (2023),
    for two devices, in aihwkit's fit (``inference/noise/hermes.py``), which drifts both devices of a cell alike.

    Args:
        devices: devices a cell, 1 or 2.
    """

    _t_read: ClassVar[float] = 512e-9

    devices: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        keep_int(self, "devices", 1, 2)

    @property
    def full_scale(self) -> float:
        return 20.7 if self.devices == 2 else 10.35

    def _t_0(self) -> float:
        return 300.0 if self.devices == 2 else 200.0

    def _fit_sigma(self, g_fit: jax.Array) -> jax.Array:
        two = (0.16603222, 4.71806468, -8.48101252, 4.68961419)
        one = (0.15781817, 2.32443916, -2.16310839, 0.68841818)
        return polynomial(two if self.devices == 2 else one, g_fit / self.full_scale)

    def _fit_nu(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        mean = _branch(x, 0.0945, (-0.0387, -0.0182, 0.072, 0.13), (0.0736, -0.0126, -0.0436))
        if self.devices == 2:
            return mean, _branch(x, 0.3055, (-0.0117, -0.0057, 0.0091, 0.04), (0.0073, 0.0093, -0.0118))
        return mean, _branch(x, 0.3039, (-0.0120, -0.0023, 0.0124, 0.04), (0.0104, 0.0116, -0.0165))

    def _fit_q(self, x: jax.Array) -> jax.Array:
        if self.devices == 2:
            return _branch(x, 0.16, (-0.0117, -0.0069, 0.015, 0.04), (0.0123, 0.0211, -0.0280, 0.0069))
        return _branch(x, 0.1591, (-0.0078, 0.0038, 0.0179, 0.04), (0.0088, 0.0768, -0.1352, 0.0664))


def _branch(x: jax.Array, edge: float, low: tuple[float, float, float, float], high: tuple[float, ...]) -> jax.Array:
    """``clip(a ln x + b, lo, hi)`` with ``low = (a, b, lo, hi)`` below ``edge``, the polynomial ``high`` above it."""
    slope, offset, smallest, largest = low
    return jnp.where(x < edge, jnp.clip(slope * jnp.log(x) + offset, smallest, largest), polynomial(high, x))
