"""Published device models by name, each cited where it is defined; and SONOS charge-trap memory.

    device = PUBLISHED["reram_wan_crosssim"]        # or ReramWan(fit="crosssim")

Where two programs fitted the same data differently, the name says whose fit it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import jax
import jax.numpy as jnp

from xbm_jax.crossbar.devices.ages import check_time
from xbm_jax.crossbar.devices.fitted import FittedDevice
from xbm_jax.crossbar.devices.laws import Device, Ideal
from xbm_jax.crossbar.devices.milo import milo_current, milo_nonlinearity
from xbm_jax.crossbar.devices.pcm import PcmHermes, PcmJoshi
from xbm_jax.crossbar.devices.reram import ReramCmo, ReramMilo, ReramWan

__all__ = ["PUBLISHED", "PcmHermes", "PcmJoshi", "ReramCmo", "ReramMilo", "ReramWan", "Sonos"]
__all__ += ["milo_current", "milo_nonlinearity"]


@dataclass(frozen=True)
class Sonos(FittedDevice):
    """40 nm SONOS charge-trap memory in subthreshold, as currents up to I_max = 1,600 nA, g_max standing for I_max.

        I = 1600 nA * g / g_max;   sigma_I = A (1 - exp(-I / B))      nA
        program: A = 19.887, B = 176.31;   read: A = 12.580, B = 215.366

    With ``rescale=False`` 1,600 nA stand for 16 uS (CrossSim's suggested range; that this means 0.1 V is inferred).
    Drift over days, a tenth-degree polynomial in CrossSim, is not modelled.
    Source: Agrawal et al., IEEE IEDM (2022), Figs. 10 and 11, as fitted by CrossSim (``SONOS``, time 0).
    """

    _full_scale: ClassVar[float] = 1600.0
    _unit_siemens: ClassVar[float] = 1e-8

    def read_sigma(
        self, g: jax.Array, g_max: float, t_seconds: jax.Array | float, programmed: jax.Array | None = None
    ) -> jax.Array | None:
        check_time(t_seconds, g.dtype)
        del programmed
        unit = self.unit(g_max)
        return unit * _saturating(g / unit, 12.580, 215.366)

    def _fit_sigma(self, g_fit: jax.Array) -> jax.Array:
        return _saturating(g_fit, 19.887, 176.31)


def _saturating(current: jax.Array, amplitude: float, scale: float) -> jax.Array:
    return -amplitude * jnp.expm1(-current / scale)


PUBLISHED: Mapping[str, Device] = MappingProxyType(
    {
        "ideal": Ideal(),
        "pcm_joshi": PcmJoshi(),
        "pcm_joshi_crosssim": PcmJoshi(fit="crosssim"),
        "pcm_hermes_2": PcmHermes(devices=2),
        "pcm_hermes_1": PcmHermes(devices=1),
        "reram_wan_aihwkit": ReramWan(fit="aihwkit"),
        "reram_wan_crosssim": ReramWan(fit="crosssim"),
        "reram_milo": ReramMilo(),
        "reram_cmo": ReramCmo(),
        "sonos": Sonos(),
    }
)
"""Every published model with its defaults, by name."""
