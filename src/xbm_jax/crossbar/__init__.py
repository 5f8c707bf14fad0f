"""Crossbar physics over arrays: a kernel is planned, programmed once, and read."""

from xbm_jax.crossbar.adc import AdcRange, Mismatch
from xbm_jax.crossbar.curve import Curve, MiloCurve
from xbm_jax.crossbar.devices import Device, Faults, Gaussian, Ideal
from xbm_jax.crossbar.observe import clip_rate
from xbm_jax.crossbar.plan import Plan, plan
from xbm_jax.crossbar.products import Conv
from xbm_jax.crossbar.program import (
    Tiles,
    at_time,
    cells_written,
    nominal_weights,
    program,
    reprogram,
    with_signed_inputs,
    worn_cells,
)
from xbm_jax.crossbar.published import PUBLISHED, PcmHermes, PcmJoshi, ReramCmo, ReramMilo, ReramWan, Sonos
from xbm_jax.crossbar.read import linear_kernel, read
from xbm_jax.crossbar.spec import Adc, Cell, CrossbarSpec, Wires
from xbm_jax.crossbar.sums import column_sums
from xbm_jax.crossbar.table_device import FunctionDevice, TableDevice, from_csv
from xbm_jax.crossbar.wires import fold_wires

__all__ = [
    "PUBLISHED",
    "Adc",
    "AdcRange",
    "Cell",
    "Conv",
    "CrossbarSpec",
    "Curve",
    "Device",
    "Faults",
    "FunctionDevice",
    "Gaussian",
    "Ideal",
    "MiloCurve",
    "Mismatch",
    "PcmHermes",
    "PcmJoshi",
    "Plan",
    "ReramCmo",
    "ReramMilo",
    "ReramWan",
    "Sonos",
    "TableDevice",
    "Tiles",
    "Wires",
    "at_time",
    "cells_written",
    "clip_rate",
    "column_sums",
    "fold_wires",
    "from_csv",
    "linear_kernel",
    "nominal_weights",
    "plan",
    "program",
    "read",
    "reprogram",
    "with_signed_inputs",
    "worn_cells",
]
