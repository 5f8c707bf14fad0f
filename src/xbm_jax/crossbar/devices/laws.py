"""What a device does to the conductance it was asked to hold.

A device model is a frozen dataclass with three moments in a cell's life, each a pure function over arrays of
conductances in siemens:

    program:  g_0 = g_target + programming error          (once, when the cell is written)
    drift:    g_t = f(g_0, t)                             (once per chip and time)
    read:     g   ~ Normal(g_t, sigma_read(g_t, t))       (every read; its column sum is drawn, not the cells)

Published fits live in :mod:`xbm_jax.crossbar.devices.published`; a user's own model is any frozen dataclass with these
methods.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp

from xbm_jax.crossbar.primitives import draws
from xbm_jax.crossbar.validate import check_choice, keep_number
from xbm_jax.errors import SpecError

__all__ = ["Device", "Faults", "Gaussian", "Ideal"]


@dataclass(frozen=True)
class Device:
    """The base of all device models: writes exactly, does not drift, reads without noise.

    ``g``, ``target``: float arrays of one shape, siemens. ``g_max``: siemens, the top level of the cell.
    ``t_seconds``: time since programming. ``key``: a JAX PRNG key; the same key gives the same bits.
    """

    def program(self, target: jax.Array, g_max: float, key: jax.Array) -> jax.Array:
        """Conductances right after writing ``target``."""
        del g_max, key
        return target

    def drift(
        self, g: jax.Array, target: jax.Array, g_max: float, t_seconds: jax.Array | float, key: jax.Array
    ) -> jax.Array:
        """Conductances ``t_seconds`` after programming; ``g`` is what :meth:`program` gave for ``target``."""
        del target, g_max, t_seconds, key
        return g

    def read_sigma(
        self, g: jax.Array, g_max: float, t_seconds: jax.Array | float, programmed: jax.Array | None = None
    ) -> jax.Array | None:
        """Standard deviation of one read, siemens, or ``None`` where reads are exact.

        ``g`` is what the cell holds now; ``programmed`` what it held right after writing (``None``: as ``g``), which
        some read-noise laws are a function of (:class:`~xbm_jax.crossbar.devices.pcm.PcmJoshi`).
        """
        del g, g_max, t_seconds, programmed
        return None


@dataclass(frozen=True)
class Ideal(Device):
    """A cell that holds exactly what was written."""


@dataclass(frozen=True)
class Gaussian(Device):
    """Gaussian programming error and read noise.

        program: g_0 = max(g_target + sigma * r * eps, 0),   eps ~ N(0, 1),   r = g_max ("g_max") or g_target ("g")
        read:    sigma_read = read_sigma_rel * r

    Args:
        sigma: programming error in units of ``relative_to``; at least 0.
        relative_to: ``"g_max"`` for an error that is the same at every level, ``"g"`` for one in proportion to it.
        read_noise: read noise in the same units; at least 0.
    """

    sigma: float = 0.0
    relative_to: Literal["g_max", "g"] = "g_max"
    read_noise: float = 0.0

    def __post_init__(self) -> None:
        keep_number(self, "sigma", low=0.0)
        check_choice("Gaussian.relative_to", self.relative_to, ("g_max", "g"))
        keep_number(self, "read_noise", low=0.0)

    def program(self, target: jax.Array, g_max: float, key: jax.Array) -> jax.Array:
        if self.sigma == 0.0:
            return target
        unit = target if self.relative_to == "g" else g_max
        return jnp.maximum(target + self.sigma * unit * draws.normal(key, target.shape, target.dtype), 0.0)

    def read_sigma(
        self, g: jax.Array, g_max: float, t_seconds: jax.Array | float, programmed: jax.Array | None = None
    ) -> jax.Array | None:
        del t_seconds, programmed
        if self.read_noise == 0.0:
            return None
        return self.read_noise * (g if self.relative_to == "g" else jnp.full_like(g, g_max))


@dataclass(frozen=True)
class Faults:
    """Cells that are stuck: exactly the asked rates, one independent draw per physical cell.

        u ~ U[0, 1):   u < stuck_off -> g = g_min;   stuck_off <= u < stuck_off + stuck_on -> g = g_max

    Args:
        stuck_on: probability that a cell always conducts ``g_max``; in [0, 1].
        stuck_off: probability that a cell always conducts ``g_min``; ``stuck_on + stuck_off <= 1``.
    """

    stuck_on: float = 0.0
    stuck_off: float = 0.0

    def __post_init__(self) -> None:
        keep_number(self, "stuck_on", low=0.0, high=1.0)
        keep_number(self, "stuck_off", low=0.0, high=1.0)
        # 1e-9: rates such as 0.9 + 0.1 must pass although 1 - 0.9 < 0.1 in floating point.
        if self.stuck_on + self.stuck_off > 1.0 + 1e-9:
            raise SpecError("Faults.stuck_off", self.stuck_off, f"at most 1 - stuck_on = {1.0 - self.stuck_on:g}")

    def apply(self, g: jax.Array, g_min: float, g_max: float, key: jax.Array) -> jax.Array:
        """``g`` with the stuck cells at their rail; which cells are stuck depends on ``key`` and the shape alone."""
        if self.stuck_on == 0.0 and self.stuck_off == 0.0:
            return g
        u = draws.uniform(key, g.shape, jnp.float32)
        stuck_high = (u >= self.stuck_off) & (u < self.stuck_off + self.stuck_on)
        return jnp.where(u < self.stuck_off, g_min, jnp.where(stuck_high, g_max, g))
