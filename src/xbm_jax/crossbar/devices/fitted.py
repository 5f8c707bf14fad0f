"""What the published device models share: a fit in the paper's units, carried over to the cell at hand.

Every fit is a function of a conductance G in its own unit (uS; nA for SONOS) up to its own full scale G_fs. With
``rescale=True`` (default) the cell's g_max stands for G_fs, so that errors keep their share of the range:

    unit = g_max / G_fs,   G = g / unit,   sigma_g = unit * sigma_fit(G)

With ``rescale=False`` conductances are absolute (unit = 1 uS) and a g_max above G_fs is refused. At g_max = G_fs both
are the published formula as it stands. Outside the measured range (a g_min below it) the formula is extrapolated.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

import jax
import jax.numpy as jnp

from xbm_jax.crossbar.devices.laws import Device
from xbm_jax.crossbar.primitives import draws
from xbm_jax.crossbar.validate import check_bool
from xbm_jax.errors import SpecError

__all__ = ["FittedDevice", "polynomial", "relax"]


@dataclass(frozen=True)
class FittedDevice(Device, ABC):
    """A device whose programming error is a Gaussian with a fitted sigma(G), clipped at zero conductance.

        program: g_0 = max(g_target + sigma(g_target) eps, 0),   eps ~ N(0, 1)

    Subclasses give ``_fit_sigma`` and ``full_scale`` (both in the unit of the fit) and ``_unit_siemens`` (of it).

    Args:
        rescale: whether g_max stands for the fit's full scale, or conductances are absolute (see the module).
    """

    _full_scale: ClassVar[float] = 1.0
    _unit_siemens: ClassVar[float] = 1e-6

    rescale: bool = field(default=True, kw_only=True)

    def __post_init__(self) -> None:
        check_bool(f"{type(self).__name__}.rescale", self.rescale)

    @property
    def full_scale(self) -> float:
        """The fit's largest conductance, in the unit of the fit."""
        return self._full_scale

    @property
    def g_max_fit(self) -> float:
        """The conductance at the fit's full scale, siemens: the natural ``g_max`` of this device."""
        return self.full_scale * self._unit_siemens

    def unit(self, g_max: float) -> float:
        """Siemens per unit of the fit. Raises SpecError where absolute conductances leave the fit's range."""
        if self.rescale:
            return g_max / self.full_scale
        if g_max > self.g_max_fit * (1.0 + 1e-6):
            raise SpecError("g_max", g_max, f"at most {self.g_max_fit:g} S for {type(self).__name__}(rescale=False)")
        return self._unit_siemens

    def program_sigma(self, target: jax.Array, g_max: float) -> jax.Array:
        """Standard deviation of the programming error at ``target``, both siemens; at least 0."""
        unit = self.unit(g_max)
        return unit * jnp.maximum(self._fit_sigma(target / unit), 0.0)

    def program(self, target: jax.Array, g_max: float, key: jax.Array) -> jax.Array:
        eps = draws.normal(key, target.shape, target.dtype)
        return jnp.maximum(target + self.program_sigma(target, g_max) * eps, 0.0)

    @abstractmethod
    def _fit_sigma(self, g_fit: jax.Array) -> jax.Array:
        """Standard deviation of the programming error, both in the unit of the fit."""


def polynomial(ascending: tuple[float, ...], x: jax.Array) -> jax.Array:
    """``sum_i ascending[i] x^i`` by Horner's rule, in the dtype of ``x``."""
    total = jnp.full_like(x, ascending[-1])
    for coefficient in reversed(ascending[:-1]):
        total = total * x + coefficient
    return total


def relax(
    g: jax.Array, mean_0: jax.Array, sigma_0: jax.Array, shift: jax.Array | float, growth: jax.Array, eps: jax.Array
) -> jax.Array:
    """Carry cells from N(mean_0, sigma_0) to N(mean_0 + shift, sigma_t = sigma_0 + growth), each keeping its own error.

        g_t = max(g + shift + min(growth / sigma_0, 0) (g - mean_0) + sqrt(max(sigma_t^2 - sigma_0^2, 0)) eps, 0)

    The marginal at t is the published one; that the error grows by an independent increment, and shrinks in proportion,
    rather than being drawn afresh, is an inference. It makes g_t continuous in t: no shift and no growth return ``g``.
    """
    shrink = jnp.where(sigma_0 > 0.0, jnp.minimum(growth / jnp.where(sigma_0 > 0.0, sigma_0, 1.0), 0.0), 0.0)
    fresh = jnp.sqrt(jnp.maximum(growth, 0.0)) * jnp.sqrt(jnp.maximum(2.0 * sigma_0 + growth, 0.0))
    return jnp.maximum(g + shift + shrink * (g - mean_0) + fresh * eps, 0.0)
