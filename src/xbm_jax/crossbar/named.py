"""Chips by name, so that comparisons speak of the same one."""

from __future__ import annotations

from collections.abc import Mapping

from xbm_jax.crossbar.devices.laws import Gaussian
from xbm_jax.crossbar.devices.published import ReramWan
from xbm_jax.crossbar.writing.spec import Adc, Cell, CrossbarSpec
from xbm_jax.errors import SpecError

__all__ = ["SPECS", "spec_by_name"]

_ARRAYS = CrossbarSpec(rows=64, cols=64, weight_bits=8, cell=Cell(bits=7, on_off=100.0), adc=Adc(bits=8))
"""Arrays of 64 x 64 cells: 8-bit weights on a differential pair of 7-bit cells, on/off 100, 8-bit converters."""

SPECS: Mapping[str, CrossbarSpec] = {
    "verified": _ARRAYS.replace(device=Gaussian(sigma=0.01)),
    "relaxed": _ARRAYS.replace(device=ReramWan()),
}
"""The chips that have a name.

``"verified"``: every cell written and verified to 1 % of g_max; ResNet-20 keeps its accuracy to a point, so that
comparisons of methods are of adaption (MobileNetV2 does not). ``"relaxed"``: ReRAM as it relaxes after programming
(Wan 2022, aihwkit's fit); comparisons on it are of repair too. `docs/methods.md`, section 2, has what source networks
reach on each.
"""


def spec_by_name(name: str) -> CrossbarSpec:
    """The spec of a named chip.

    Raises:
        SpecError: no such name.
    """
    if name not in SPECS:
        raise SpecError("chip", name, "one of " + ", ".join(map(repr, SPECS)))
    return SPECS[name]
